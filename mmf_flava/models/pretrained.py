"""``load_pretrained``: build FLAVA with the configuration of pretrained weights and load the weights."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmf_flava.config.model import CodebookConfig, FlavaConfig
from mmf_flava.models.codebook.build import KMeansCodebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.flava import Flava
from mmf_flava.packages import check_installed
from mmf_flava.weights.loading import copy_weights
from mmf_flava.weights.sources import Weights, read_weights


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
    """Return FLAVA with pretrained weights, in eval mode. No pickled code is executed.

    Args:
        source: local file or folder, http(s) URL, or Hugging Face model ID (``facebook/flava-full``) of weights in
            the format of Hugging Face, torchmultimodal, the original MMF code or mmf_flava.
        heads: False returns the core model (``Flava``), True the pretraining model with heads, losses and codebook,
            which needs MMF.
        allow_missing: patterns of mmf_flava's parameter names that may be missing or have another shape in the file;
            these parameters keep their initial values.
        allow_extra: patterns of keys in the file that are ignored if the model does not have them.
        config: model configuration; default: the stored configuration, otherwise it is inferred from tensor shapes.
        num_heads: number of attention heads, used if the source does not store it; default: hidden size / 64.
        sha256: expected SHA-256 of the downloaded file.
        cache_dir: download folder; default: ``$MMF_CACHE_DIR/mmf_flava`` if MMF_CACHE_DIR is set, otherwise
            ``~/.cache/mmf_flava``.

    Raises:
        UserError: the source was not found, its file is unsafe or corrupt, the weights do not match the model, or MMF
            is needed and not installed.
    """
    if heads:
        check_installed("load_pretrained with heads=True", "mmf")
    weights = read_weights(source, cache_dir, sha256)
    config = config or weights.infer_config(num_heads)
    model = _build_pretraining_model(config, weights) if heads else nn.ModuleDict({"flava": Flava(config)})
    copy_weights(model, weights, allow_missing, allow_extra)
    return (model if heads else model["flava"]).eval()  # type: ignore[index]


def _build_pretraining_model(config: FlavaConfig, weights: Weights) -> nn.Module:
    """Build the MMF model ``flava`` without a trainer, with all losses and a codebook of the type in the weights."""
    from mmf.common.registry import registry
    from mmf.utils.env import setup_imports

    setup_imports()  # registers the losses of MMF and, through compat, the losses of mmf_flava
    if registry.get("config", None, no_warning=True) is None:  # MMFLoss reads evaluation.predict
        registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    config = replace(
        config, codebook=CodebookConfig(vocab_size=config.codebook.vocab_size), losses=FlavaConfig().losses
    )
    model = registry.get_model_class("flava")(OmegaConf.structured(config))
    model.build()
    model.init_losses()
    model.codebook = _build_codebook(weights.tensors)
    return model


def _build_codebook(tensors: dict[str, Tensor]) -> nn.Module | None:
    """Build a codebook of the type and size in ``tensors``, without its values; None if ``tensors`` has no codebook."""
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
