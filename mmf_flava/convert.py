"""Conversion of weights between formats: ``python -m mmf_flava.convert SRC DST --to FORMAT``."""

import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.command import ArgumentParser, command, file_path, integer
from mmf_flava.config.model import FlavaConfig
from mmf_flava.data.processor_files import label_names, read_processors, to_header, write_hugging_face, write_json
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.weights.configs import CONFIG_KEY, config_to_dict, config_to_hugging_face
from mmf_flava.weights.loading import compare_keys
from mmf_flava.weights.names import from_native
from mmf_flava.weights.sources import Weights, read_weights

FILE_NAMES = {"torchmultimodal": "flava.pt", "mmf": "flava.pth", "mmf_flava": "flava.safetensors"}
SUFFIXES = {"torchmultimodal": (".pt", ".pth", ".bin"), "mmf": (".pth", ".pt", ".ckpt"), "mmf_flava": (".safetensors",)}

DESCRIPTION = """\
Converts FLAVA's weights between formats. SRC is any source that load_pretrained supports: a run folder or a checkpoint,
a Hugging Face folder or model ID, a file of torchmultimodal or the original MMF code, or an http(s) URL. Dtypes do not
change, and converting a file back and forth restores every tensor that both formats have, bit for bit."""
EPILOG = """\
  --to hf               a folder with model.safetensors, config.json, preprocessor_config.json and the tokenizer,
                        for transformers.FlavaForPreTraining.from_pretrained(DST)
  --to torchmultimodal  a file for flava_model_for_pretraining().load_state_dict(torch.load(DST))
  --to mmf              a checkpoint file of MMF, {"model": ...}, with the keys of the original code
  --to mmf_flava        a safetensors file with mmf_flava's keys and the model's configuration in its header"""


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
        help="output folder for hf, otherwise an output file or the folder for it",
    )
    parser.add_argument("--to", required=True, choices=["hf", *FILE_NAMES], help="output format, see below")
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
    file = target if to == "hf" or target.suffix in SUFFIXES[to] else target / FILE_NAMES[to]
    _check_target(file, to, force)
    if tokenizer is not None and to != "hf":
        raise UserError(
            "--tokenizer is supported only with --to hf, because other formats are single files. Remove --tokenizer."
        )
    weights, processors = read_weights(source, averages=ema), read_processors(source)
    if tokenizer is not None:
        processors = _with_tokenizer(processors, tokenizer)
    compare_keys({}, {}, weights.unknown, allow_extra=allow_extra).check(weights.source, "FLAVA's keys")
    config = weights.infer_config(num_heads)
    if num_heads is not None and config.image_encoder.hidden_size % num_heads:
        raise UserError(f"--num-heads: {num_heads} does not divide the hidden size {config.image_encoder.hidden_size}.")
    tensors = weights.tensors if to == "mmf_flava" else add_poolers(weights.tensors)
    written, untranslated = from_native(tensors, to)
    notes = _notes(weights, tensors, untranslated, to)
    if to == "hf":
        _write_folder(file, written, config, weights, processors, tokenizer)
        notes += _processor_notes(processors)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replace_file(file) as temporary:
            _write_file(temporary, written, config, processors, to)
        if to != "mmf_flava":
            notes.append(
                f"The format {to} stores neither the tokenizer nor the image mean and std. Store them separately."
            )
    numbers = sum(tensor.numel() for tensor in written.values())
    return [f"Wrote {file}: {len(written)} tensors with {numbers:,} values, format {to}.", *notes]


def add_poolers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the poolers of the three encoders, with N(0, 0.02) weights and zero biases, if they are missing.

    The other implementations of FLAVA have these parameters, but never use them.
    """
    complete = dict(tensors)
    generator = torch.Generator().manual_seed(0)  # fixed seed, so that the same weights always give the same file
    for encoder in ("image_encoder", "text_encoder", "multimodal_encoder"):
        norm = tensors.get(f"flava.{encoder}.norm.weight")
        name = f"unused.flava.{encoder}.pooler"
        if norm is not None and f"{name}.weight" not in tensors:
            width = len(norm)
            complete[f"{name}.weight"] = torch.empty(width, width).normal_(std=0.02, generator=generator).to(norm.dtype)
            complete[f"{name}.bias"] = torch.zeros(width, dtype=norm.dtype)
    return complete


def _check_target(file: Path, to: str, force: bool) -> None:
    if to == "hf" and file.exists() and not file.is_dir():
        raise UserError(f"{file} is a file, but --to hf writes a folder. Choose another path.")
    if not force and (any(file.iterdir()) if to == "hf" and file.is_dir() else file.exists()):
        raise UserError(f"{file} already exists. Choose another path, or replace it with --force.")


def _notes(weights: Weights, tensors: dict[str, Tensor], untranslated: list[str], to: str) -> list[str]:
    notes = []
    if untranslated:
        notes.append(f"Skipped tensors that the format {to} does not have: {', '.join(untranslated)}.")
    if to != "mmf_flava":
        if added := len(tensors) - len(weights.tensors):
            notes.append(f"Added {added} pooler tensors, which {to} requires but FLAVA does not use.")
        names = {".".join(key.split(".")[:2]) for key in tensors}
        heads = [name for name in ("mim", "mlm", "mmm_image", "mmm_text", "itm") if f"heads.{name}" not in names]
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


def _write_folder(
    folder: Path,
    tensors: dict[str, Tensor],
    config: FlavaConfig,
    weights: Weights,
    processors: SavedProcessors,
    tokenizer: Path | None,
) -> None:
    """Write a Hugging Face model folder atomically. Other files in an existing folder are kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace_folder(folder, keep=True) as output:
        save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
        values = config_to_hugging_face(config, weights.tensors)
        write_json(output / "config.json", {**values, **label_names(processors.classes)})
        source = weights.file.parent if tokenizer is None else tokenizer.expanduser()
        write_hugging_face(output, processors, config, source)


def _with_tokenizer(processors: SavedProcessors, folder: Path) -> SavedProcessors:
    """Return the processors with the tokenizer in ``folder``.

    Raises:
        UserError: the tokenizer's vocabulary differs from the vocabulary that the weights were trained with.
    """
    tokenizer = load_tokenizer(_existing(folder))
    sha256 = compute_vocabulary_hash(tokenizer)
    processors.check_vocabulary(sha256, f"--tokenizer {folder}")
    return replace(processors, tokenizer=tokenizer.to_str(), vocabulary_sha256=sha256)


def _existing(folder: Path) -> Path:
    folder = folder.expanduser()
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(
            f"--tokenizer: {folder} has neither tokenizer.json nor vocab.txt. Pass a folder with one of them."
        )
    return folder


def _processor_notes(processors: SavedProcessors) -> list[str]:
    notes = []
    if processors.tokenizer is None:
        notes.append(
            "No tokenizer was found, but FlavaProcessor requires one. Pass a tokenizer folder with --tokenizer DIR."
        )
    if processors.mean is None or processors.std is None:
        notes.append(
            "No image mean and std were found; CLIP's values were written. Correct preprocessor_config.json if the "
            "weights were trained with other values."
        )
    return notes


if __name__ == "__main__":
    sys.exit(main())
