"""Conversion between ``FlavaConfig`` and stored configurations: metadata of a weights file, Hugging Face's config.json.

A configuration can also be inferred from tensor shapes.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from mmf_flava.config.dino import DinoEncoderConfig
from mmf_flava.config.model import (
    CodebookConfig,
    FlavaConfig,
    ImageEncoderConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_object

ENCODERS = ("image_encoder", "text_encoder", "multimodal_encoder")
HEAD_SIZE = 64  # width of an attention head in every released model; tensor shapes do not show it
# keys of the configuration in the metadata of safetensors files that mmf_flava writes: of FLAVA, and of flava_dino
CONFIG_KEY, DINO_CONFIG_KEY = "flava_config", "flava_dino_config"
HEADS_KEY = "num_heads"  # in the metadata of a folder for timm
EncoderConfig = TypeVar("EncoderConfig", bound=TransformerConfig)

# key of mmf_flava's configuration -> Hugging Face's key
SIZES = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_size": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_eps": "layer_norm_eps",
}
IMAGE_SIZES = SIZES | {"image_size": "image_size", "patch_size": "patch_size"}
TEXT_SIZES = SIZES | {
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "pad_token_id": "pad_token_id",
}


def read_config(file: Path, metadata: dict[str, Any]) -> FlavaConfig | None:
    """Return the configuration that is stored with a weights file, or None if none is stored.

    The configuration is read from the metadata of a file that mmf_flava wrote, from the config in an MMF checkpoint, or
    from Hugging Face's ``config.json`` in the folder of the weights file.

    Args:
        file: path of the weights file.
        metadata: metadata of the weights file, as returned by ``read_tensors``.

    Raises:
        UserError: the configuration is invalid.
    """
    if isinstance(text := metadata.get(CONFIG_KEY), str):
        return config_from_dict(_parse_json(text, file), f"{file}, metadata")
    stored = metadata.get("config")
    for key in ("model_config", "flava"):
        stored = stored.get(key) if isinstance(stored, dict) else None
    if isinstance(stored, dict):
        return config_from_dict(stored, f"{file}, config.model_config.flava")
    json_file = file.parent / "config.json"
    if json_file.is_file():
        values = _parse_json(json_file.read_bytes(), json_file)
        return config_from_hugging_face(values, str(json_file)) if values.get("model_type") == "flava" else None
    return None


def read_dino_config(metadata: dict[str, Any]) -> ImageEncoderConfig | None:
    """Return the image encoder's configuration in the weights file of a ``flava_dino``; None if there is none.

    Raises:
        UserError: the configuration is invalid.
    """
    if not isinstance(text := metadata.get(DINO_CONFIG_KEY), str):
        return None
    values = _parse_json(text.encode(), Path(DINO_CONFIG_KEY)).get("image_encoder") or {}
    kept = {key: value for key, value in values.items() if key != "pretrained"}
    return parse_section(DinoEncoderConfig, kept, f"{DINO_CONFIG_KEY}.image_encoder")


def read_image_heads(metadata: dict[str, Any]) -> int | None:
    """Return the number of attention heads of the image encoder in a weights file of mmf_flava; None if unknown.

    Args:
        metadata: metadata of a ``flava_dino``, of a FLAVA model, or of a folder for timm.
    """
    if (trained := read_dino_config(metadata)) is not None:
        return trained.num_heads
    if isinstance(text := metadata.get(CONFIG_KEY), str):
        return config_from_dict(_parse_json(text, Path(CONFIG_KEY)), CONFIG_KEY).image_encoder.num_heads
    heads = metadata.get(HEADS_KEY)
    return int(heads) if isinstance(heads, str) and heads.isdecimal() else None


def _parse_json(text: bytes | str, file: Path) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise UserError(
            f"{file}: the configuration is not valid JSON ({error}). The file may be damaged: download or "
            "copy it again from its source."
        ) from None


def config_from_dict(values: dict[str, Any], where: str) -> FlavaConfig:
    """Build a model configuration from a dictionary; losses and the encoders' keys ``pretrained`` are ignored.

    Args:
        where: location of the dictionary, used in error messages.

    Raises:
        UserError: a key is unknown or a value has the wrong type.
    """
    kept = {
        key: {k: v for k, v in value.items() if k != "pretrained"} if isinstance(value, dict) else value
        for key, value in values.items()
        if key in (*ENCODERS, "projection_size", "logit_scale_init", "logit_scale_max")
    }
    config = parse_section(FlavaConfig, kept, where)
    codebook = values.get("codebook")
    if isinstance(codebook, dict) and isinstance(codebook.get("vocab_size"), int):
        config.codebook = CodebookConfig(vocab_size=codebook["vocab_size"])
    return config


def config_to_dict(config: FlavaConfig) -> dict[str, Any]:
    """Convert a configuration to a dictionary; the inverse of ``config_from_dict``."""
    values = asdict(config)
    for encoder in ENCODERS:
        values[encoder].pop("pretrained", None)  # may be a path on this machine
    kept = (*ENCODERS, "projection_size", "logit_scale_init", "logit_scale_max")
    return {key: values[key] for key in kept} | {"codebook": {"vocab_size": config.codebook.vocab_size}}


def config_from_hugging_face(values: dict[str, Any], where: str = "config.json") -> FlavaConfig:
    """Build a configuration from Hugging Face's ``config.json``; missing keys get Hugging Face's defaults.

    Args:
        where: location of the content, used in error messages.

    Raises:
        UserError: the activation is not GELU, the attention has no biases, or the multimodal encoder has no
            token [CLS_M].
    """
    image, text, pair = (values.get(f"{name}_config") or {} for name in ("image", "text", "multimodal"))
    for section in (image, text, pair):
        if section.get("hidden_act", "gelu") != "gelu" or not section.get("qkv_bias", True):
            raise UserError(
                f"{where}: hidden_act must be gelu and qkv_bias must be true, got {section.get('hidden_act', 'gelu')} "
                f"and {section.get('qkv_bias', True)}. Use other weights."
            )
    if not pair.get("use_cls_token", True):
        raise UserError(f"{where}: multimodal_config.use_cls_token must be true. Use weights of a model with [CLS_M].")
    return FlavaConfig(
        image_encoder=_read(ImageEncoderConfig, image, IMAGE_SIZES, where),
        text_encoder=_read(TextEncoderConfig, text, TEXT_SIZES, where),
        multimodal_encoder=_read(MultimodalEncoderConfig, pair, SIZES, where),
        projection_size=values.get("projection_dim", 768),
        logit_scale_init=values.get("logit_scale_init_value", math.log(1 / 0.07)),
        codebook=CodebookConfig(vocab_size=image.get("vocab_size", 8192)),
    )


def _read(schema: type[EncoderConfig], section: dict[str, Any], names: dict[str, str], where: str) -> EncoderConfig:
    values = {native: section[foreign] for native, foreign in names.items() if section.get(foreign) is not None}
    return parse_section(schema, values, where)


def config_to_hugging_face(config: FlavaConfig, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the content of Hugging Face's ``config.json``.

    Args:
        tensors: weights under mmf_flava's keys, from which the codebook's configuration is inferred.

    Raises:
        UserError: the encoders have different widths, which Hugging Face's FLAVA does not support.
    """
    image, text, pair = config.image_encoder, config.text_encoder, config.multimodal_encoder
    if not image.hidden_size == text.hidden_size == pair.hidden_size:
        raise UserError(
            "Hugging Face's FLAVA requires the same hidden_size in all encoders, got "
            f"{image.hidden_size}, {text.hidden_size} and {pair.hidden_size}. Choose another format."
        )
    stem = tensors.get("codebook.blocks.input.weight")
    values: dict[str, Any] = {
        "architectures": ["FlavaForPreTraining"],
        "model_type": "flava",
        "hidden_size": pair.hidden_size,
        "layer_norm_eps": pair.layer_norm_eps,
        "projection_dim": config.projection_size,
        "logit_scale_init_value": config.logit_scale_init,
        "init_codebook": stem is not None,
        "image_config": {**_write(image, IMAGE_SIZES), "vocab_size": config.codebook.vocab_size},
        "text_config": _write(text, TEXT_SIZES),
        "multimodal_config": _write(pair, SIZES),
    }
    if stem is not None:
        blocks = {key.split(".")[4] for key in tensors if key.startswith("codebook.blocks.group_1.group.")}
        values["image_codebook_config"] = {
            "input_channels": stem.shape[1],
            "hidden_size": stem.shape[0],
            "num_blocks_per_group": len(blocks),
            "vocab_size": tensors["codebook.blocks.output.conv.weight"].shape[0],
        }
    return values


def _write(config: TransformerConfig, names: dict[str, str]) -> dict[str, Any]:
    return {foreign: getattr(config, native) for native, foreign in names.items()}


def config_from_tensors(tensors: dict[str, Tensor], num_heads: int | None = None) -> FlavaConfig:
    """Infer the configuration from the tensor shapes of a complete model.

    Args:
        tensors: weights under mmf_flava's keys.
        num_heads: number of attention heads of each encoder; None means 64 dimensions per head, as in all
            released models.

    Raises:
        UserError: a tensor whose shape is needed is missing.
    """
    try:
        return _from_shapes({key: tensor.shape for key, tensor in tensors.items()}, num_heads)
    except (KeyError, IndexError) as error:
        raise UserError(
            f"Failed to infer the model configuration: the weights have no tensor {error.args[0]}. Use the weights of "
            "a complete FLAVA model."
        ) from None


def _from_shapes(shapes: dict[str, Any], num_heads: int | None) -> FlavaConfig:
    image, text = "flava.image_encoder", "flava.text_encoder"
    patch = shapes[f"{image}.patch_embed.proj.weight"][-1]
    config = FlavaConfig(
        image_encoder=ImageEncoderConfig(**_transformer(shapes, "image_encoder", num_heads)),
        text_encoder=TextEncoderConfig(**_transformer(shapes, "text_encoder", num_heads)),
        multimodal_encoder=MultimodalEncoderConfig(**_transformer(shapes, "multimodal_encoder", num_heads)),
        projection_size=shapes["flava.image_projection.weight"][0],
    )
    config.image_encoder.patch_size = patch
    config.image_encoder.image_size = patch * math.isqrt(shapes[f"{image}.pos_embed"][1] - 1)
    config.text_encoder.vocab_size = shapes[f"{text}.word_embeddings.weight"][0]
    config.text_encoder.max_length = shapes[f"{text}.position_embeddings.weight"][0]
    config.text_encoder.type_vocab_size = shapes[f"{text}.token_type_embeddings.weight"][0]
    for key in ("heads.mim.decoder.weight", "heads.mmm_image.decoder.weight", "codebook.blocks.output.conv.weight"):
        if key in shapes:
            config.codebook.vocab_size = shapes[key][0]
            break
    return config


def _transformer(shapes: dict[str, Any], encoder: str, num_heads: int | None) -> dict[str, Any]:
    start = f"flava.{encoder}.blocks."
    mlp, width = shapes[f"{start}0.mlp.fc1.weight"]
    return {
        "hidden_size": width,
        "num_layers": len({key.split(".")[3] for key in shapes if key.startswith(start)}),
        "num_heads": num_heads or max(1, width // HEAD_SIZE),
        "mlp_size": mlp,
    }
