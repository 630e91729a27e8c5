"""Default tokenizer, image mean and image std, which are stored with the weights."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from mmf_flava.config.processors import CLIP, MAX_LENGTH, TOKENIZER, Statistics
from mmf_flava.data.processor_files import read_processors
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.processes import rank


class InitialProcessors:
    """Default tokenizer, text length, and image mean and std of datasets whose config does not set them.

    The defaults are the values stored with the weights that the run starts from. A value that is not stored
    defaults to the value of the released FLAVA weights.

    Args:
        saved: the processors stored with the weights; None if training starts from scratch.
        positions: number of position embeddings of the text encoder; None if unknown.
        allow_missing: patterns of the names of weights that may be missing; None if no weights may be missing.
        default_statistics: image mean and std that are used if they are not stored with the weights.

    Attributes:
        vocabulary_sha256: hash of the vocabulary of the run's datasets; None until a text processor is built.
        new_vocabulary: whether this vocabulary differs from the vocabulary of the weights. This is an error unless
            ``allow_missing`` matches the word embeddings.
    """

    def __init__(
        self,
        saved: SavedProcessors | None = None,
        positions: int | None = None,
        allow_missing: Sequence[str] | None = None,
        default_statistics: tuple[Statistics, Statistics] = CLIP,
    ) -> None:
        self.default_statistics = default_statistics
        self.saved, self.positions, self.allow_missing = saved or SavedProcessors(""), positions, allow_missing
        self.vocabulary_sha256: str | None = None
        self.new_vocabulary = False
        self._contradictions: set[str] = set()

    def load_tokenizer(self, folder_or_name: str | None, max_length: int | None) -> tuple[Tokenizer, int]:
        """Return the tokenizer and the maximum number of tokens of a text processor.

        Args:
            folder_or_name: folder or Hugging Face model ID of the tokenizer; None: the default tokenizer.
            max_length: maximum number of tokens; None: the default.

        Raises:
            UserError: the tokenizer was not found, its vocabulary differs from the vocabulary of the weights, or
                ``max_length`` is larger than the number of position embeddings.
        """
        name = folder_or_name or TOKENIZER
        stored = None if folder_or_name else self.saved.build_tokenizer()
        tokenizer = load_tokenizer(name) if stored is None else stored
        self.vocabulary_sha256 = compute_vocabulary_hash(tokenizer)
        self.new_vocabulary = self.saved.check_vocabulary(
            self.vocabulary_sha256, f"tokenizer {name}", self.allow_missing
        )
        if max_length is None:
            max_length = min(self.saved.max_length or MAX_LENGTH, self.positions or MAX_LENGTH)
        elif self.positions is not None and max_length > self.positions:
            raise UserError(
                f"max_length is {max_length}, but the text encoder has {self.positions} positions. Set it to at most "
                f"{self.positions}."
            )
        return tokenizer, max_length

    def has_new_vocabulary(
        self, source: str | Path, allow_missing: Sequence[str], cache_dir: str | Path | None = None
    ) -> bool:
        """Return whether the vocabulary of the run's datasets differs from the vocabulary of the weights in ``source``.

        Raises:
            UserError: the vocabularies differ, and no pattern in ``allow_missing`` matches the word embeddings.
        """
        if self.vocabulary_sha256 is None:
            return False
        saved = read_processors(source, cache_dir)
        if saved.vocabulary_sha256 is None and rank() == 0:
            warnings.warn(
                f"{source} does not store its vocabulary. It is assumed to be the vocabulary of the run's tokenizer.",
                stacklevel=3,
            )
        key = "word_embeddings.weight"
        return saved.check_vocabulary(self.vocabulary_sha256, "The run's tokenizer", allow_missing, key)

    def statistics(
        self,
        image_size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        default: tuple[Statistics, Statistics] | None = None,
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Return the mean and std of an image processor. If they are None, return the values stored with the weights.

        Warn if the image size, mean or std differs from the value that the weights were trained with.

        Args:
            default: mean and std if the weights store none; None: ``default_statistics``.
        """
        saved, (default_mean, default_std) = self.saved, default or self.default_statistics
        mean, std = tuple(mean or saved.mean or default_mean), tuple(std or saved.std or default_std)
        for name, value, trained in (
            ("image_size", image_size, saved.image_size),
            ("mean", list(mean), saved.mean and list(saved.mean)),
            ("std", list(std), saved.std and list(saved.std)),
        ):
            message = f"{name} is set to {value}, but {saved.source} was trained with {name} {trained}."
            if trained not in (None, value) and message not in self._contradictions and rank() == 0:
                self._contradictions.add(message)
                warnings.warn(message, stacklevel=3)
        return mean, std
