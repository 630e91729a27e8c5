"""Attention maps of [CLS] for a few images, shown in the report.

Shapes: n = number of images, h = number of attention heads, R x C = rows and columns of patches.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmf_flava.config.run import AttentionMapsConfig
from mmf_flava.data.evaluation_samples import count_samples, whole_images
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.files import atomic

FILE = "attention.json"


def write_attention_maps(
    folder: Path | None, model: Any, dataset: Any, config: AttentionMapsConfig, device: torch.device
) -> None:
    """Write ``attention.json``, and a PNG file of each image and of each map, to ``folder``.

    The images are spread over the dataset, whose order may be sorted by class. A map has a pixel for each patch; each
    map is divided by its largest value. Bad records are left out.

    Args:
        folder: output folder. If None, only the forward pass is run, because a model with sharded weights needs all
            processes.
    """
    images, ids = _read_images(dataset, config.images)
    if not ids:
        return
    maps = model.image_attention(images.to(device)).float().cpu()
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (sample, image, heads) in enumerate(zip(ids, images, maps, strict=True)):
        name = f"attention_{number}"
        entries.append(
            {
                "id": sample,
                "image": _save(folder, f"{name}.png", _pixels(dataset, image)),
                "mean": _save(folder, f"{name}_mean.png", _grey(heads.mean(dim=0))),
                "heads": [_save(folder, f"{name}_head_{head}.png", _grey(values)) for head, values in enumerate(heads)],
            }
        )
    atomic.write_json(folder / FILE, {"images": entries})


def _read_images(dataset: Any, count: int) -> tuple[Tensor, list[str]]:
    """Return the (n, 3, height, width) encoder inputs of up to ``count`` samples at equal distances, and their ids."""
    size, dataset = len(dataset), whole_images(dataset)
    starts = sorted({number * size // count for number in range(count)}) if size else []
    batches: Iterable[Any] = build_evaluation_loader(dataset, 1, 0, [range(n, n + 1) for n in starts]) if starts else ()
    good = [batch for batch in batches if count_samples(batch)]
    if not good:
        return torch.empty(0), []
    return torch.cat([batch["image"] for batch in good]), [str(batch["sample_id"][0]) for batch in good]


def _pixels(dataset: Any, image_3HW: Tensor) -> np.ndarray:
    """Return the (height, width, 3) uint8 pixels of an encoder input.

    Without a processor that knows its mean and std, the values are scaled so that they fill the range.
    """
    processor: Any = getattr(dataset, "image_processor", None)
    if hasattr(processor, "pixels"):
        return np.asarray(processor.pixels(image_3HW))
    low, high = image_3HW.min(), image_3HW.max()
    scaled = (image_3HW - low) / (high - low).clamp(min=1e-6)
    return (255 * scaled).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _grey(map_RC: Tensor) -> np.ndarray:
    """Return a map as (R, C) uint8; its largest value is 255."""
    return (255 * map_RC / map_RC.max().clamp(min=1e-12)).round().to(torch.uint8).numpy()


def _save(folder: Path, name: str, pixels: np.ndarray) -> str:
    with atomic.replace_file(folder / name) as file:
        Image.fromarray(pixels).save(file, "PNG")
    return name
