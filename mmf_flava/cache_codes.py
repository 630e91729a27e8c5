"""Command line that precomputes the image codes (visual codebook tokens) of a dataset.

Example: ``python -m mmf_flava.cache_codes RECIPE --dataset pmd --split train --views 4``.

With ``dataset_config.pmd.codes: NAME``, training reads the cached codes instead of running the codebook. The DALL-E
codebook takes about half of the computation of a training step on images. Run the command again to resume an
interrupted computation. See ``data.codes`` for the file format.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf, open_dict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmf_flava.command import MAX_WORKERS, ArgumentParser, command, integer
from mmf_flava.config.device import check_device
from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.config.workers import check_workers
from mmf_flava.data.codes import NO_CODE, CodeWriter, build_header, check_header, read_header, resolve_codes_folder
from mmf_flava.data.quarantine import format_counts
from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import Codebook, load_codebook
from mmf_flava.models.codebook.dalle_encoder import DTYPES
from mmf_flava.models.codebook.dtype_comparison import compare_dtypes

if TYPE_CHECKING:
    from mmf_flava.data.image_stream import ImageStreamDataset

SAVE_INTERVAL = 30.0  # interval in seconds at which the progress is saved


class CodebookViews(Dataset):
    """Dataset of codebook inputs: an item is a (V, 3, h, w) tensor with V crops of an image, each of h x w pixels.

    The item of a bad record is the BadRecord.
    """

    def __init__(self, dataset: "ImageStreamDataset", first: int):
        self.dataset, self.first = dataset, first
        side = dataset.image_processor.codebook_geometry(dataset.training)["codebook_size"]
        self.shape = (dataset.num_cached_views, 3, side, side)

    def __len__(self) -> int:
        return self.dataset.size - self.first

    def __getitem__(self, number: int) -> Tensor | BadRecord:
        index = self.first + number
        try:
            with record_boundary(f"record {index}"):
                views = self.dataset.codebook_views(index)
                if views.shape != self.shape:
                    message = f"record {index}: the crops have shape {tuple(views.shape)}, expected {self.shape}"
                    raise BadRecord(Reason.MISFIT, message)
                return views
        except BadRecord as error:
            return error


@dataclass(frozen=True)
class CacheResult:
    """Result of ``cache_dataset_codes``: the path of the codes and the number of records and crops."""

    path: Path
    records: int
    views: int
    bad: dict[str, int]  # reason -> number of bad records, among the records of this call
    computed: int  # number of records whose codes this call computed


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

    Codes that already exist are not computed again.

    Raises:
        UserError: ``folder`` contains codes of this dataset that were computed with other settings.
    """
    header = _header(dataset, config, codebook)
    stem, views = dataset.codes_stem, header["views"]
    finished = folder / f"{stem}.json"
    if finished.is_file():
        check_header(read_header(finished), header, str(folder / f"{stem}.codes"))
        return CacheResult(folder / f"{stem}.codes", dataset.size, views, {}, 0)
    bad: Counter[str] = Counter()
    errors = UnexpectedErrors(f"dataset {dataset.name} ({dataset.dataset_type})", tqdm.write)
    with CodeWriter(folder, stem, header) as writer:
        first = writer.done
        last_save = time.monotonic()
        with tqdm(total=dataset.size, initial=first, unit="image", desc=stem, disable=not progress) as bar:
            for images in _loader(dataset, first, max(1, batch_size // views), workers):
                for image in images:
                    if isinstance(image, BadRecord):
                        bad[image.reason.value] += 1
                        errors.add_bad(image.failure)
                    else:
                        errors.add_good()
                codes = _codes(codebook, images, views, header["patches"])
                writer.write(codes)
                bar.update(len(images))
                if time.monotonic() - last_save > SAVE_INTERVAL:
                    writer.save_progress()
                    last_save = time.monotonic()
        writer.finish()
    return CacheResult(writer.final_path, dataset.size, views, dict(bad.most_common()), dataset.size - first)


def _header(dataset: "ImageStreamDataset", config: CodebookConfig, codebook: Codebook) -> dict[str, Any]:
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
    return build_header(
        dataset.size, dataset.num_cached_views, patches, records_sha256(dataset.records), geometry, codebook_header
    )


def _loader(dataset: "ImageStreamDataset", first: int, batch_size: int, workers: int) -> DataLoader:
    check_workers(workers, where="--workers")
    return DataLoader(CodebookViews(dataset, first), batch_size, num_workers=workers, collate_fn=list)


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


def load_first_views(dataset: "ImageStreamDataset", count: int) -> Tensor:
    """Return the first crop of each of the first N readable images, (N, 3, h, w) with N <= ``count``."""
    views = CodebookViews(dataset, 0)
    images = (image for image in (views[number] for number in range(dataset.size)) if isinstance(image, Tensor))
    first = [image[0] for image, _ in zip(images, range(count), strict=False)]
    if not first:
        raise UserError(
            f"dataset_config.{dataset.name}: no record has a readable image. Check the dataset's paths and image files."
        )
    return torch.stack(first)


def parser() -> argparse.ArgumentParser:
    top = ArgumentParser(
        prog="python -m mmf_flava.cache_codes",
        description="Precomputes the image codes of a dataset. Training then does not run the codebook.",
        epilog="To train with the codes, set dataset_config.NAME.codes to the value of --name. NAME is the value of "
        "--dataset.",
    )
    top.add_argument("recipe", help="recipe: the YAML file that mmf_run takes as config=FILE")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides, as for mmf_run")
    top.add_argument("--dataset", required=True, help="image dataset of the recipe, e.g. pmd")
    top.add_argument(
        "--split", default="train", choices=("train", "val", "test"), help="split of the dataset (default: %(default)s)"
    )
    top.add_argument(
        "--views",
        type=integer(1),
        help="number of fixed crops per training image (default: dataset_config.NAME.views in the recipe, otherwise 1)",
    )
    top.add_argument(
        "--name",
        help="output folder: a name in data_dir/codes, or a path (default: dataset_config.NAME.codes in the recipe, "
        "otherwise the codebook type)",
    )
    top.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the dVAE encoder (default: codebook.dtype in the recipe)"
    )
    top.add_argument("--batch-size", type=integer(1), default=32, help="crops per batch (default: %(default)s)")
    top.add_argument(
        "--workers", type=integer(0, MAX_WORKERS), default=2, help="data loader workers (default: %(default)s)"
    )
    top.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device (default: %(default)s)"
    )
    top.add_argument(
        "--compare",
        type=integer(1),
        default=16,
        metavar="N",
        help="number of images whose codes are compared with fp32 codes (default: %(default)s)",
    )
    top.add_argument(
        "--measure", action="store_true", help="only compare speed and codes of all dtypes; write no codes"
    )
    return top


def run(arguments: argparse.Namespace) -> None:
    # these import MMF; the help and invalid arguments need none
    from mmf_flava.data.from_recipe import open_dataset, read_recipe
    from mmf_flava.data.image_stream import ImageStreamDataset
    from mmf_flava.training.device import set_tf32

    check_device(arguments.device, torch.cuda.device_count(), "--device")
    config = read_recipe(arguments.recipe, arguments.overrides)
    section = config.model_config[config.model].codebook
    codebook_config = parse_section(CodebookConfig, section, f"model_config.{config.model}.codebook")
    codebook_config = replace(codebook_config, dtype=arguments.dtype or codebook_config.dtype)
    if codebook_config.type == "cached":
        raise UserError(
            "model_config.flava.codebook.type is 'cached'. Set it to the codebook that computes the codes, e.g. "
            "model_config.flava.codebook.type=dvae model_config.flava.codebook.path=facebook/flava-image-codebook."
        )
    dataset_config = config.dataset_config.get(arguments.dataset)
    name = (
        arguments.name or (dataset_config.get("codes") if dataset_config is not None else None) or codebook_config.type
    )
    with open_dict(config):
        if dataset_config is not None and "codes" in dataset_config:
            dataset_config.codes, dataset_config.views = None, arguments.views or dataset_config.get("views") or 1
    if torch.device(arguments.device).type == "cuda":
        set_tf32(bool(OmegaConf.select(config, "training.tf32")))  # the same setting as in training, for the same codes
    dataset = open_dataset(config, arguments.dataset, arguments.split)
    if not isinstance(dataset, ImageStreamDataset):
        raise UserError(f"--dataset {arguments.dataset}: the dataset has no images. Choose an image dataset.")
    if arguments.measure or (codebook_config.type == "dvae" and codebook_config.dtype != "fp32"):
        images = load_first_views(dataset, arguments.compare).to(arguments.device)
        _print_comparison(codebook_config, images, arguments.measure)
    if arguments.measure:
        return
    codebook = load_codebook(codebook_config).to(arguments.device)
    folder = resolve_codes_folder(str(name), dataset_config.data_dir)
    result = cache_dataset_codes(dataset, codebook_config, codebook, folder, arguments.batch_size, arguments.workers)
    print(
        f"{result.path}: {result.records} records (crops per image: {result.views}), {result.computed} computed now, "
        f"{sum(result.bad.values())} bad{': ' * bool(result.bad)}{format_counts(result.bad)}.\n"
        f"SHA-256 of the codebook: {codebook.sha256}\n"
        f"Train with dataset_config.{arguments.dataset}.codes={name}"
    )


def _print_comparison(config: CodebookConfig, images_N3hw: Tensor, all_dtypes: bool) -> None:
    if config.type != "dvae":
        raise UserError(
            f"--measure requires model_config.flava.codebook.type=dvae, got {config.type}, which has a single dtype."
        )
    print(f"{len(images_N3hw)} images, {images_N3hw.device}, compared with fp32:")
    for result in compare_dtypes(config, images_N3hw):
        if all_dtypes or (result.dtype, result.channels_last) == (config.dtype, config.channels_last):
            layout = " channels_last" if result.channels_last else ""
            milliseconds = f"{result.seconds * 1000:.0f} ms per image"
            print(f"  {result.dtype}{layout}: {result.changed:.2%} of the codes differ, {milliseconds}")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    run(parser().parse_intermixed_args(arguments))  # accepts options and key=value in any order


if __name__ == "__main__":
    sys.exit(main())
