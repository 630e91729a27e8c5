"""Reading of weights from a local file or folder, a URL or the Hugging Face Hub."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.files.checksums import sha256 as compute_sha256
from mmf_flava.files.download import download_file
from mmf_flava.files.http_download import checksum_error
from mmf_flava.files.hub import NAME, download_from_hub, open_repository
from mmf_flava.weights.configs import config_from_tensors, read_config
from mmf_flava.weights.names import to_native
from mmf_flava.weights.weight_files import (
    SUFFIXES,
    WEIGHTS_NAMES,
    find_averages,
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

    source: path, URL (without credentials) or Hugging Face model ID, as passed to ``read_weights``.
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


def read_weights(
    source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None, averages: bool = False
) -> Weights:
    """Read all tensors of a source and translate their keys to mmf_flava's keys; dtypes do not change.

    Args:
        source, cache_dir, sha256: see ``find_weights``.
        averages: whether to read the averages of ``training.ema`` in a checkpoint.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, or it has no FLAVA weights
            or no averages.
    """

    def find() -> Path:
        file = find_weights(source, cache_dir, sha256)
        return find_averages(file) if averages else file

    return read_found(find, lambda file: _read(file, hide_address(source)))


def _read(file: Path, name: str) -> Weights:
    tensors, metadata = read_tensors(file)
    translation = to_native(tensors, name)
    config = read_config(file, metadata)
    return Weights(name, translation.style, translation.tensors, file, translation.unknown, config)


def find_weights(source: str | Path, cache_dir: str | Path | None = None, sha256: str | None = None) -> Path:
    """Return the local path of the weights file of a source (or of its index of shards); download remote files.

    Args:
        source: local file or folder, http(s) URL, or Hugging Face model ID (``facebook/flava-full``), which may be
            followed by ``@revision``. A run folder and its ``checkpoints/latest`` stand for the newest checkpoint, and
            ``checkpoints/best`` stands for the best one.
        cache_dir: download folder of URLs; default: $MMF_CACHE_DIR/mmf_flava if MMF_CACHE_DIR is set, otherwise
            ~/.cache/mmf_flava. Repositories are stored in the cache of huggingface_hub.
        sha256: expected SHA-256 of a downloaded file.

    Raises:
        UserError: the source was not found.
    """
    text = str(source)
    if text.startswith(("http://", "https://")):
        return download_file(text, cache_dir, sha256)
    path = Path(text).expanduser()
    if not path.is_dir() and (checkpoint := find_checkpoint(path)) != path:
        return checkpoint / "model.safetensors"
    if path.exists():
        return find_weights_file(path) if path.is_dir() else path
    if not _is_hub_name(text):
        name = hide_address(text)
        raise UserError(f"{name} was not found. Expected a file, a folder, a URL or a Hugging Face model ID.")
    return _find_on_hub(text, sha256)


def find_processor_files(source: str | Path, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path from which the processors of a source can be read: its weights file or a folder.

    For a Hugging Face repository, this function downloads only configuration and processors.

    Args:
        source, cache_dir: see ``find_weights``.

    Returns:
        The path, or None for a repository that contains only weights.

    Raises:
        UserError: the source was not found.
    """
    text = str(source)
    is_file = text.startswith(("http://", "https://")) or Path(text).expanduser().exists()
    if is_file or not _is_hub_name(text):
        return find_weights(source, cache_dir)
    found = download_from_hub(text, *OPTIONAL_FILES)
    return found[0].parent if found else None


def _is_hub_name(text: str) -> bool:
    return "/" in text and NAME.fullmatch(text) is not None and Path(text).suffix.lower() not in SUFFIXES


def _find_on_hub(name: str, sha256: str | None) -> Path:
    repository = open_repository(name)
    for optional in OPTIONAL_FILES:
        repository.get(optional)
    for single, index in WEIGHTS_NAMES:
        if (file := repository.get(single)) is not None:
            if sha256 is not None and (actual := compute_sha256(file)) != sha256.lower():
                raise UserError(checksum_error(f"{name}, {single},", actual, sha256.lower()))
            return file
        if (file := repository.get(index)) is not None:
            missing = [shard for shard in shard_files(file) if repository.get(shard) is None]
            if not missing:
                return file
            raise repository.error or UserError(f"{name} has no file {missing[0]}, which {index} lists. Check the ID.")
    raise repository.error or UserError(
        f"{name} has neither model.safetensors nor pytorch_model.bin. Check the model ID."
    )
