"""Conversion of weights between formats: ``python -m mmf_flava.convert SRC DST --to FORMAT``."""

import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.command import ArgumentParser, command, file_path, integer
from mmf_flava.config.model import FlavaConfig
from mmf_flava.data.processor_files import read_processors, to_header
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.hub_folder import image_encoder
from mmf_flava.hub_folder.card import UNKNOWN_LICENCE, render_card
from mmf_flava.hub_folder.facts import check_licence, collect_facts
from mmf_flava.hub_folder.folder import replace_tokenizer, write_folder
from mmf_flava.weights.configs import CONFIG_KEY, config_to_dict, config_to_hugging_face
from mmf_flava.weights.loading import compare_keys
from mmf_flava.weights.names import from_native
from mmf_flava.weights.poolers import add_poolers
from mmf_flava.weights.sources import Weights, read_weights

FOLDERS = ("hf", "timm")  # formats that are folders
FILE_NAMES = {
    "torchmultimodal": "flava.pt",
    "mmf": "flava.pth",
    "mmf_flava": "flava.safetensors",
    "dino": "dino.pth",
}
SUFFIXES = {
    "torchmultimodal": (".pt", ".pth", ".bin"),
    "mmf": (".pth", ".pt", ".ckpt"),
    "mmf_flava": (".safetensors",),
    "dino": (".pth", ".pt"),
}

DESCRIPTION = """\
Converts FLAVA's weights between formats. SRC is any source that load_pretrained supports: a run folder or a checkpoint,
a Hugging Face folder or model ID, a file of torchmultimodal or the original MMF code, or an http(s) URL. Dtypes do not
change, and converting a file back and forth restores every tensor that both formats have, bit for bit. A run of the
model flava_dino is converted to timm and dino; image_encoder.pretrained loads it, and both formats."""
EPILOG = """\
  --to hf               a folder with model.safetensors, config.json, preprocessor_config.json, the tokenizer and a
                        model card (README.md), for transformers.FlavaForPreTraining.from_pretrained(DST)
  --to torchmultimodal  a file for flava_model_for_pretraining().load_state_dict(torch.load(DST))
  --to mmf              a checkpoint file of MMF, {"model": ...}, with the keys of the original code
  --to mmf_flava        a safetensors file with mmf_flava's keys and the model's configuration in its header
  --to timm             a folder with the image encoder for timm.create_model("local-dir:DST", pretrained=True)
  --to dino             a checkpoint file with the keys of DINO's code: student, teacher and dino_loss; SRC is a run of
                        flava_dino"""


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    parser = ArgumentParser(
        prog="python -m mmf_flava.convert",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="file, folder, URL or Hugging Face model ID")
    parser.add_argument(
        "target",
        metavar="DST",
        type=file_path,
        help="output folder for hf and timm, otherwise an output file or the folder for it",
    )
    parser.add_argument("--to", required=True, choices=[*FOLDERS, *FILE_NAMES], help="output format, see below")
    parser.add_argument(
        "--tokenizer", type=file_path, metavar="DIR", help="with --to hf: folder of the tokenizer to copy"
    )
    parser.add_argument(
        "--num-heads",
        type=integer(1),
        metavar="N",
        help="number of attention heads if SRC does not store it (default: hidden size / 64)",
    )
    parser.add_argument(
        "--allow-extra",
        action="append",
        default=[],
        metavar="PATTERN",
        help="skip keys of SRC that match PATTERN and do not belong to FLAVA, e.g. 'decoder.*'; may be repeated",
    )
    parser.add_argument("--ema", action="store_true", help="convert the averages of the weights (training.ema) in SRC")
    parser.add_argument(
        "--license",
        default=UNKNOWN_LICENCE,
        metavar="ID",
        help="with --to hf: licence of the weights for the model card, e.g. cc-by-4.0 (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files in DST")
    options = parser.parse_args(arguments)
    for line in convert(
        options.source,
        options.target,
        options.to,
        tokenizer=options.tokenizer,
        num_heads=options.num_heads,
        allow_extra=options.allow_extra,
        force=options.force,
        ema=options.ema,
        licence=options.license,
    ):
        print(line)


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    tokenizer: Path | None = None,
    num_heads: int | None = None,
    allow_extra: Sequence[str] = (),
    force: bool = False,
    ema: bool = False,
    licence: str = UNKNOWN_LICENCE,
) -> list[str]:
    """Write the weights of ``source`` to ``target`` in the format ``to``.

    Args: see the help of the command-line options.

    Returns:
        Messages about written files, skipped keys and missing heads.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, it has unknown keys, or the
            target already exists.
    """
    target = Path(target).expanduser()
    file = target if to in FOLDERS or target.suffix in SUFFIXES[to] else target / FILE_NAMES[to]
    _check_target(file, to, force)
    if tokenizer is not None and to != "hf":
        raise UserError(
            "--tokenizer is supported only with --to hf, because other formats have no tokenizer. Remove --tokenizer."
        )
    if to in image_encoder.FORMATS:
        encoder = image_encoder.read_encoder_weights(source, ema, num_heads)
        return image_encoder.export_encoder(encoder, file, to, read_processors(source))
    licence = check_licence(licence)
    weights, processors = read_weights(source, averages=ema), read_processors(source)
    if tokenizer is not None:
        processors = replace_tokenizer(processors, tokenizer)
    compare_keys({}, {}, weights.unknown, allow_extra=allow_extra).check(weights.source, "FLAVA's keys")
    config = weights.infer_config(num_heads)
    if num_heads is not None and config.image_encoder.hidden_size % num_heads:
        raise UserError(f"--num-heads: {num_heads} does not divide the hidden size {config.image_encoder.hidden_size}.")
    tensors = weights.tensors if to == "mmf_flava" else add_poolers(weights.tensors)
    written, untranslated = from_native(tensors, to)
    heads = _missing_heads(tensors)
    notes = _notes(weights, tensors, untranslated, heads, to)
    parameters = sum(tensor.numel() for tensor in written.values())
    if to == "hf":
        known = {"name": file.absolute().name, "model": config, "parameters": parameters}
        facts = collect_facts(source, weights.file, ema, **known, missing_heads=heads, skipped=tuple(untranslated))
        values = config_to_hugging_face(config, weights.tensors)
        copied = weights.file.parent if tokenizer is None else tokenizer.expanduser()
        notes += write_folder(file, written, config, values, processors, copied, render_card(facts, licence))
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replace_file(file) as temporary:
            _write_file(temporary, written, config, processors, to)
        if to != "mmf_flava":
            notes.append(
                f"The format {to} stores neither the tokenizer nor the image mean and std. Store them separately."
            )
    return [f"Wrote {file}: {len(written)} tensors with {parameters:,} values, format {to}.", *notes]


def _check_target(file: Path, to: str, force: bool) -> None:
    if to in FOLDERS and file.exists() and not file.is_dir():
        raise UserError(f"{file} is a file, but --to {to} writes a folder. Choose another path.")
    if not force and (any(file.iterdir()) if to in FOLDERS and file.is_dir() else file.exists()):
        raise UserError(f"{file} already exists. Choose another path, or replace it with --force.")


def _missing_heads(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    names = {".".join(key.split(".")[:2]) for key in tensors}
    return tuple(name for name in ("mim", "mlm", "mmm_image", "mmm_text", "itm") if f"heads.{name}" not in names)


def _notes(
    weights: Weights, tensors: dict[str, Tensor], untranslated: list[str], heads: Sequence[str], to: str
) -> list[str]:
    notes = []
    if untranslated:
        notes.append(f"Skipped tensors that the format {to} does not have: {', '.join(untranslated)}.")
    if to != "mmf_flava":
        if added := len(tensors) - len(weights.tensors):
            notes.append(f"Added {added} pooler tensors, which {to} requires but FLAVA does not use.")
        if heads:
            notes.append(
                f"{weights.source} lacks pretraining heads, which {to} initialises randomly: {', '.join(heads)}."
            )
    return notes


def _write_file(
    file: Path, tensors: dict[str, Tensor], config: FlavaConfig, processors: SavedProcessors, to: str
) -> None:
    if to == "mmf_flava":
        header = {"format": "pt", CONFIG_KEY: json.dumps(config_to_dict(config)), **to_header(processors)}
        save_file(tensors, file, metadata=header)
    elif to == "mmf":
        torch.save({"model": tensors, "config": {"model_config": {"flava": config_to_dict(config)}}}, file)
    else:
        torch.save(tensors, file)


if __name__ == "__main__":
    sys.exit(main())
