"""Export of an image encoder alone: to timm, from FLAVA or ``flava_dino``, and to DINO's own format."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmf_flava.config.model import ImageEncoderConfig
from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.weights.configs import read_dino_config
from mmf_flava.weights.names import TEACHER
from mmf_flava.weights.sources import find_weights, read_weights
from mmf_flava.weights.vit_files import MASK_TOKEN, TIMM_EPS, write_dino_checkpoint, write_timm_folder
from mmf_flava.weights.weight_files import find_averages, read_tensors

FORMATS = ("timm", "dino")
ENCODER = "flava.image_encoder."


@dataclass
class EncoderWeights:
    """Weights that contain an image encoder.

    Attributes:
        source: path, URL (without credentials) or Hugging Face model ID.
        encoder: weights of the image encoder, under timm's keys; of a ``flava_dino``, the teacher's.
        dino: weights of the whole ``flava_dino``; empty for other models.
        config: configuration of the image encoder.
    """

    source: str
    encoder: dict[str, Tensor]
    dino: dict[str, Tensor]
    config: ImageEncoderConfig


def read_encoder_weights(source: str | Path, averages: bool = False, num_heads: int | None = None) -> EncoderWeights:
    """Read the image encoder of a FLAVA model or of a ``flava_dino``.

    Args:
        averages: whether to read the averages of ``training.ema`` in a checkpoint.
        num_heads: see ``Weights.infer_config``.

    Raises:
        UserError: the source was not found, its file is corrupt, or its weights are not those of a FLAVA model.
    """

    def find() -> Path:
        file = find_weights(source)
        return find_averages(file) if averages else file

    tensors, metadata = read_found(find, read_tensors)
    if (config := read_dino_config(metadata)) is not None:
        return EncoderWeights(hide_address(source), _take(tensors, TEACHER), tensors, config)
    weights = read_weights(source, averages=averages)
    return EncoderWeights(
        weights.source, _take(weights.tensors, ENCODER), {}, weights.infer_config(num_heads).image_encoder
    )


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def export_encoder(weights: EncoderWeights, target: Path, to: str, processors: SavedProcessors) -> list[str]:
    """Write an image encoder in the format ``timm`` (a folder) or ``dino`` (a file), and return messages.

    Raises:
        UserError: the format ``dino`` needs student, teacher and centre, which the weights lack.
    """
    if to == "dino":
        if not weights.dino:
            raise UserError(
                f"{weights.source} has no student and teacher, which --to dino writes. Use a run of the model "
                "flava_dino, or --to timm for the image encoder alone."
            )
        count = write_dino_checkpoint(target, weights.dino)
        return [f"Wrote {target}: {count} tensors of student, teacher and centre, format dino."]
    known = processors.mean is not None and processors.std is not None
    mean, std = processors.mean or CLIP_MEAN, processors.std or CLIP_STD
    write_timm_folder(target, weights.encoder, weights.config, list(mean), list(std))
    values = sum(value.numel() for key, value in weights.encoder.items() if key != MASK_TOKEN)
    lines = [f"Wrote {target}: an image encoder with {values:,} values, format timm."]
    lines.append(f'Load it with timm.create_model("local-dir:{target}", pretrained=True).')
    if MASK_TOKEN in weights.encoder:
        lines.append("Left out the mask token, which timm's model does not have.")
    if not known:
        lines.append("No image mean and std were found, and CLIP's were written. Correct config.json if they differ.")
    if weights.config.layer_norm_eps != TIMM_EPS:
        lines.append(
            f"timm's LayerNorms have eps {TIMM_EPS:g}, the image encoder's {weights.config.layer_norm_eps:g}: outputs "
            "differ slightly."
        )
    return lines
