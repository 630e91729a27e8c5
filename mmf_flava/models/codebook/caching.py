"""Computing of cached image codes by all processes of a launcher. See ``data.code_writer`` for how they share the work.

Shapes: R = number of records, V = views per record, P = patches per view.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmf_flava.command import bar_interval
from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.workers import check_workers
from mmf_flava.data.code_writer import CodeWriter
from mmf_flava.data.codes import NO_CODE, CodePart, bad_records, build_header, check_header, read_header
from mmf_flava.data.record import BadRecord
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import Codebook
from mmf_flava.models.codebook.views import CodebookViews
from mmf_flava.processes import launched

if TYPE_CHECKING:
    from mmf_flava.data.image_stream import ImageStreamDataset

SAVE_INTERVAL = 30.0  # interval in seconds at which the progress is saved
WAIT_INTERVAL = 1.0  # interval in seconds at which a process that has no records looks for those of others
BLOCK_BATCHES = 16  # most batches that a process claims at a time


@dataclass(frozen=True)
class CacheResult:
    """Result of ``cache_dataset_codes``.

    remaining: number of records that other processes are computing, on a file system without locks.
    """

    files: list[Path]
    records: int
    views: int
    bad: dict[str, int]  # reason -> number of bad records
    computed: int  # number of records without codes when this call started
    remaining: int = 0


@dataclass(frozen=True)
class Block:
    """Records of a part that one process claims: ``first`` to ``end`` - 1. ``start``: index of the part's record 0."""

    writer: CodeWriter
    start: int
    first: int
    end: int


def cache_dataset_codes(
    dataset: "ImageStreamDataset",
    config: CodebookConfig,
    codebook: Codebook,
    folder: Path,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = True,
) -> CacheResult:
    """Compute the codebook's codes for the images of ``dataset`` and write them to ``folder``.

    Codes that already exist are not computed again. All processes of a launcher share the work, and return when the
    codes are complete. The first one shows the progress of all.

    Raises:
        UserError: ``folder`` contains codes of these records that were computed with other settings.
    """
    check_workers(workers, where="--workers")
    views, size = dataset.num_cached_views, max(1, batch_size // dataset.num_cached_views)
    parts = dataset.code_parts(folder)
    headers = _headers(dataset, parts, config, codebook)
    with ExitStack() as stack:
        blocks, start, seen = [], 0, set()
        for part, header in zip(parts, headers, strict=True):
            if part.stem not in seen and not _is_complete(folder, part.stem, header):
                writer = stack.enter_context(CodeWriter(folder, part.stem, header))
                blocks += _divide(writer, start, size)
            start += part.records
            seen.add(part.stem)
        writers = list(dict.fromkeys(block.writer for block in blocks))
        computed = sum(writer.count_pending() for writer in writers)
        total = sum(writer.records for writer in writers)
        bar = stack.enter_context(
            tqdm(
                total=total,
                initial=total - computed,
                unit="image",
                desc=f"{dataset.name}-{dataset.dataset_type}",
                disable=not progress or launched()[0] > 0,
                mininterval=bar_interval(),
            )
        )
        errors = UnexpectedErrors(f"dataset {dataset.name} ({dataset.dataset_type})", tqdm.write)
        while True:
            computed_any = _compute_unclaimed(dataset, codebook, blocks, size, workers, bar, errors)
            if all([writer.finish() for writer in writers]) or not all(writer.has_locks for writer in writers):
                break
            if not computed_any:
                time.sleep(WAIT_INTERVAL)  # other processes compute the rest; if one ends, this one continues its work
        remaining = sum(writer.count_pending() for writer in writers)
    files = [folder / f"{stem}.codes" for stem in seen]
    bad: Counter[str] = Counter()
    for file in files if not remaining else []:
        bad.update(bad_records(read_header(file.with_suffix(".json"))))
    return CacheResult(sorted(files), dataset.size, views, dict(bad.most_common()), computed, remaining)


def _is_complete(folder: Path, stem: str, header: dict[str, Any]) -> bool:
    """Return whether the codes of a part are complete. Raise UserError if they were computed with other settings."""
    path = folder / f"{stem}.json"
    if not path.is_file():
        return False
    check_header(read_header(path), header, str(folder / f"{stem}.codes"))
    return True


def _divide(writer: CodeWriter, start: int, batch_size: int) -> list[Block]:
    """Divide the records of a part into blocks of whole batches, at least four for each process if possible."""
    batches = -(-writer.records // batch_size)
    size = batch_size * min(BLOCK_BATCHES, -(-batches // (4 * launched()[1])))
    return [Block(writer, start, first, min(first + size, writer.records)) for first in range(0, writer.records, size)]


def _claim_batches(blocks: list[Block], batch_size: int) -> Iterator[list[int]]:
    """Claim the blocks that no other process has claimed; yield the batches of their records without codes.

    Each process starts with its own range of the blocks, so that it reads consecutive records. Then it takes those that
    the others have not claimed. A batch has the same records whichever process computes it.
    """
    rank, processes = launched()
    first, end = (len(blocks) * number // processes for number in (rank, rank + 1))
    for number in chain(range(first, len(blocks)), range(first)):
        block = blocks[number]
        if not block.writer.claim(block.first, block.end, own=first <= number < end):
            continue
        pending = block.writer.pending(block.first, block.end)
        for batch in range(block.first, block.end, batch_size):
            records = pending[(pending >= batch) & (pending < batch + batch_size)]
            if len(records):
                yield (records + block.start).tolist()


def _compute_unclaimed(
    dataset: "ImageStreamDataset",
    codebook: Codebook,
    blocks: list[Block],
    batch_size: int,
    workers: int,
    bar: "tqdm[Any]",
    errors: UnexpectedErrors,
) -> bool:
    """Compute and write the codes of all records that no other process has claimed; return whether there were any."""
    batches = _claim_batches(blocks, batch_size)
    first = next(batches, None)
    if first is None:
        return False
    by_start = {block.start: block.writer for block in blocks}
    views = CodebookViews(dataset)
    sampler: Any = chain([first], batches)
    last_save = time.monotonic()
    for items in DataLoader(views, batch_sampler=sampler, num_workers=workers, collate_fn=list):
        images = [image for _, image in items]
        for image in images:
            if isinstance(image, BadRecord):
                errors.add_bad(image.failure)
            else:
                errors.add_good()
        start = items[0][0] - dataset.index_in_part(items[0][0])
        writer = by_start[start]
        codes = _codes(codebook, images, writer.header["views"], writer.header["patches"])
        for (index, image), record_codes in zip(items, codes, strict=True):
            writer.write(index - start, record_codes, image.reason if isinstance(image, BadRecord) else None)
        bar.update(len(items))
        if time.monotonic() - last_save > SAVE_INTERVAL:
            for writer in by_start.values():
                writer.save_progress()
            if not bar.disable:  # show the progress of all processes
                bar.n = sum(writer.records - writer.count_pending() for writer in by_start.values())
                bar.refresh()
            last_save = time.monotonic()
    return True


def _headers(
    dataset: "ImageStreamDataset", parts: Sequence[CodePart], config: CodebookConfig, codebook: Codebook
) -> list[dict[str, Any]]:
    """Return the headers of the codes of the parts. Raise UserError if the sizes of codebook and encoder differ."""
    processor = dataset.image_processor
    geometry = processor.codebook_geometry(dataset.training)
    patches = processor.grid[0] * processor.grid[1]
    side = geometry["codebook_size"]
    codes_per_view = codebook(torch.zeros(1, 3, side, side, device=_device(codebook))).shape[1]
    if codes_per_view != patches:
        key = f"dataset_config.{dataset.name}.processors.image_processor.params.codebook_size"
        raise UserError(
            f"{key} is {side}: at this image size, the codebook returns {codes_per_view} codes per image, but the "
            f"image encoder has {patches} patches. Change codebook_size so that both numbers are equal."
        )
    codebook_header = {
        "type": config.type,
        "sha256": codebook.sha256,
        "vocab_size": config.vocab_size,
        "dtype": config.dtype,
    }
    views = dataset.num_cached_views
    return [build_header(part.records, views, patches, part.sha256, geometry, codebook_header) for part in parts]


def _device(codebook: Codebook) -> torch.device:
    return next(iter(codebook.state_dict().values())).device


def _codes(codebook: Codebook, images: list[Tensor | BadRecord], views: int, patches: int) -> np.ndarray:
    """Return (R, V, P) uint16 codes for R records, V crops per image and P patches per crop; NO_CODE if it is bad."""
    codes = np.full((len(images), views, patches), NO_CODE, dtype=np.uint16)
    readable = [index for index, image in enumerate(images) if isinstance(image, Tensor)]
    if readable:
        crops = torch.cat([image for image in images if isinstance(image, Tensor)])
        batch = crops.to(_device(codebook), non_blocking=True)
        codes[readable] = codebook(batch).view(-1, views, patches).cpu().numpy()
    return codes
