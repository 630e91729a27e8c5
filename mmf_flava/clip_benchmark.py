"""CLIP_benchmark with FLAVA: ``python -m mmf_flava.clip_benchmark eval --pretrained WEIGHTS --dataset NAME ...``.

Its own command line with ``flava`` as a further ``--model_type``, the default here; ``--model`` only names the results.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedder import Embedder

NAME = "flava"


class Clip(nn.Module):
    """What CLIP_benchmark asks of a model."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.flava: Any = embedder.model
        self.pad = embedder.text_processor.special.pad

    def encode_image(self, image_B3HW: Tensor) -> Tensor:
        """(B, E)."""
        return self.flava.encode_image(image_B3HW)

    def encode_text(self, input_ids_BT: Tensor) -> Tensor:
        """(B, E) of padded ids."""
        return self.flava.encode_text(input_ids_BT, input_ids_BT != self.pad)


def load_flava(
    model_name: str = NAME, pretrained: str = "facebook/flava-full", cache_dir: str | None = None, device: Any = "cpu"
) -> tuple[nn.Module, Callable[[Image.Image], Tensor], Callable[[Sequence[str]], Tensor]]:
    """(model, transform of a picture, tokenizer), CLIP_benchmark's contract for its model types.

    Args:
        pretrained: anything that ``load_pretrained`` takes.

    Raises:
        UserError: no such weights or tokenizer.
    """
    embedder = Embedder(pretrained, device=device)

    def tokenize(texts: Sequence[str]) -> Tensor:
        return embedder.text_processor.encode([texts] if isinstance(texts, str) else texts)[0]

    return Clip(embedder).eval(), lambda picture: embedder.pixels(np.array(picture.convert("RGB"))), tokenize


def register() -> Any:
    """Adds the model type and returns CLIP_benchmark's command line module; UserError where it is not installed."""
    try:
        from clip_benchmark import cli, models
        from clip_benchmark.metrics import linear_probe, zeroshot_classification
    except ImportError as error:
        raise UserError(f"CLIP_benchmark cannot be imported ({error}): pip install clip-benchmark.") from error
    models.TYPE2FUNC[NAME] = load_flava
    if NAME not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(NAME)
    for module in (linear_probe, zeroshot_classification):
        module.accuracy = accuracy
    return cli


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[float]:
    """Top-k accuracies of (N, C) logits; CLIP_benchmark's own (1.6.2) fails with NumPy's newest versions."""
    right = output.topk(max(topk)).indices == target[:, None]
    return [right[:, :k].any(1).float().mean().item() for k in topk]


def main() -> int:
    try:
        cli = register()
        if "--model_type" not in sys.argv and "eval" in sys.argv:
            sys.argv += ["--model_type", NAME]
            if "--model" not in sys.argv:
                sys.argv += ["--model", NAME]
        cli.main()
    except UserError as error:
        print(f"mmf_flava: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
