"""Command line that precomputes the image codes (visual codebook tokens) of a dataset.

Example: ``python -m mmf_flava.cache_codes RECIPE --dataset pmd --split train --views 4``.

With ``dataset_config.pmd.codes: NAME``, training reads the cached codes instead of running the codebook. The DALL-E
codebook takes a third of the operations of a training step on images. Run the command again to resume an interrupted
computation. With torchrun, all processes compute codes; see ``data.code_writer`` for how they share the
work, and ``data.codes`` for the file format.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from mmf_flava.command import MAX_WORKERS, ArgumentParser, command, end_on_sigterm, integer
from mmf_flava.config.device import check_device
from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.codes import resolve_codes_folder
from mmf_flava.data.quarantine import format_counts
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import load_codebook
from mmf_flava.models.codebook.caching import cache_dataset_codes
from mmf_flava.models.codebook.dtype_comparison import compare_dtypes
from mmf_flava.models.codebook.views import load_first_views
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.processes import launched, local_device


def parser() -> argparse.ArgumentParser:
    top = ArgumentParser(
        prog="python -m mmf_flava.cache_codes",
        description="Precomputes the image codes of a dataset. Training then does not run the codebook. The codes of "
        "each path of the split are in a file of their own, and only those that do not exist are computed. To use "
        "several GPUs, run `torchrun --nproc_per_node N -m mmf_flava.cache_codes ...`.",
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
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="torch device (default: %(default)s); with torchrun, cuda is a GPU for each process",
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

    device, is_first = local_device(arguments.device), launched()[0] == 0
    check_device(device, torch.cuda.device_count(), "--device")
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
    if torch.device(device).type == "cuda":
        set_tf32(bool(OmegaConf.select(config, "training.tf32")))  # the same setting as in training, for the same codes
    dataset = open_dataset(config, arguments.dataset, arguments.split)
    if not isinstance(dataset, ImageStreamDataset):
        raise UserError(f"--dataset {arguments.dataset}: the dataset has no images. Choose an image dataset.")
    if is_first and (arguments.measure or (codebook_config.type == "dvae" and codebook_config.dtype != "fp32")):
        images = load_first_views(dataset, arguments.compare).to(device)
        _print_comparison(codebook_config, images, arguments.measure)
    if arguments.measure:
        return
    codebook = load_codebook(codebook_config).to(device)
    folder = resolve_codes_folder(str(name), dataset_config.data_dir)
    result = cache_dataset_codes(dataset, codebook_config, codebook, folder, arguments.batch_size, arguments.workers)
    if not is_first:
        return
    if result.remaining:
        print(f"{folder}: {result.remaining:,} records are left to the other processes. The file system has no locks.")
        return
    for file in result.files:
        print(file)
    print(
        f"{result.records} records (crops per image: {result.views}), {result.computed} computed now, "
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
    end_on_sigterm()
    sys.exit(main())
