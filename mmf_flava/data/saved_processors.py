"""Processors that a model was trained with: tokenizer, text length, image size, image mean and std, class names."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from mmf_flava.config.processors import CLIP, MAX_LENGTH, TOKENIZER, Statistics
from mmf_flava.data.tokenizer import parse_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.processes import rank
from mmf_flava.weights.loading import WORD_EMBEDDINGS, matches_any


@dataclass(frozen=True)
class SavedProcessors:
    """Processors that a model was trained with, as stored with its weights. Values that are not stored are None.

    source: path or name of the weights.
    tokenizer: content of ``tokenizer.json``.
    vocabulary_sha256: see ``compute_vocabulary_hash``.
    max_length: maximum number of tokens of a text, including [CLS] and [SEP].
    image_size: height and width of the image encoder's input, in pixels.
    mean, std: mean and standard deviation per channel, which normalise pixel values in [0, 1].
    classes: class names of a classifier, in label order.
    classifier_inputs: what a classifier was trained on: image, text or both.
    target_scale: mean and standard deviation of the values that a regression was trained on.
    """

    source: str
    tokenizer: str | None = None
    vocabulary_sha256: str | None = None
    max_length: int | None = None
    image_size: int | None = None
    mean: Statistics | None = None
    std: Statistics | None = None
    classes: tuple[str, ...] | None = None
    classifier_inputs: tuple[str, ...] | None = None
    target_scale: tuple[float, float] | None = None

    @classmethod
    def collect(cls, text: Any | None, image: Any | None, classes: Iterable[str] | None = None) -> "SavedProcessors":
        """Collect the values of a text processor, an image processor and class names; each may be None."""
        return cls(
            source="",
            tokenizer=None if text is None else text.tokenizer.to_str(),
            vocabulary_sha256=None if text is None else text.vocabulary_hash,
            max_length=None if text is None else text.max_length,
            image_size=None if image is None else image.image_size,
            mean=None if image is None else image.mean,
            std=None if image is None else image.std,
            classes=None if classes is None else tuple(classes),
        )

    def completed_by(self, other: "SavedProcessors") -> "SavedProcessors":
        """Return a copy whose missing text or image values are replaced by the values of ``other``."""
        text = ("tokenizer", "vocabulary_sha256", "max_length") if self.vocabulary_sha256 is None else ()
        image = ("image_size", "mean", "std") if self.mean is None else ()
        return replace(self, **{name: getattr(other, name) for name in (*text, *image)})

    def build_tokenizer(self) -> Tokenizer | None:
        """Return the stored tokenizer, or None if no tokenizer is stored."""
        return None if self.tokenizer is None else parse_tokenizer(self.tokenizer, f"{self.source}, tokenizer.json")

    def check_vocabulary(
        self, vocabulary_sha256: str, name: str, allow_missing: Iterable[str] | None = None, key: str = WORD_EMBEDDINGS
    ) -> bool:
        """Return whether a tokenizer's vocabulary differs from the weights' vocabulary; False if they do not store it.

        Args:
            vocabulary_sha256: hash of the tokenizer's vocabulary, see ``compute_vocabulary_hash``.
            name: name of the tokenizer, used in the error message.
            allow_missing: patterns of the names of weights that may be missing. A different vocabulary is accepted if
                one of them matches ``key``. None: a different vocabulary is never accepted.
            key: name of the word embeddings in the model that the weights are loaded into.

        Raises:
            UserError: the vocabularies differ, and no pattern matches the word embeddings.
        """
        if self.vocabulary_sha256 in (None, vocabulary_sha256):
            return False
        if allow_missing is None or not matches_any(key, allow_missing):
            train = f", or add '{key}' to checkpoint.allow_missing to train new word embeddings"
            raise UserError(
                f"{name}: the vocabulary differs from the vocabulary that {self.source} was trained with (SHA-256 "
                f"{vocabulary_sha256[:12]}..., not {str(self.vocabulary_sha256)[:12]}...). Use the tokenizer of the "
                f"weights{'' if allow_missing is None else train}."
            )
        return True

    def warn_of_assumptions(
        self,
        tokenizer: bool = True,
        max_length: bool = True,
        statistics: bool = True,
        default_statistics: tuple[Statistics, Statistics] = CLIP,
    ) -> None:
        """Issue one warning that lists the default values used in place of values that are not stored.

        Args:
            tokenizer, max_length, statistics: whether the default is used, because the user has not set the value.
            default_statistics: the default image mean and std.
        """
        assumed = []
        if tokenizer and self.tokenizer is None:
            assumed.append(f"tokenizer {TOKENIZER}")
        if max_length and self.max_length is None:
            assumed.append(f"at most {MAX_LENGTH} tokens")
        if statistics and (self.mean is None or self.std is None):
            mean, std = default_statistics
            owner = "CLIP's " if default_statistics == CLIP else ""
            assumed.append(f"{owner}image mean {list(mean)} and std {list(std)}")
        if assumed and rank() == 0:
            warnings.warn(
                f"{self.source} does not state all processor settings that it was trained with. Assumed: "
                f"{', '.join(assumed)}. If other values were used, set tokenizer, max_length, mean and std.",
                stacklevel=3,
            )

    @classmethod
    def of_datasets(cls, datasets: Sequence[Any], classes: Sequence[str] | None = None) -> "SavedProcessors":
        """Collect the processors of a run's datasets. Processors from outside mmf_flava are ignored.

        Args:
            datasets: datasets in order of precedence. Datasets of image-text pairs precede all others.
            classes: class names in label order.

        Raises:
            UserError: the datasets have different vocabularies, or different image statistics.
        """
        texts = {id(data): text for data in datasets if hasattr(text := _get(data, "text_processor"), "tokenizer")}
        images = {id(data): image for data in datasets if hasattr(image := _get(data, "image_processor"), "mean")}
        _check_agreement(datasets, texts, ("vocabulary_hash",), "tokenizers with different vocabularies", "tokenizer")
        _check_agreement(datasets, images, ("mean", "std"), "images with different mean and std", "mean and std")
        order = sorted(datasets, key=lambda data: not (id(data) in texts and id(data) in images))
        text = next((texts[id(data)] for data in order if id(data) in texts), None)
        image = next((images[id(data)] for data in order if id(data) in images), None)
        inputs, scale = (
            next((value for data in datasets if (value := _get(data, name)) is not None), None)
            for name in ("classifier_inputs", "target_scale")
        )
        return replace(cls.collect(text, image, classes), classifier_inputs=inputs, target_scale=scale)

    # ------------------------------------------------------------------ JSON

    def to_json(self) -> dict[str, Any]:
        """Return the values as a JSON object; the inverse of ``from_json``."""
        values = asdict(self)
        del values["source"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str, where: str) -> "SavedProcessors":
        """Create the processors from a JSON object of ``to_json``. Missing values become None.

        Args:
            where: location of the values, used in error messages.

        Raises:
            UserError: a value is invalid.
        """
        try:
            return cls(
                source,
                tokenizer=_optional(str, values.get("tokenizer")),
                vocabulary_sha256=_optional(str, values.get("vocabulary_sha256")),
                max_length=_optional(int, values.get("max_length")),
                image_size=_optional(int, values.get("image_size")),
                mean=_optional(_statistics, values.get("mean")),
                std=_optional(_statistics, values.get("std")),
                classes=_optional(lambda names: tuple(map(str, names)), values.get("classes")),
                classifier_inputs=_optional(lambda names: tuple(map(str, names)), values.get("classifier_inputs")),
                target_scale=_optional(lambda scale: (float(scale[0]), float(scale[1])), values.get("target_scale")),
            )
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{where}: a value is invalid ({error}). The file may be damaged: copy or download it again."
            ) from None


def class_names(dataset: object) -> list[str] | None:
    """Return a dataset's class names in label order: image classes, labels of a GLUE task or MMF's answers."""
    answers = getattr(getattr(dataset, "answer_processor", None), "answer_vocab", None)
    names = (
        getattr(dataset, "classes", None)
        or getattr(getattr(dataset, "task", None), "labels", None)
        or getattr(answers, "word_list", None)
    )
    return list(names) if names else None


def _get(dataset: Any, processor: str) -> Any:
    return getattr(dataset, processor, None)


def _check_agreement(
    datasets: Sequence[Any], processors: Mapping[int, Any], names: Sequence[str], difference: str, keys: str
) -> None:
    found = [(data, processors[id(data)]) for data in datasets if id(data) in processors]
    for data, processor in found[1:]:
        first, reference = found[0]
        if any(getattr(processor, name) != getattr(reference, name) for name in names):
            raise UserError(
                f"dataset_config: {first.dataset_name} and {data.dataset_name} have {difference}, but the same "
                f"model is trained on both. Set the same {keys} for both."
            )


def _optional(convert: Any, value: Any) -> Any:
    return None if value is None else convert(value)


def _statistics(values: Any) -> Statistics:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
