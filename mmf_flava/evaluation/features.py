"""Extraction of one embedding per image of a dataset, distributed over processes, with an optional cache on disk.

Images are processed in batches and then discarded. Chunks of samples are dealt to the processes, see ``Rounds``:
batches, or 128 or 1,024 samples with a cache. The cache has one file per chunk, so an interrupted extraction can be
resumed, also with a different number of processes.

Shapes: N = number of samples, B = batch size, E = projection size, D = embedding size.
"""

import hashlib
import json
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

from mmf_flava.command import bar_interval
from mmf_flava.compat import mmf_api
from mmf_flava.config.schema import to_dict
from mmf_flava.data.evaluation_samples import whole_images
from mmf_flava.data.quarantine import LEFT_OUT
from mmf_flava.errors import UserError
from mmf_flava.evaluation.rounds import Rounds
from mmf_flava.files import atomic
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.json_data import parse_json
from mmf_flava.processes import gather_objects, rank

T = TypeVar("T")
REMEDY = "Delete it."

CHUNK = 128  # samples per chunk of the cache
LARGE_CHUNK, LARGE_DATASET = 1024, 32_768  # chunk size of datasets with at least LARGE_DATASET samples

EncodeImages = Callable[[Any, Tensor], Tensor]
ENCODERS: dict[str, EncodeImages] = {
    # (B, E) contrastive embeddings of unit length, for zero-shot classification and retrieval
    "contrastive": lambda model, image: normalize(model.encode_image(image).float(), dim=-1),
    # (B, D) [CLS] states of the image encoder after its final LayerNorm, for linear probes
    "encoder": lambda model, image: model.image_features(image).float(),
}


@dataclass
class Features:
    """Embeddings and annotations of N samples, in the dataset's order.

    Attributes:
        embeddings: (N, D) float32.
        targets: (N,) int64; -1 for a sample without a label.
        ids: N sample IDs.
        captions: N lists of captions; empty lists if the dataset has no texts.
        bad: names of the bad records, which are left out.
    """

    embeddings: np.ndarray
    targets: np.ndarray
    ids: list[str]
    captions: list[list[str]]
    bad: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, batch: Any, embeddings: Tensor) -> None:
        """Append the annotations of a batch and its (B, D) embeddings."""
        count = len(embeddings)
        targets = batch["targets"].numpy() if "targets" in batch else np.full(count, -1)
        captions = batch["captions"] if "captions" in batch else [[] for _ in range(count)]
        previous = self.embeddings.reshape(-1, embeddings.shape[1])
        self.embeddings = np.concatenate((previous, embeddings.cpu().numpy()))
        self.targets = np.concatenate((self.targets, targets.astype(np.int64)))
        self.ids += batch["sample_id"]
        self.captions += captions


def empty_features() -> Features:
    """Return ``Features`` without samples."""
    return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), [], [])


@dataclass
class FeatureExtractor:
    """Extractor of image embeddings. All processes must call the same methods.

    Args:
        rounds: deals the chunks to the processes.
        folder: cache folder. None disables the cache; it must be None for a model that is being trained.
    """

    rounds: Rounds
    device: torch.device
    folder: Path | None = None
    _weights: tuple[nn.Module, str] | None = field(default=None, init=False)

    def chunks(self, model: Any, dataset: Any, kind: str) -> Iterator[Features]:
        """Yield the features of a dataset in chunks of samples, in order; only the chunks of this process.

        Args:
            kind: kind of embedding, "contrastive" or "encoder" (see ``ENCODERS``).
        """
        size = len(dataset)
        cache = self._cache(model, dataset, kind)
        length = None if cache is None else CHUNK if size < LARGE_DATASET else LARGE_CHUNK
        spans = self.rounds.spans(size, length)
        own = self.rounds.own(spans)
        cached = {span for span in own if cache is not None and cache.has(span)}
        loader = self.rounds.load(whole_images(dataset), [span for span in own if span not in cached])
        with self._bar(dataset.dataset_name, sum(map(len, own))) as bar:
            for span, is_own in self.rounds.deal(spans):
                if span is None:
                    continue
                if cache is not None and span in cached:
                    chunk = cache.read(span)
                    bar.update(len(chunk))
                else:
                    chunk = self._compute(model, dataset, loader, len(span), ENCODERS[kind], bar, is_own)
                    if cache is not None and not chunk.bad:  # bad records may be repaired
                        cache.write(span, chunk)
                if is_own:
                    yield chunk

    def extract(self, model: Any, dataset: Any, kind: str) -> Features:
        """Return the features of the entire dataset on every process; the embeddings are joined in one array."""
        return join_chunks(self.chunks(model, dataset, kind), len(dataset))

    @torch.no_grad()
    def _compute(
        self,
        model: Any,
        dataset: Any,
        loader: Iterator[Any],
        count: int,
        encode: EncodeImages,
        bar: tqdm,
        is_own: bool,
    ) -> Features:
        chunk = empty_features()
        while len(chunk) + len(chunk.bad) < count:
            batch = next(loader)
            if is_own:
                self.rounds.on_batch(batch)
            chunk.bad += [entry["sample_id"] for entry in batch[LEFT_OUT] if entry is not None]
            if (forwarded := self.rounds.with_samples(dataset, batch)) is not None:
                embeddings = encode(model, forwarded["image"].to(self.device))
                if forwarded is batch:
                    chunk.append(batch, embeddings)
            bar.update(len(batch[LEFT_OUT]))
        return chunk

    def _bar(self, name: str, total: int) -> tqdm:
        disable = rank() > 0 or total <= LARGE_CHUNK
        return tqdm(desc=f"{name}: embeddings", total=total, unit="image", disable=disable, mininterval=bar_interval())

    def weights_sha256(self, model: nn.Module) -> str:
        """Return the SHA-256 of a model's weights and their names; it is computed only once, because it is slow."""
        if self._weights is None or self._weights[0] is not model:
            sha256 = hashlib.sha256()
            for name, value in model.state_dict().items():
                sha256.update(name.encode())
                sha256.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
            self._weights = (model, sha256.hexdigest())
        return self._weights[1]

    def _key(self, model: nn.Module, dataset: Any, kind: str) -> str:
        """Return the cache key: a hash of weights, dataset records, dataset configuration and kind of embedding."""
        section = json.dumps(to_dict(dataset.config), sort_keys=True, default=str)
        # mean and std are not in the config if they were stored with the weights
        image = getattr(dataset, "image_processor", None)
        section += json.dumps([getattr(image, "mean", None), getattr(image, "std", None)])
        return hash_strings([self.weights_sha256(model), dataset.fingerprint(), dataset.dataset_type, section, kind])

    def _cache(self, model: Any, dataset: Any, kind: str) -> "FeatureCache | None":
        if self.folder is None:
            return None
        if not hasattr(dataset, "fingerprint"):
            mmf_api.log(
                f"evaluation.features_dir: embeddings of dataset '{dataset.dataset_name}' are not cached, because the "
                "dataset's class has no method fingerprint()."
            )
            return None
        return FeatureCache(self.folder / f"{dataset.dataset_name}-{self._key(model, dataset, kind)}")


def join_chunks(chunks: Iterator[Features], size: int) -> Features:
    """Join the chunks of a dataset with ``size`` samples, gathered from all processes."""
    joined, start = empty_features(), 0
    targets = [joined.targets]
    while True:
        gathered = [chunk for chunk in gather_objects(next(chunks, None)) if chunk is not None]
        if not gathered:
            joined.embeddings, joined.targets = joined.embeddings[:start], np.concatenate(targets)
            return joined
        for chunk in gathered:
            joined.bad += chunk.bad
            if not len(chunk):
                continue
            if not start:
                joined.embeddings = np.empty((size, chunk.embeddings.shape[1]), np.float32)
            joined.embeddings[start : start + len(chunk)] = chunk.embeddings
            start += len(chunk)
            targets.append(chunk.targets)
            joined.ids += chunk.ids
            joined.captions += chunk.captions


def interleave(lists: list[list[T]]) -> list[T]:
    """Merge one list of results per process into one list in the order of the items that ``Rounds`` dealt."""
    rounds = zip_longest(*lists, fillvalue=None)
    return [item for items in rounds for item in items if item is not None]


class FeatureCache:
    """Cache folder of embeddings with one safetensors file per chunk; unreadable files are treated as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, span: range) -> Path:
        return self.folder / f"{span.start:09d}-{span.stop:09d}.safetensors"

    def has(self, span: range) -> bool:
        """Return whether the samples ``span`` have a complete file in the cache; only the file's header is read."""
        path = self._path(span)
        if not path.is_file():
            return False
        try:
            with damaged_file(path, "cache of embeddings", REMEDY), safe_open(path, "numpy") as file:
                _read_annotations(file, len(span))
        except UserError:
            return False
        return True

    def read(self, span: range) -> Features:
        """Read the embeddings and annotations of the samples ``span`` from the cache.

        Raises:
            UserError: the file is damaged.
        """
        path = self._path(span)
        with damaged_file(path, "cache of embeddings", REMEDY), safe_open(path, "numpy") as file:
            ids, captions = _read_annotations(file, len(span))
            return Features(file.get_tensor("embeddings"), file.get_tensor("targets"), ids, captions)

    def write(self, span: range, chunk: Features) -> None:
        """Write the features of the samples ``span`` to the cache atomically.

        Raises:
            UserError: the cache folder is not writable.
        """
        metadata = {"ids": json.dumps(chunk.ids), "captions": json.dumps(chunk.captions)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic.replace_file(self._path(span)) as file:
                save_file({"embeddings": chunk.embeddings, "targets": chunk.targets}, file, metadata)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"evaluation.features_dir: failed to write {self.folder} ({error}). Free disk space, set another "
                "folder, or set evaluation.features_dir to null to disable the cache."
            ) from error


def _read_annotations(file: Any, count: int) -> tuple[list[str], list[list[str]]]:
    """Return the ids and captions in a file of the cache. Raise ValueError if it does not fit ``count`` samples."""
    metadata = file.metadata()
    ids, captions = parse_json(metadata["ids"]), parse_json(metadata["captions"])
    if not (_is_list_of(ids, str, count) and _is_list_of(captions, list, count)):
        raise ValueError(f"expected the ids and captions of {count} samples")
    if not all(_is_list_of(texts, str, len(texts)) for texts in captions):
        raise ValueError("captions must be strings")
    embeddings, targets = (file.get_slice(name) for name in ("embeddings", "targets"))
    if (embeddings.get_dtype(), targets.get_dtype()) != ("F32", "I64"):
        raise ValueError("expected embeddings of fp32 and targets of int64")
    if len(embeddings.get_shape()) != 2 or not [embeddings.get_shape()[0]] == targets.get_shape() == [count]:
        raise ValueError(f"expected embeddings and targets of {count} samples")
    return ids, captions


def _is_list_of(values: Any, kind: type, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(value, kind) for value in values)


def hash_strings(strings: Iterable[str]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 hash of the strings."""
    return hashlib.sha256(json.dumps(list(strings)).encode()).hexdigest()[:16]
