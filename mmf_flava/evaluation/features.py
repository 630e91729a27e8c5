"""What a model makes of a dataset's images: one vector each, extracted by all processes, kept on disk where wanted.

Images pass by in batches and are gone; vectors come in chunks of some hundred samples, each a file of its own in a
cache, so that an extraction that was interrupted goes on, also on another number of processes.

Shapes: N samples, D width of a vector.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm import tqdm

from mmf_flava.compat import mmf_api
from mmf_flava.config.schema import plain
from mmf_flava.data.sampling import evaluation_loader
from mmf_flava.errors import UserError
from mmf_flava.ranks import gather_objects, rank, world_size

T = TypeVar("T")

CHUNK = 128  # samples of a file: what an interruption may cost, and what processes share out
LARGE_CHUNK, LARGE = 1024, 32_768  # the same from so many samples on

Encode = Callable[[Any, Tensor], Tensor]
KINDS: dict[str, Encode] = {
    # (B, E) unit vectors of the contrastive space: zero-shot classification and retrieval
    "contrastive": lambda model, image: normalize(model.encode_image(image).float(), dim=-1),
    # (B, D) [CLS] of the image encoder after its final LayerNorm: linear probes
    "encoder": lambda model, image: model.image_features(image).float(),
}


@dataclass
class Features:
    """Samples in the dataset's order.

    vectors: (N, D) float32; targets: (N,) int64, -1 without a label; ids: N names; captions: those of each image, none
    where the dataset has no texts.
    """

    vectors: np.ndarray
    targets: np.ndarray
    ids: list[str]
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, batch: Any, vectors: Tensor) -> None:
        """Adds a batch and its vectors (B, D)."""
        count = len(vectors)
        targets = batch["targets"].numpy() if "targets" in batch else np.full(count, -1)
        captions = batch["captions"] if "captions" in batch else [[] for _ in range(count)]
        both = (self.vectors.reshape(-1, vectors.shape[1]), vectors.cpu().numpy())
        self.vectors = np.concatenate(both)
        self.targets = np.concatenate((self.targets, targets.astype(np.int64)))
        self.ids += batch["sample_id"]
        self.captions += captions


def empty() -> Features:
    """Of no samples."""
    return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), [], [])


@dataclass
class Extraction:
    """How vectors are extracted.

    Args:
        shared: all processes call this, and each takes its share of the chunks; else each does all by itself.
        folder: of the cache; None keeps nothing. Of a model that changes between two calls nothing may be kept.
        note: is shown every batch before the model is.
    """

    batch_size: int
    num_workers: int
    device: torch.device
    shared: bool = False
    folder: Path | None = None
    note: Callable[[Any], None] = field(default=lambda batch: None)
    _weights: tuple[nn.Module, str] | None = field(default=None, init=False)

    def chunks(self, model: Any, dataset: Any, kind: str) -> Iterator[Features]:
        """This process's chunks, in order; ``kind`` is one of ``KINDS``."""
        size = len(dataset)
        # whatever the number of processes: a chunk that one run wrote serves every other
        length = CHUNK if size < LARGE else LARGE_CHUNK
        spans = [range(start, min(start + length, size)) for start in range(0, size, length)]
        if self.shared:
            spans = spans[rank() :: world_size()]
        cache = self._cache(model, dataset, kind)
        known = [cache is not None and cache.has(span) for span in spans]
        missing = [span for span, there in zip(spans, known, strict=True) if not there]
        loader = iter(evaluation_loader(dataset, self.batch_size, self.num_workers, missing) if missing else ())
        with self._bar(dataset.dataset_name, sum(map(len, spans))) as bar:
            for span, there in zip(spans, known, strict=True):
                if there and cache is not None:
                    chunk = cache.read(span)
                    bar.update(len(chunk))
                else:
                    chunk = self._compute(model, loader, len(span), KINDS[kind], bar)
                    if cache is not None:
                        cache.write(span, chunk)
                yield chunk

    def whole(self, model: Any, dataset: Any, kind: str) -> Features:
        """The samples of all processes, on every process; the vectors are held once."""
        return join(self.chunks(model, dataset, kind), len(dataset), self.shared)

    @torch.no_grad()
    def _compute(self, model: Any, loader: Iterator[Any], count: int, encode: Encode, bar: tqdm) -> Features:
        chunk = empty()
        while len(chunk) < count:
            batch = next(loader)
            self.note(batch)
            chunk.append(batch, encode(model, batch["image"].to(self.device)))
            bar.update(len(batch["sample_id"]))
        return chunk

    def _bar(self, name: str, total: int) -> tqdm:
        silent = rank() > 0 or total <= LARGE_CHUNK
        return tqdm(desc=f"{name}: vectors", total=total, unit="image", disable=silent, mininterval=bar_interval())

    def weights_sha256(self, model: nn.Module) -> str:
        """Of all weights and their names; of a gigabyte it takes seconds, so it is computed once."""
        if self._weights is None or self._weights[0] is not model:
            found = hashlib.sha256()
            for name, value in model.state_dict().items():
                found.update(name.encode())
                found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
            self._weights = (model, found.hexdigest())
        return self._weights[1]

    def _key(self, model: nn.Module, dataset: Any, kind: str) -> str:
        """A name for (weights, records, their view, kind): other vectors have another one."""
        section = json.dumps(plain(dataset.config), sort_keys=True, default=str)
        return digest([self.weights_sha256(model), dataset.fingerprint(), dataset.dataset_type, section, kind])

    def _cache(self, model: Any, dataset: Any, kind: str) -> "FeatureCache | None":
        if self.folder is None:
            return None
        if not hasattr(dataset, "fingerprint"):
            mmf_api.log(
                f"evaluation.features_dir: vectors of dataset '{dataset.dataset_name}' are not kept; it has no "
                "fingerprint() by which they could be known again."
            )
            return None
        return FeatureCache(self.folder / f"{dataset.dataset_name}-{self._key(model, dataset, kind)}")


def join(chunks: Iterator[Features], size: int, shared: bool) -> Features:
    """All chunks of a dataset of ``size`` samples; ``shared``: of all processes, which take them by turns."""
    whole, start = empty(), 0
    while True:
        own = next(chunks, None)
        found = [chunk for chunk in (gather_objects(own) if shared else [own]) if chunk is not None]
        if not found:
            return whole
        for chunk in found:
            if not start:
                whole.vectors = np.empty((size, chunk.vectors.shape[1]), np.float32)
            whole.vectors[start : start + len(chunk)] = chunk.vectors
            start += len(chunk)
            whole.targets = np.concatenate((whole.targets, chunk.targets))
            whole.ids += chunk.ids
            whole.captions += chunk.captions


def by_turns(parts: list[list[T]]) -> list[T]:
    """What each process made of its chunks -> the same in the dataset's order."""
    turns = zip_longest(*parts, fillvalue=None)
    return [part for turn in turns for part in turn if part is not None]


# ---------------------------------------------------------------------- cache


class FeatureCache:
    """A folder with one safetensors file per chunk; what cannot be read is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, span: range) -> Path:
        return self.folder / f"{span.start:09d}-{span.stop:09d}.safetensors"

    def has(self, span: range) -> bool:
        """Whether the chunk is there, whole; its header says so, and the numbers are not read for that."""
        if not self._path(span).is_file():
            return False
        try:
            with safe_open(self._path(span), "numpy") as file:
                return file.get_slice("targets").get_shape() == [len(span)]
        except SafetensorError:
            return False

    def read(self, span: range) -> Features:
        with safe_open(self._path(span), "numpy") as file:
            names = file.metadata()
            return Features(
                file.get_tensor("vectors"),
                file.get_tensor("targets"),
                json.loads(names["ids"]),
                json.loads(names["captions"]),
            )

    def write(self, span: range, chunk: Features) -> None:
        """Raises UserError where the folder cannot be written to."""
        path = self._path(span)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = {"ids": json.dumps(chunk.ids), "captions": json.dumps(chunk.captions)}
            save_file({"vectors": chunk.vectors, "targets": chunk.targets}, temporary, names)
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise UserError(
                f"evaluation.features_dir: {self.folder} cannot be written ({error}); make room, name another folder, "
                "or null to keep no vectors."
            ) from error


def digest(parts: Iterable[str]) -> str:
    """16 hexadecimal digits of several texts."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]


def bar_interval() -> float:
    """Seconds between two states of a progress bar: a log file is no place for one that moves."""
    return 0.2 if sys.stderr.isatty() else 30
