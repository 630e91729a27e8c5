"""Weights from anywhere into a model: ``load_pretrained``, a recipe's ``resume_pretrained``, single encoders.

A source is a local file or folder, an http(s) address, or a name on the Hugging Face hub (``facebook/flava-full``). Its
style is told by its keys. Nothing that is read is ever executed.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import isqrt
from pathlib import Path

import torch
from mmf.common.registry import registry
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mmf_flava.config.model import CodebookConfig, CoreConfig, FlavaConfig
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import KMeansCodebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.weights.sources import Weights, find, read_weights
from mmf_flava.weights.weight_files import read_tensors
from mmf_flava.models.flava import Flava
from mmf_flava.models.image_encoder import ImageEncoder
from mmf_flava.weights.encoders import image_encoder_tensors, is_post_norm, text_encoder_tensors
from mmf_flava.weights.fit import Fit, compare, demand
from mmf_flava.models.text_encoder import TextEncoder


def load_pretrained(
    source: str | Path,
    heads: bool = False,
    *,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    config: FlavaConfig | None = None,
    num_heads: int | None = None,
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
) -> nn.Module:
    """FLAVA with pretrained weights, in eval mode.

    Args:
        source: local file or folder, address, or hub name; Hugging Face's, torchmultimodal's, the original MMF code's
            files or ours.
        heads: False gives the core (``Flava``); True the whole pretraining model with heads, losses and codebook.
        allow_missing: patterns of our names that may be missing or of another shape; they keep their initialisation.
        allow_extra: patterns of names that may be in the file without being used.
        config: sizes; by default those that the source states, or that its tensors' shapes tell.
        num_heads: of attention, where the source does not state it; by default one head for 64 dimensions.
        sha256: checksum of the file to be downloaded.
        cache_dir: where downloads stay; by default MMF_CACHE_DIR or ~/.cache/mmf_flava.

    Raises:
        UserError: no such source, an unsafe or damaged file, or weights that do not fit.
    """
    weights = read_weights(source, cache_dir, sha256)
    config = config or weights.sizes(num_heads)
    model = _pretraining(config, weights) if heads else nn.ModuleDict({"flava": Flava(config)})
    put(model, weights, allow_missing, allow_extra)
    return (model if heads else model["flava"]).eval()  # type: ignore[index]


def _pretraining(config: FlavaConfig, weights: Weights) -> nn.Module:
    """``model: flava`` outside of a run: MMF's registry is asked for the losses and for one switch."""
    setup_imports()  # registers MMF's own and, through compat, ours
    if registry.get("config", None, no_warning=True) is None:  # MMFLoss reads it
        registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    config = replace(
        config, codebook=CodebookConfig(vocab_size=config.codebook.vocab_size), losses=FlavaConfig().losses
    )
    model = registry.get_model_class("flava")(OmegaConf.structured(config))
    model.build()
    model.init_losses()
    model.codebook = _codebook(weights.tensors)
    return model


def _codebook(tensors: dict[str, Tensor]) -> nn.Module | None:
    """An empty codebook of the kind and size that the weights hold."""
    stem = tensors.get("codebook.blocks.input.weight")
    if stem is not None:
        names = [key.split(".") for key in tensors if key.startswith("codebook.blocks.group_")]
        return DalleEncoder(
            vocab_size=tensors["codebook.blocks.output.conv.weight"].shape[0],
            hidden_size=stem.shape[0],
            num_groups=len({name[2] for name in names}),
            num_blocks_per_group=len({name[4] for name in names}),
        )
    centroids = tensors.get("codebook.centroids")
    return None if centroids is None else KMeansCodebook(torch.zeros_like(centroids))


def load_weights(
    model: nn.Module,
    source: str | Path,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    cache_dir: str | Path | None = None,
) -> Fit:
    """Loads weights of any style into a model of a recipe, in place; heads that the recipe lacks are left out.

    Raises:
        UserError: as ``load_pretrained``.
    """
    weights = read_weights(source, cache_dir)
    settings = getattr(model, "settings", None)
    if weights.config is not None and isinstance(settings, CoreConfig):
        _same_heads(weights.config, settings, weights.source)
    return put(model, weights, allow_missing, allow_extra)


def _same_heads(stated: CoreConfig, own: CoreConfig, source: str) -> None:
    """The number of attention heads is the one size that no tensor's shape tells."""
    section = f"model_config.{'flava' if isinstance(own, FlavaConfig) else 'flava_classification'}"
    for name in ("image_encoder", "text_encoder", "multimodal_encoder"):
        theirs, ours = (getattr(config, name).num_heads for config in (stated, own))
        if theirs != ours:
            raise UserError(
                f"{source} was trained with {theirs} attention heads in its {name.replace('_', ' ')}; set "
                f"{section}.{name}.num_heads to {theirs}, it is {ours}."
            )


def put(model: nn.Module, weights: Weights, allow_missing: Iterable[str] = (), allow_extra: Iterable[str] = ()) -> Fit:
    """Copies weights into a model with our names.

    Whole parts that the model does not have (a head, the codebook) are left out, and so is what no code uses. Learned
    positions of another image size are interpolated.

    Raises:
        UserError: something is missing, unknown or of another shape, and not allowed by name.
    """
    own = model.state_dict()
    parts = {_part(key) for key in own}
    given = {key: value for key, value in weights.tensors.items() if _part(key) in parts}
    _fit_positions(given, own, "flava.image_encoder.pos_embed")
    missing = list(allow_missing)
    if weights.style == "torchmultimodal" and weights.core_only:
        missing.append("flava.logit_scale")  # lies with the losses there
    fit = compare(own, given, weights.unknown, missing, allow_extra)
    demand(fit, weights.source)
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return fit


def _part(key: str) -> str:
    words = key.split(".")
    return ".".join(words[:2]) if words[0] == "heads" else words[0]


def _fit_positions(given: dict[str, Tensor], own: dict[str, Tensor], key: str) -> None:
    if key not in given or key not in own or given[key].shape == own[key].shape:
        return
    old, new = (tensors[key].shape[1] - 1 for tensors in (given, own))
    square = isqrt(old) ** 2 == old and isqrt(new) ** 2 == new
    if given[key].ndim == 3 and square and given[key].shape[2] == own[key].shape[2]:
        given[key] = resample_abs_pos_embed(given[key].float(), [isqrt(new)] * 2, [isqrt(old)] * 2)


def load_image_encoder(
    encoder: ImageEncoder,
    source: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
) -> Fit:
    """Starts an image encoder from a ViT: timm's, DINO's, BEiT's, Hugging Face's, or that of a FLAVA, in place.

    Source: §3.3, "we initialise from an off-the-shelf DINO model". The mask vector may be missing.

    Raises:
        UserError: as ``load_pretrained``.
    """
    tensors, _ = read_tensors(find(source, cache_dir, sha256))
    given, unknown = image_encoder_tensors(tensors, str(source))
    own = encoder.state_dict()
    _fit_positions(given, own, "pos_embed")
    fit = compare(own, given, unknown, [*allow_missing, "mask_token"], allow_extra)
    demand(fit, str(source), "the image encoder")
    encoder.load_state_dict(_fitting(given, own), strict=False)
    return fit


def load_text_encoder(
    encoder: TextEncoder,
    source: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
) -> Fit:
    """Starts a text encoder from a pre-norm one: a FLAVA's, or one with BERT's names (RoBERTa-PreLayerNorm), in place.

    Raises:
        UserError: as ``load_pretrained``; for BERT and RoBERTa themselves, which are post-norm.
    """
    tensors, _ = read_tensors(find(source, cache_dir, sha256))
    given, unknown = text_encoder_tensors(tensors, str(source))
    own = encoder.state_dict()
    fit = compare(own, given, unknown, allow_missing, allow_extra)
    if is_post_norm(fit.extra):
        raise UserError(
            f"{source} is a post-norm encoder, as BERT and RoBERTa are: its LayerNorms stand after the sum with the "
            "input, FLAVA's before attention and MLP, so that its layers would see numbers they were not trained on. "
            "To take the rest anyway: allow_extra ['*.output.LayerNorm.*'], allow_missing ['blocks.*.norm*', 'norm.*']."
        )
    demand(fit, str(source), "the text encoder")
    encoder.load_state_dict(_fitting(given, own), strict=False)
    return fit


def _fitting(given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in given.items() if key in own and own[key].shape == torch.Size(value.shape)}
