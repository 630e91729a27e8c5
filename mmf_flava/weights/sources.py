"""Reading of weights from a local file or folder, a URL or the Hugging Face Hub."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.files.download import HUB_NAME, download_file, find_cached, hub_url
from mmf_flava.files.download_errors import RemoteFileNotFoundError
from mmf_flava.weights.configs import config_from_tensors, read_config
from mmf_flava.weights.names import to_native
from mmf_flava.weights.weight_files import (
    SUFFIXES,
    WEIGHTS_NAMES,
    find_checkpoint,
    find_weights_file,
    read_tensors,
    shard_files,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
OPTIONAL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processors.json",
    *TOKENIZER_FILES,
)  # downloaded with the weights if the repository has them


@dataclass
class Weights:
    """Weights under mmf_flava's keys, with their source and configuration.

    source: path, URL or Hugging Face model ID, as passed to ``read_weights``.
    style: naming style of the keys in the file, one of ``names.STYLES``.
    tensors, unknown: see ``names.Translation``.
    file: local file that the tensors were read from.
    config: configuration stored with the weights, or None if none is stored.
    """

    source: str
    style: str
    tensors: dict[str, Tensor]
    file: Path
    unknown: list[str] = field(default_factory=list)
    config: FlavaConfig | None = None

    def infer_config(self, num_heads: int | None = None) -> FlavaConfig:
        """Return the stored configuration, or infer it from tensor shapes if none is stored."""
        return self.config or config_from_tensors(self.tensors, num_heads)

    @property
    def has_heads(self) -> bool:
        """Whether the weights contain a pretraining head."""
        return any(key.startswith("heads.") for key in self.tensors)


def read_weights(source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None) -> Weights:
    """Read all tensors of a source and translate their keys to mmf_flava's keys; dtypes do not change.

    Args:
        source, cache_dir, sha256: see ``find_weights``.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, or it has no FLAVA weights.
    """
    file = find_weights(source, cache_dir, sha256)
    tensors, metadata = read_tensors(file)
    translation = to_native(tensors, str(source))
    config = read_config(file, metadata)
    return Weights(str(source), translation.style, translation.tensors, file, translation.unknown, config)


def find_weights(source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None) -> Path:
    """Return the local path of the weights file of a source (or of its index of shards); download remote files.

    Args:
        source: local file or folder, http(s) URL, or Hugging Face model ID (``facebook/flava-full``), which may be
            followed by ``@revision``. A run folder and its ``checkpoints/latest`` stand for the newest checkpoint, and
            ``checkpoints/best`` stands for the best one.
        cache_dir: download folder; default: $MMF_CACHE_DIR/mmf_flava if MMF_CACHE_DIR is set, otherwise
            ~/.cache/mmf_flava.
        sha256: expected SHA-256 of a downloaded file.

    Raises:
        UserError: the source was not found.
    """
    text = str(source)
    if text.startswith(("http://", "https://")):
        return download_file(text, cache_dir, sha256)
    path = Path(text).expanduser()
    if not path.is_dir():
        path = find_checkpoint(path)
    if path.exists():
        return find_weights_file(path) if path.is_dir() else path
    if not HUB_NAME.fullmatch(text) or path.suffix in SUFFIXES:
        raise UserError(f"{text} was not found. Expected a file, a folder, a URL or a Hugging Face model ID.")
    return _find_on_hub(text, cache_dir, sha256)


def find_processor_files(source: str | Path, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path from which the processors of a source can be read: its weights file or a folder.

    For a Hugging Face repository, this function downloads only configuration and processors, and nothing if the weights
    are in the cache.

    Args:
        source, cache_dir: see ``find_weights``.

    Returns:
        The path, or None for a repository that contains only weights.

    Raises:
        UserError: the source was not found.
    """
    text = str(source)
    is_file = text.startswith(("http://", "https://")) or Path(text).expanduser().exists()
    if is_file or not HUB_NAME.fullmatch(text) or Path(text).suffix in SUFFIXES:
        return find_weights(source, cache_dir)
    if (local := _find_cached_weights(text, cache_dir)) is not None:
        return local
    found = _download_optional_files(text, cache_dir)
    return found[0].parent if found else None


def _find_on_hub(name: str, cache_dir: str | Path | None, sha256: str | None) -> Path:
    if (local := _find_cached_weights(name, cache_dir)) is not None:
        single = hub_url(name, local.name)
        return local if local.name.endswith(".index.json") else download_file(single, cache_dir, sha256)
    _download_optional_files(name, cache_dir)
    for single, index in WEIGHTS_NAMES:
        try:
            return download_file(hub_url(name, single), cache_dir, sha256)
        except RemoteFileNotFoundError:
            pass
        try:
            local = download_file(hub_url(name, index), cache_dir)
        except RemoteFileNotFoundError:
            continue
        for shard in shard_files(local):
            download_file(hub_url(name, shard), cache_dir)
        return local
    raise UserError(
        f"{hub_url(name, '')} has neither model.safetensors nor pytorch_model.bin. Check the model ID {name}."
    )


def _find_cached_weights(name: str, cache_dir: str | Path | None) -> Path | None:
    """Return the cached weights file or index of shards of a repository; None if any weights file is not cached."""
    for single, index in WEIGHTS_NAMES:
        if (local := find_cached(hub_url(name, single), cache_dir)) is not None:
            return local
        local = find_cached(hub_url(name, index), cache_dir)
        if local and all(find_cached(hub_url(name, shard), cache_dir) for shard in shard_files(local)):
            return local
    return None


def _download_optional_files(name: str, cache_dir: str | Path | None) -> list[Path]:
    """Download the configuration and processor files of a Hugging Face repository; return the files that exist."""
    files = []
    for optional in OPTIONAL_FILES:
        with suppress(RemoteFileNotFoundError):
            files.append(download_file(hub_url(name, optional), cache_dir))
    return files
