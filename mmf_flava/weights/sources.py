"""Where weights come from: a local file or folder, an http(s) address, or a name on the Hugging Face hub.

The style of what is found is told by its keys. Nothing that is read is ever executed.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.files.download import HUB_NAME, cached, fetch, hub_url
from mmf_flava.files.faults import NotThere
from mmf_flava.weights.weight_files import SUFFIXES, WHOLE_AND_INDEX, read_tensors, shard_files, weight_file
from mmf_flava.weights.names import to_ours
from mmf_flava.weights.sizes import from_hugging_face, from_plain, from_tensors

# taken along from the hub where they are; the tensors' shapes tell the sizes where there is no config.json
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
SIDE_FILES = ("config.json", *TOKENIZER_FILES)
CONFIG_KEY = "flava_config"  # in the metadata of the safetensors files that we write


@dataclass
class Weights:
    """Weights under our names.

    tensors: see ``interop.names.Translated``; so unknown.
    config: the sizes that the source states, or None where it only has tensors.
    file: where the tensors were read from.
    """

    source: str
    style: str
    tensors: dict[str, Tensor]
    file: Path
    unknown: list[str] = field(default_factory=list)
    config: FlavaConfig | None = None

    def sizes(self, num_heads: int | None = None) -> FlavaConfig:
        """Stated sizes, or those that the tensors' shapes tell."""
        return self.config or from_tensors(self.tensors, num_heads)

    @property
    def core_only(self) -> bool:
        return not any(key.startswith("heads.") for key in self.tensors)


def find(source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None) -> Path:
    """The local file of weights (or index of shards) of a source, downloaded where it has to be.

    Raises:
        UserError: there is no such thing.
    """
    text = str(source)
    if text.startswith(("http://", "https://")):
        return fetch(text, cache_dir, sha256)
    path = Path(text).expanduser()
    if path.exists():
        return weight_file(path) if path.is_dir() else path
    if not HUB_NAME.fullmatch(text) or path.suffix in SUFFIXES:
        raise UserError(f"There is no {text}: neither a file nor a folder, nor an address or a name on the hub.")
    return _find_on_hub(text, cache_dir, sha256)


def _find_on_hub(name: str, cache_dir: str | Path | None, sha256: str | None) -> Path:
    for whole, index in WHOLE_AND_INDEX:  # what is here already needs no network
        if cached(hub_url(name, whole), cache_dir):
            return fetch(hub_url(name, whole), cache_dir, sha256)
        local = cached(hub_url(name, index), cache_dir)
        if local and all(cached(hub_url(name, shard), cache_dir) for shard in shard_files(local)):
            return local
    for side_file in SIDE_FILES:
        with suppress(NotThere):
            fetch(hub_url(name, side_file), cache_dir)
    for whole, index in WHOLE_AND_INDEX:
        try:
            return fetch(hub_url(name, whole), cache_dir, sha256)
        except NotThere:
            pass
        try:
            local = fetch(hub_url(name, index), cache_dir)
        except NotThere:
            continue
        for shard in shard_files(local):
            fetch(hub_url(name, shard), cache_dir)
        return local
    raise UserError(f"{hub_url(name, '')} has neither model.safetensors nor pytorch_model.bin; is {name!r} the name?")


def read_weights(source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None) -> Weights:
    """All tensors of a source under our names, nothing left out and nothing cast.

    Raises:
        UserError: no such source, an unreadable or unsafe file, or no FLAVA in it.
    """
    file = find(source, cache_dir, sha256)
    tensors, besides = read_tensors(file)
    translated = to_ours(tensors, str(source))
    return Weights(
        str(source), translated.style, translated.tensors, file, translated.unknown, _stated_config(file, besides)
    )


def _stated_config(file: Path, besides: dict[str, Any]) -> FlavaConfig | None:
    """From our metadata, an MMF checkpoint's configuration, or Hugging Face's config.json."""
    if isinstance(text := besides.get(CONFIG_KEY), str):
        return from_plain(_json(text, file), f"{file}, metadata")
    stored = besides.get("config")
    for key in ("model_config", "flava"):
        stored = stored.get(key) if isinstance(stored, dict) else None
    if isinstance(stored, dict):
        return from_plain(stored, f"{file}, config.model_config.flava")
    beside = file.parent / "config.json"
    if beside.is_file():
        values = _json(beside.read_text(encoding="utf-8"), beside)
        return from_hugging_face(values, str(beside)) if values.get("model_type") == "flava" else None
    return None


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{where} holds no mapping.")
    return values
