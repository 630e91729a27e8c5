"""``python -m mmf_flava.convert SRC DST --to hf|torchmultimodal|mmf|mmf_flava``: weights in another spelling."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmf_flava.config.model import FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import CONFIG_KEY, TOKENIZER_FILES, Weights, read_weights
from mmf_flava.weights.fit import compare, demand
from mmf_flava.weights.names import from_ours, with_poolers
from mmf_flava.weights.sizes import to_hugging_face, to_plain

FILE_NAMES = {"torchmultimodal": "flava.pt", "mmf": "flava.pth", "mmf_flava": "flava.safetensors"}
SUFFIXES = {"torchmultimodal": (".pt", ".pth", ".bin"), "mmf": (".pth", ".pt", ".ckpt"), "mmf_flava": (".safetensors",)}

DESCRIPTION = """\
Rewrites FLAVA's weights. SRC is anything that load_pretrained takes: a run's folder or one of its checkpoints, a
Hugging Face folder or hub name, torchmultimodal's or the original MMF code's file, an http(s) address. No tensor is
cast, and what the target can name comes back bit-equal."""
EPILOG = """\
  --to hf               a folder: model.safetensors, config.json, preprocessor_config.json, and the tokenizer's files;
                        transformers.FlavaForPreTraining.from_pretrained(DST) takes it as it is
  --to torchmultimodal  a file for flava_model_for_pretraining().load_state_dict(torch.load(DST))
  --to mmf              a file as MMF saves it, {"model": ...}, with the names of the original code
  --to mmf_flava        a safetensors file with our names, its sizes in its header"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all went well, 2 after a message to the user."""
    parser = argparse.ArgumentParser(
        prog="python -m mmf_flava.convert",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="file, folder, address or hub name")
    parser.add_argument("target", metavar="DST", type=Path, help="folder for hf, otherwise a file or a folder for it")
    parser.add_argument("--to", required=True, choices=["hf", *FILE_NAMES], help="whose names to write, see below")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="hf: the tokenizer to put beside the weights")
    parser.add_argument(
        "--num-heads", type=int, metavar="N", help="attention heads, where SRC does not state them (64 dimensions each)"
    )
    parser.add_argument("--allow-extra", action="append", default=[], metavar="PATTERN", help="names to leave out")
    parser.add_argument("--force", action="store_true", help="replace what DST holds")
    options = parser.parse_args(arguments)
    try:
        for line in convert(
            options.source,
            options.target,
            options.to,
            tokenizer=options.tokenizer,
            num_heads=options.num_heads,
            allow_extra=options.allow_extra,
            force=options.force,
        ):
            print(line)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    tokenizer: Path | None = None,
    num_heads: int | None = None,
    allow_extra: Sequence[str] = (),
    force: bool = False,
) -> list[str]:
    """Writes the weights of ``source`` to ``target`` and says what was written, one sentence a line.

    Raises:
        UserError: no such source, an unsafe file, names that the target cannot hold, or a target that exists.
    """
    target = Path(target).expanduser()
    file = target if to == "hf" or target.suffix in SUFFIXES[to] else target / FILE_NAMES[to]
    _refuse_to_overwrite(file, to, force)
    if tokenizer is not None and to != "hf":
        raise UserError("--tokenizer is for --to hf alone; the other styles are single files.")
    weights = read_weights(source)
    _refuse_unknown(weights, allow_extra)
    config = weights.sizes(num_heads)
    tensors = weights.tensors if to == "mmf_flava" else with_poolers(weights.tensors)
    written, left = from_ours(tensors, to)
    notes = _notes(weights, tensors, left, to)
    if to == "hf":
        notes += _write_folder(file, written, config, weights, tokenizer)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as temporary:
            part = Path(temporary) / file.name
            _write_file(part, written, config, to)
            os.replace(part, file)
    numbers = sum(tensor.numel() for tensor in written.values())
    return [f"Wrote {file}: {len(written)} tensors, {numbers:,} numbers, names as in {to}.", *notes]


def _refuse_to_overwrite(file: Path, to: str, force: bool) -> None:
    if to == "hf" and file.exists() and not file.is_dir():
        raise UserError(f"{file} is a file; --to hf writes a folder.")
    taken = file / "model.safetensors" if to == "hf" else file
    if not force and (taken.exists() or (to == "hf" and file.is_dir() and any(file.iterdir()))):
        raise UserError(f"{file} exists already; name another place, or replace it with --force.")


def _refuse_unknown(weights: Weights, allow_extra: Sequence[str]) -> None:
    demand(compare({}, {}, weights.unknown, (), allow_extra), weights.source, "the table of FLAVA's names")


def _notes(weights: Weights, tensors: dict[str, Tensor], left: list[str], to: str) -> list[str]:
    notes = []
    if left:
        notes.append(f"Left out, because {to} has no name for them: {', '.join(left)}.")
    if to != "mmf_flava":
        if made := len(tensors) - len(weights.tensors):
            notes.append(f"Made anew: {made} tensors of the encoders' poolers, which FLAVA never uses.")
        heads = [
            name for name in ("mim", "mlm", "mmm_image", "mmm_text", "itm") if f"heads.{name}" not in _parts(tensors)
        ]
        if heads:
            notes.append(f"{weights.source} has no {', '.join(heads)} head; whoever loads this makes new ones.")
    return notes


def _parts(tensors: dict[str, Tensor]) -> set[str]:
    return {".".join(key.split(".")[:2]) for key in tensors}


def _write_file(file: Path, tensors: dict[str, Tensor], config: FlavaConfig, to: str) -> None:
    if to == "mmf_flava":
        save_file(tensors, file, metadata={"format": "pt", CONFIG_KEY: json.dumps(to_plain(config))})
    elif to == "mmf":
        torch.save({"model": tensors, "config": {"model_config": {"flava": to_plain(config)}}}, file)
    else:
        torch.save(tensors, file)
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def _write_folder(
    folder: Path, tensors: dict[str, Tensor], config: FlavaConfig, weights: Weights, tokenizer: Path | None
) -> list[str]:
    """Hugging Face's folder, made beside its place and renamed into it; ``--force`` keeps other files there."""
    files = _tokenizer_files(weights, tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        part = Path(temporary) / folder.name
        part.mkdir()
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        _write_json(part / "config.json", to_hugging_face(config, weights.tensors))
        _write_json(part / "preprocessor_config.json", _image_processor(config))
        for file in files:
            shutil.copyfile(file, part / file.name)
        if files:
            _write_json(part / "tokenizer_config.json", _tokenizer_config(part, config))
        if folder.is_dir():  # --force, or an empty folder
            for file in part.iterdir():
                os.replace(file, folder / file.name)
        else:
            os.replace(part, folder)
    if files:
        return [f"With the tokenizer of {files[0].parent}."]
    return ["Without a tokenizer, which FlavaProcessor needs; give one with --tokenizer DIR."]


def _tokenizer_files(weights: Weights, tokenizer: Path | None) -> list[Path]:
    folder = tokenizer.expanduser() if tokenizer is not None else weights.file.parent
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    whole = any(file.name in ("tokenizer.json", "vocab.txt") for file in files)
    if tokenizer is not None and not whole:
        raise UserError(f"--tokenizer: {folder} holds neither tokenizer.json nor vocab.txt.")
    return files if whole else []


def _tokenizer_config(folder: Path, config: FlavaConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        values = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    defaults = {"tokenizer_class": "BertTokenizer", "model_max_length": config.text_encoder.max_length}
    return {**defaults, **values, "processor_class": "FlavaProcessor"}


def _image_processor(config: FlavaConfig) -> dict[str, Any]:
    """What Hugging Face's FlavaImageProcessor is told; its defaults (CLIP's mean and deviation, ...) are right."""
    image = config.image_encoder
    grid = image.image_size // image.patch_size
    side = {"height": image.image_size, "width": image.image_size}
    code = {"height": 8 * grid, "width": 8 * grid}  # the dVAE makes one code of 8 x 8 pixels
    patches = grid * grid
    return {
        "image_processor_type": "FlavaImageProcessor",
        "processor_class": "FlavaProcessor",
        "size": side,
        "crop_size": side,
        "codebook_size": code,
        "codebook_crop_size": code,
        "input_size_patches": grid,
        # 75 of 196 as released, the same share of other grids
        "total_mask_patches": round(patches * 75 / 196),
        "mask_group_min_patches": min(16, max(1, round(patches * 16 / 196))),
    }


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
