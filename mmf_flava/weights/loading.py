"""Loading of weights into a model, with a check that all keys and shapes match.

All weights are loaded by ``load_tensors``. For a model on the meta device, call ``compare_keys`` before the
model is allocated.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isqrt
from pathlib import Path

from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.model import CoreConfig, FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.weights.configs import read_config, read_image_heads
from mmf_flava.weights.sources import Weights, read_weights
from mmf_flava.weights.weight_files import read_safetensors

WORD_EMBEDDINGS = "flava.text_encoder.word_embeddings.weight"
# parameters with one row per token of the vocabulary
PER_TOKEN = re.compile(r"(^|\.)word_embeddings\.weight$|^heads\.(mlm|mmm_text)\.decoder\.")
MAX_LINES = 8  # maximum number of lines in an error message per kind of mismatch


@dataclass
class IncompatibleKeys:
    """Differences in keys and shapes between a model and loaded weights.

    missing: model keys that were not loaded.
    unexpected: loaded keys that the model does not have.
    mismatched: key -> loaded and expected shape as text, for keys whose shapes differ.
    allowed: differing keys that match a pattern of ``allow_missing`` or ``allow_extra``.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)
    allowed: list[str] = field(default_factory=list)

    def check(self, source: str, model: str = "the model", remedy: str | None = None) -> None:
        """Raise UserError if the model and the weights differ; the message lists the keys.

        Args:
            source: path or name of the weights, for the message.
            model: description of the model, for the message.
            remedy: last sentence of the message; default: a hint to set ``allow_missing`` and ``allow_extra``.
        """
        keys = [*self.missing, *self.mismatched, *self.unexpected]
        if keys:
            remedy = remedy or self._suggest_patterns(keys[0])
            raise UserError(f"{source} does not match {model}: {len(keys)} keys differ.\n{self._report()}\n{remedy}")

    def message(self, name: str, source: str) -> str:
        """Return a log message about loaded weights, with the number of allowed differences."""
        allowed = f"; allowed mismatches: {len(self.allowed)}, e.g. {self.allowed[0]}" if self.allowed else ""
        return f"Loaded the {name} from {source}{allowed}"

    def _report(self) -> str:
        lines: list[str] = []
        for title, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("different shape", self.mismatched),
        ):
            if keys:
                lines += [f"  {title}: {len(keys)}", *(f"    {line}" for line in _group_layers(keys, self.mismatched))]
        return "\n".join(lines)

    def _suggest_patterns(self, key: str) -> str:
        options = [
            name
            for name, keys in (("allow_missing", self.missing or self.mismatched), ("allow_extra", self.unexpected))
            if keys
        ]
        pattern = f"{key.rpartition('.')[0]}.*" if "." in key else key
        sizes = "Set the sizes in the recipe to those of the weights. " if self.mismatched else ""
        return f"{sizes}If these differences are intended, add the keys to {' and '.join(options)}, e.g. ['{pattern}']."


def compare_keys(
    expected: Mapping[str, Tensor],
    loaded: Mapping[str, Tensor],
    unknown: Iterable[str] = (),
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
) -> IncompatibleKeys:
    """Compare a model and loaded tensors by keys and shapes.

    Args:
        expected: the model's state dict.
        unknown: additional keys of the file that could not be translated to mmf_flava's keys.
        allow_missing: patterns (``heads.*``) of model keys that may be missing or have another shape in the file; these
            tensors keep their initial values.
        allow_extra: patterns of keys in the file that are ignored if the model does not have them.
    """
    allow_missing, allow_extra = list(allow_missing), list(allow_extra)
    report = IncompatibleKeys()
    for key, tensor in expected.items():
        same_shape = key in loaded and loaded[key].shape == tensor.shape
        if not same_shape and matches_any(key, allow_missing):
            report.allowed.append(key)
        elif key not in loaded:
            report.missing.append(key)
        elif not same_shape:
            report.mismatched[key] = f"{tuple(loaded[key].shape)}, expected {tuple(tensor.shape)}"
    for key in [*(key for key in loaded if key not in expected), *unknown]:
        (report.allowed if matches_any(key, allow_extra) else report.unexpected).append(key)
    return report


def matches_any(key: str, patterns: Iterable[str]) -> bool:
    """Return whether a key matches any of the patterns, with the wildcards of ``fnmatch``: ``*``, ``?``, ``[...]``."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _group_layers(keys: Iterable[str], shapes: Mapping[str, str]) -> list[str]:
    """Format keys as lines of text; keys that differ only in the layer index are merged into one line."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(re.sub(r"\.\d+\.", ".#.", key), []).append(key)
    lines = []
    for name, members in groups.items():
        text = members[0] if len(members) == 1 else f"{name} ({len(members)} layers)"
        lines.append(f"{text}: {shapes[members[0]]}" if members[0] in shapes else text)
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more lines"]
    return lines


def load_tensors(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    model: str = "the model",
    unknown: Iterable[str] = (),
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    remedy: str | None = None,
) -> IncompatibleKeys:
    """Copy tensors into a module's parameters and buffers of the same names.

    Args:
        source, model, remedy: see ``IncompatibleKeys.check``.
        unknown, allow_missing, allow_extra: see ``compare_keys``.

    Raises:
        UserError: keys that match no pattern in ``allow_missing`` or ``allow_extra`` are missing or unexpected, or have
            another shape.
    """
    expected = module.state_dict()
    report = compare_keys(expected, tensors, unknown, allow_missing, allow_extra)
    report.check(source, model, remedy)
    matching = {key: value for key, value in tensors.items() if key in expected and expected[key].shape == value.shape}
    module.load_state_dict(matching, strict=False)
    return report


def load_checkpoint_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a checkpoint folder or of a ``.safetensors`` file; all keys and shapes must match.

    Raises:
        UserError: the file does not exist, or keys, shapes or the number of attention heads do not match.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() != ".safetensors":
        raise UserError(
            f"{path} is neither a checkpoint folder of mmf_flava nor a .safetensors file. Set the path to one of "
            "these, or set checkpoint.resume_pretrained: true to load other weights files."
        )
    remedy = (
        "Resume with the recipe that wrote this checkpoint, or start a new run from its weights with "
        "checkpoint.resume_file and checkpoint.resume_pretrained: true."
    )
    tensors, metadata = read_safetensors(file)
    stated, settings = read_config(file, metadata), getattr(model, "settings", None)
    if stated is not None and isinstance(settings, CoreConfig):
        _check_num_heads(stated, settings, str(path))
    if isinstance(settings, DinoConfig):
        section = "model_config.flava_dino.image_encoder"
        check_image_heads(settings.image_encoder.num_heads, read_image_heads(metadata), str(path), section)
    load_tensors(model, tensors, str(file), "the recipe's model", remedy=remedy)


def load_weights(
    model: nn.Module,
    source: str | Path,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    cache_dir: str | Path | None = None,
    new_vocabulary: bool = False,
) -> IncompatibleKeys:
    """Load weights of any naming style into an existing model, in place.

    Args:
        source, cache_dir: see ``sources.find_weights``.
        allow_missing, allow_extra: see ``compare_keys``.
        new_vocabulary: see ``drop_vocabulary``.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, or the weights do not
            match the model.
    """
    weights = read_weights(source, cache_dir)
    settings = getattr(model, "settings", None)
    if weights.config is not None and isinstance(settings, CoreConfig):
        _check_num_heads(weights.config, settings, weights.source)
    if new_vocabulary:
        drop_vocabulary(weights.tensors, allow_missing := list(allow_missing))
    return copy_weights(model, weights, allow_missing, allow_extra)


def copy_weights(
    model: nn.Module, weights: Weights, allow_missing: Iterable[str] = (), allow_extra: Iterable[str] = ()
) -> IncompatibleKeys:
    """Copy weights into a model whose state dict has mmf_flava's keys.

    Weights of components that the model does not have (a head, the codebook) and tensors that no code uses are skipped.
    Position embeddings are interpolated if the weights were trained at another image size.

    Raises:
        UserError: keys that match no pattern in ``allow_missing`` or ``allow_extra`` are missing or unknown, or have
            another shape.
    """
    expected = model.state_dict()
    components = {_component(key) for key in expected}
    tensors = {key: value for key, value in weights.tensors.items() if _component(key) in components}
    resample_positions(tensors, expected, "flava.image_encoder.pos_embed")
    allow_missing = list(allow_missing)
    if weights.style == "torchmultimodal" and not weights.has_heads:
        allow_missing.append("flava.logit_scale")  # torchmultimodal stores it in the loss, not in the core model
    return load_tensors(
        model,
        tensors,
        weights.source,
        unknown=weights.unknown,
        allow_missing=allow_missing,
        allow_extra=allow_extra,
    )


def drop_vocabulary(tensors: dict[str, Tensor], allow_missing: Iterable[str]) -> None:
    """Remove the parameters with one row per vocabulary token that match ``allow_missing``.

    Call this function if the model has another vocabulary than the weights.
    """
    for key in [key for key in tensors if PER_TOKEN.search(key) and matches_any(key, allow_missing)]:
        del tensors[key]


def _component(key: str) -> str:
    words = key.split(".")
    return ".".join(words[:2]) if words[0] == "heads" else words[0]


def resample_positions(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], key: str) -> None:
    """Interpolate the position embeddings ``tensors[key]`` in place if the model's square grid differs in size."""
    if key not in tensors or key not in expected or tensors[key].shape == expected[key].shape:
        return
    old, new = (positions[key].shape[1] - 1 for positions in (tensors, expected))
    square = isqrt(old) ** 2 == old and isqrt(new) ** 2 == new
    if tensors[key].ndim == 3 and square and tensors[key].shape[2] == expected[key].shape[2]:
        # the same interpolation as in ``ImageEncoder.sequence``
        sizes = [isqrt(new)] * 2, [isqrt(old)] * 2
        tensors[key] = resample_abs_pos_embed(tensors[key].float(), *sizes, antialias=False)


def check_image_heads(heads: int, trained: int | None, source: str, section: str) -> None:
    """Raise UserError if the image encoder had another number of heads (None: unknown); tensor shapes do not show this.

    Args:
        section: the section of the recipe with the key ``num_heads``.
    """
    if trained not in (None, heads):
        raise UserError(
            f"{section}.num_heads is {heads}, but {source} was trained with {trained} attention heads. Set it to "
            f"{trained}."
        )


def _check_num_heads(stated: CoreConfig, settings: CoreConfig, source: str) -> None:
    """Raise UserError if model and weights differ in the number of attention heads; tensor shapes do not show this."""
    section = f"model_config.{'flava' if isinstance(settings, FlavaConfig) else 'flava_classification'}"
    for name in ("image_encoder", "text_encoder", "multimodal_encoder"):
        trained, expected = (getattr(config, name).num_heads for config in (stated, settings))
        if trained != expected:
            raise UserError(
                f"{section}.{name}.num_heads is {expected}, but {source} was trained with {trained} attention heads in "
                f"its {name.replace('_', ' ')}. Set it to {trained}."
            )
