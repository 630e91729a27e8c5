"""Weights under our names out of any style, and back: the table at work."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.weights.table import PREFIXES, STYLES, Row, pattern, rows

# a file of one part has shorter keys: the model without heads in every style
SHORT = {"mmf_flava": ("flava.",), "hf": ("flava.",), "torchmultimodal": ("model.",), "mmf": ()}
WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")  # in files of older versions
# the original MMF files name the embeddings twice, outside of .module. and inside
SECOND_COPIES = re.compile(r"^(text|image)_encoder\.embeddings\.")


@dataclass
class Translated:
    """Weights under our names.

    tensors: by our names; ``unused.`` in front of what no code uses.
    unknown: their keys that the table does not know, or that lack their sisters (query without key and value).
    ignored: their keys that are known to be of no use.
    """

    style: str
    tensors: dict[str, Tensor]
    unknown: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def recognise(keys: Iterable[str], source: str = "the file") -> tuple[str, dict[str, str]]:
    """The style of a file, from its keys alone, and the full name in that style of every key.

    Raises:
        UserError: fewer than half of the keys are in any style.
    """
    given = [key for key in keys if not BUFFERS.search(key)]
    best: tuple[int, str, dict[str, str]] = (0, "", {})
    for style in STYLES:
        known = {key: name for key in given if (name := _full_name(key, style)) is not None}
        if len(known) > best[0]:
            best = (len(known), style, known)
    hits, style, known = best
    if hits * 2 < len(given) or not given:
        shown = ", ".join(given[:3]) or "no tensors"
        raise UserError(
            f"{source} holds no FLAVA that we know: keys such as {shown} are neither our names nor Hugging Face's, "
            "torchmultimodal's or the original MMF code's."
        )
    return style, known


def encoder_prefix(keys: Iterable[str], encoder: str) -> str | None:
    """What to write in front of the keys of a file that holds nothing but ``@image`` or ``@text``, in any style."""
    keys = list(keys)
    columns = next(line.split()[1:] for line in PREFIXES.strip().splitlines() if line.startswith(f"{encoder} "))
    hits = {
        prefix: sum(_full_name(prefix + key, style) is not None for key in keys)
        for style, prefix in zip(STYLES, columns, strict=True)
    }
    best = max(hits, key=lambda prefix: hits[prefix])
    return best if hits[best] else None


def _full_name(key: str, style: str) -> str | None:
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    for prefix in ("", *SHORT[style]):
        name = prefix + key
        if style == "mmf_flava" and name.startswith("codebook."):  # a k-means codebook has no counterpart elsewhere
            return name
        if any(pattern(row.theirs).fullmatch(name) for row in _candidates(style, name)):
            return name
    return None


@cache
def _by_start(style: str, ours: bool) -> dict[str, tuple[Row, ...]]:
    """Rows by the first word of their name: 618 keys against some 100 rows would take a second."""
    found: dict[str, list[Row]] = {}
    for row in rows(style):
        found.setdefault(_start(row.ours if ours else row.theirs), []).append(row)
    return {start: tuple(members) for start, members in found.items()}


def _start(name: str) -> str:
    return ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]


def _candidates(style: str, name: str, ours: bool = False) -> tuple[Row, ...]:
    table = _by_start(style, ours)
    return table.get(_start(name), ()) + table.get(name.split(".")[0], ())


def to_ours(tensors: dict[str, Tensor], source: str = "the file") -> Translated:
    """Weights of any style under our names; query, key and value become one tensor. No dtype changes, nothing is lost.

    Raises:
        UserError: the keys are of no known style.
    """
    style, names = recognise(tensors, source)
    result = Translated(style, {})
    thirds: dict[str, dict[int, str]] = {}
    for key, tensor in tensors.items():
        name = names.get(key)
        if name is None:
            ignored = BUFFERS.search(key) or (style == "mmf" and SECOND_COPIES.match(key))
            (result.ignored if ignored else result.unknown).append(key)
            continue
        if style == "mmf_flava":
            result.tensors[name] = tensor
            continue
        row = next(row for row in _candidates(style, name) if row.our_name(name) is not None)
        ours = row.our_name(name)
        assert ours is not None
        if row.part is not None:
            thirds.setdefault(ours, {})[row.part] = key
        elif ours in result.tensors and not torch.equal(result.tensors[ours], tensor):
            result.unknown.append(key)  # an alias that says something else
        else:
            result.tensors[ours] = tensor
    for ours, keys in thirds.items():
        parts = [tensors[keys[i]] for i in sorted(keys)]
        if len(parts) == 3 and len({part.shape for part in parts}) == 1:
            result.tensors[ours] = torch.cat(parts)
        else:
            result.unknown += keys.values()
    return result


def from_ours(tensors: dict[str, Tensor], style: str) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under our names in another style, every tensor with its own memory, and our keys that it cannot name."""
    if style == "mmf_flava":
        return {key: tensor.contiguous() for key, tensor in tensors.items()}, []
    written: dict[str, Tensor] = {}
    left: list[str] = []
    for key, tensor in tensors.items():
        matching = [row for row in _candidates(style, key, ours=True) if row.their_name(key) is not None]
        for row in matching:
            name = row.their_name(key)
            assert name is not None
            value = tensor if row.part is None else tensor.chunk(3)[row.part]
            shared = row.part is not None or len(matching) > 1  # safetensors refuses two names for one memory
            written[name] = value.clone() if shared else value.contiguous()
        if not matching:
            left.append(key)
    return written, left


def with_poolers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with the three encoders' poolers, which other implementations own and never use: N(0, 0.02), bias 0."""
    complete = dict(tensors)
    generator = torch.Generator().manual_seed(0)  # the same file from the same weights
    for encoder in ("image_encoder", "text_encoder", "multimodal_encoder"):
        norm = tensors.get(f"flava.{encoder}.norm.weight")
        name = f"unused.flava.{encoder}.pooler"
        if norm is not None and f"{name}.weight" not in tensors:
            width = len(norm)
            complete[f"{name}.weight"] = torch.empty(width, width).normal_(std=0.02, generator=generator).to(norm.dtype)
            complete[f"{name}.bias"] = torch.zeros(width, dtype=norm.dtype)
    return complete
