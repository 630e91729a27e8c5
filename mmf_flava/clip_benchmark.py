"""CLIP_benchmark with FLAVA: ``python -m mmf_flava.clip_benchmark eval --pretrained WEIGHTS --dataset NAME ...``.

This is CLIP_benchmark's command line with the additional ``--model_type flava``, which is the default. ``--model`` is
only a label in the results.

Shapes: B = batch size, H = image height, W = image width, T = number of tokens, E = projection size, N = number of
samples, C = number of classes.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor, nn

from mmf_flava.command import ArgumentParser, command
from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.files.plain_pickle import read_pickle

NAME = "flava"


class ClipModel(nn.Module):
    """FLAVA with the interface that CLIP_benchmark expects of a model."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.flava: Any = embedder.model
        self.pad = embedder.text_processor.special.pad

    def encode_image(self, image_B3HW: Tensor) -> Tensor:
        """Return the contrastive embeddings of images, (B, projection size), normalised to unit length."""
        return self.flava.encode_image(image_B3HW)

    def encode_text(self, input_ids_BT: Tensor) -> Tensor:
        """Return the contrastive embeddings of padded token ids, (B, projection size), normalised to unit length."""
        return self.flava.encode_text(input_ids_BT, input_ids_BT != self.pad)


def load_flava(
    model_name: str = NAME, pretrained: str = "facebook/flava-full", cache_dir: str | None = None, device: Any = "cpu"
) -> tuple[nn.Module, Callable[[Image.Image], Tensor], Callable[[Sequence[str]], Tensor]]:
    """Return (model, image transform, tokenizer), as CLIP_benchmark requires of a model type.

    Args:
        model_name: ignored.
        pretrained: any source that ``load_pretrained`` supports.
        cache_dir: ignored.

    Raises:
        UserError: the weights or the tokenizer were not found.
    """
    embedder = Embedder(pretrained, device=device)

    def tokenize(texts: Sequence[str]) -> Tensor:
        return embedder.text_processor.encode([texts] if isinstance(texts, str) else texts)[0]

    return ClipModel(embedder).eval(), embedder.preprocess, tokenize


def register() -> Any:
    """Register the model type "flava" in CLIP_benchmark and return CLIP_benchmark's module ``cli``.

    Raises:
        UserError: CLIP_benchmark is not installed.
    """
    try:
        from clip_benchmark import cli, models
        from clip_benchmark.metrics import linear_probe, zeroshot_classification
        from webdataset import autodecode
    except ImportError as error:
        raise UserError(f"Failed to import CLIP_benchmark ({error}). Run `pip install clip-benchmark`.") from error
    models.TYPE2FUNC[NAME] = load_flava
    if NAME not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(NAME)
    for module in (linear_probe, zeroshot_classification):
        module.accuracy = accuracy
    # webdataset unpickles the members of shards with these extensions, which executes code that they contain
    autodecode.decoders.update({"pkl": read_pickle, "pickle": read_pickle, "pyd": read_pickle, "pth": _load_tensors})
    return cli


def _load_tensors(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[float]:
    """Return the top-k accuracy of (N, C) logits for N samples and C classes, for each k in ``topk``.

    This function replaces the function of CLIP_benchmark 1.6.2, which fails with recent NumPy versions.
    """
    correct = output.topk(max(topk)).indices == target[:, None]
    return [correct[:, :k].any(1).float().mean().item() for k in topk]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run CLIP_benchmark's command line and return the exit code."""
    cli = register()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--model_type" not in words and "eval" in words:
        words += ["--model_type", NAME]
        if "--model" not in words:
            words += ["--model", NAME]
    # CLIP_benchmark parses sys.argv with argparse
    with (
        patch.object(sys, "argv", [sys.argv[0], *words]),
        patch.object(argparse.ArgumentParser, "error", ArgumentParser.error),
    ):
        try:
            cli.main()
        except ValueError as error:
            if not str(error).startswith("Unsupported dataset"):
                raise
            raise UserError(
                f"--dataset: CLIP_benchmark has no such dataset ({error}). Choose another dataset."
            ) from error


if __name__ == "__main__":
    sys.exit(main())
