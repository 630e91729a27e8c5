"""``python -m mmf_flava.cache_codes RECIPE --dataset pmd --split train --views 4``: the image codes of a dataset, once.

Afterwards ``dataset_config.pmd.codes: NAME`` trains with them, and the codebook, half of a step's work for images with
DALL-E's, never runs. An interrupted call goes on where it stopped. See ``data.codes`` for what is written.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import open_dict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.schema import parse, positive
from mmf_flava.data.codes import NO_CODE, CodeWriter, codes_folder, make_header, read_header
from mmf_flava.data.codes import compare as compare_headers
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.record import BadRecord
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import Codebook, changed_share, load_codebook
from mmf_flava.models.codebook.dalle_encoder import DTYPES

KEEP_SECONDS = 30.0  # work that an interruption may cost


class Views(Dataset):
    """What the codebook is to see of each record: (V, 3, h, w), or None where the record has no readable image."""

    def __init__(self, dataset: ImageStreamDataset, first: int):
        self.dataset, self.first = dataset, first

    def __len__(self) -> int:
        return self.dataset.size - self.first

    def __getitem__(self, number: int) -> Tensor | None:
        try:
            return self.dataset.codebook_views(self.first + number)
        except BadRecord:
            return None


@dataclass(frozen=True)
class Cached:
    """What a call did: the finished file, its records, and how many of them have no readable image."""

    path: Path
    records: int
    views: int
    unreadable: int
    computed: int


def cache(
    dataset: ImageStreamDataset,
    config: CodebookConfig,
    codebook: Codebook,
    folder: Path,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = True,
) -> Cached:
    """Writes the codes of ``dataset`` into ``folder``; what is there already is not computed again.

    Raises:
        UserError: ``folder`` holds codes of this dataset that were made with other settings.
    """
    header = _header(dataset, config, codebook)
    stem, views = dataset.codes_stem, header["views"]
    finished = folder / f"{stem}.json"
    if finished.is_file():
        compare_headers(read_header(finished), header, str(folder / f"{stem}.codes"))
        return Cached(folder / f"{stem}.codes", dataset.size, views, 0, 0)
    unreadable = 0
    with CodeWriter(folder, stem, header) as writer:
        first = writer.done
        kept = time.monotonic()
        with tqdm(total=dataset.size, initial=first, unit="image", desc=stem, disable=not progress) as bar:
            for images in _loader(dataset, first, max(1, batch_size // views), workers):
                codes = _codes(codebook, images, views, header["patches"])
                unreadable += sum(image is None for image in images)
                writer.write(codes)
                bar.update(len(images))
                if time.monotonic() - kept > KEEP_SECONDS:
                    writer.keep()
                    kept = time.monotonic()
        writer.finish()
    return Cached(writer.final, dataset.size, views, unreadable, dataset.size - first)


def _header(dataset: ImageStreamDataset, config: CodebookConfig, codebook: Codebook) -> dict[str, Any]:
    processor = dataset.image_processor
    geometry = processor.codebook_geometry(dataset.training)
    patches = processor.grid[0] * processor.grid[1]
    side = geometry["codebook_size"]
    found = codebook(torch.zeros(1, 3, side, side, device=_device(codebook))).shape[1]
    if found != patches:
        raise UserError(
            f"The codebook makes {found} codes of a view of {side} x {side} pixels, the image encoder has {patches} "
            f"patches: correct codebook_size of dataset_config.{dataset.name}'s image_processor."
        )
    book = {"type": config.type, "sha256": codebook.sha256, "vocab_size": config.vocab_size, "dtype": config.dtype}
    return make_header(dataset.size, dataset.cached_views, patches, records_sha256(dataset.records), geometry, book)


def _loader(dataset: ImageStreamDataset, first: int, batch_size: int, workers: int) -> DataLoader:
    return DataLoader(Views(dataset, first), batch_size, num_workers=workers, collate_fn=list)


def _device(codebook: Codebook) -> torch.device:
    return next(iter(codebook.state_dict().values())).device


def _codes(codebook: Codebook, images: list[Tensor | None], views: int, patches: int) -> np.ndarray:
    """(R, V, P) uint16; the rows of unreadable images are filled with NO_CODE."""
    codes = np.full((len(images), views, patches), NO_CODE, dtype=np.uint16)
    readable = [row for row, image in enumerate(images) if image is not None]
    if readable:
        batch = torch.cat([image for image in images if image is not None]).to(_device(codebook), non_blocking=True)
        codes[readable] = codebook(batch).view(-1, views, patches).cpu().numpy()
    return codes


@dataclass(frozen=True)
class Measured:
    """One way of running the dVAE: seconds an image, and the share of codes that differ from fp32's."""

    dtype: str
    channels_last: bool
    seconds: float
    changed: float


def measure(config: CodebookConfig, images_N3hw: Tensor) -> Iterator[Measured]:
    """Runs the dVAE on the same images in every dtype and memory format, fp32 first."""
    reference = load_codebook(replace(config, dtype="fp32", channels_last=False)).to(images_N3hw.device)
    for dtype in DTYPES:
        for channels_last in (False, True):
            codebook = load_codebook(replace(config, dtype=dtype, channels_last=channels_last)).to(images_N3hw.device)
            changed = changed_share(codebook, reference, images_N3hw)  # also warms up
            began = time.perf_counter()
            codebook(images_N3hw).sum().item()  # waits for the device
            yield Measured(dtype, channels_last, (time.perf_counter() - began) / len(images_N3hw), changed)


def first_views(dataset: ImageStreamDataset, count: int) -> Tensor:
    """(N, 3, h, w): one view of each of the first ``count`` readable records, fewer where there are not so many."""
    images = (image for image in (Views(dataset, 0)[number] for number in range(dataset.size)) if image is not None)
    found = [image[0] for image, _ in zip(images, range(count), strict=False)]
    if not found:
        raise UserError(f"No record of dataset '{dataset.name}' has a readable image.")
    return torch.stack(found)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m mmf_flava.cache_codes",
        description="Computes the image codes of a dataset once, so that training never runs the codebook.",
        epilog="Then set dataset_config.NAME.codes to what --name says.",
    )
    top.add_argument("recipe", help="the YAML that mmf_run takes as config=")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="as on mmf_run's command line")
    top.add_argument("--dataset", required=True, help="an image dataset of the recipe, e.g. pmd")
    top.add_argument("--split", default="train", choices=("train", "val", "test"), help="%(default)s")
    top.add_argument("--views", type=int, help="fixed crops of each training image (the recipe's views, or 1)")
    top.add_argument("--name", help="name below data_dir/codes, or a path (the recipe's codes, or the codebook's type)")
    top.add_argument("--dtype", choices=DTYPES, help="what the dVAE computes in (the recipe's)")
    top.add_argument("--batch-size", type=int, default=32, help="views at a time (%(default)s)")
    top.add_argument("--workers", type=int, default=2, help="processes that decode images (%(default)s)")
    top.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="%(default)s")
    top.add_argument("--compare", type=int, default=16, metavar="N", help="images to compare with fp32 (%(default)s)")
    top.add_argument("--measure", action="store_true", help="time every dtype on N images and write nothing")
    return top


def run(arguments: argparse.Namespace) -> None:
    for name in ("batch_size", "compare"):
        positive(getattr(arguments, name), f"--{name.replace('_', '-')}")
    config = read_recipe(arguments.recipe, arguments.overrides)
    section = config.model_config[config.model].codebook
    book = parse(CodebookConfig, section, f"model_config.{config.model}.codebook")
    book = replace(book, dtype=arguments.dtype or book.dtype)
    if book.type == "cached":
        raise UserError(
            "model_config.flava.codebook.type is 'cached'; say which codebook is to make the codes, for example with "
            "model_config.flava.codebook.type=dvae model_config.flava.codebook.path=facebook/flava-image-codebook."
        )
    own = config.dataset_config.get(arguments.dataset)
    name = arguments.name or (own.get("codes") if own is not None else None) or book.type
    with open_dict(config):
        if own is not None:
            own.codes, own.views = None, arguments.views or own.get("views") or 1
    dataset = open_dataset(config, arguments.dataset, arguments.split)
    if not isinstance(dataset, ImageStreamDataset):
        raise UserError(f"Dataset '{arguments.dataset}' has no images.")
    if arguments.measure or (book.type == "dvae" and book.dtype != "fp32"):
        _print_measured(book, first_views(dataset, arguments.compare).to(arguments.device), arguments.measure)
    if arguments.measure:
        return
    codebook = load_codebook(book).to(arguments.device)
    folder = codes_folder(str(name), own.data_dir)
    done = cache(dataset, book, codebook, folder, arguments.batch_size, arguments.workers)
    print(
        f"{done.path}: {done.records} records, views {done.views}, {done.computed} computed now, "
        f"{done.unreadable} unreadable.\nCodebook {codebook.sha256}\n"
        f"Train with dataset_config.{arguments.dataset}.codes={name}"
    )


def _print_measured(config: CodebookConfig, images_N3hw: Tensor, everything: bool) -> None:
    if config.type != "dvae":
        raise UserError("--measure compares ways of running the dVAE; this recipe's codebook has only one.")
    print(f"On {len(images_N3hw)} images, {images_N3hw.device}, against fp32:")
    for row in measure(config, images_N3hw):
        if everything or (row.dtype, row.channels_last) == (config.dtype, config.channels_last):
            layout = " channels_last" if row.channels_last else ""
            print(f"  {row.dtype}{layout}: {row.changed:.2%} of the codes change, {row.seconds * 1000:.0f} ms an image")


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(parser().parse_intermixed_args(arguments))  # options and key=value in any order
    except UserError as error:
        print(f"mmf_flava: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
