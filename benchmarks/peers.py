"""The compared implementations of FLAVA at full size with random weights.

Functions of ``PEERS``, the other implementations, take (kind, batch, cached, compiled) and return the model and a
function that computes the loss.
"""

from collections.abc import Callable
from typing import Any

import torch
from batches import Batch
from torch import nn

Forward = Callable[[], torch.Tensor]


def build_mmf_flava(kind: str, batch: Batch, cached: bool, compiled: bool) -> tuple[nn.Module, Any]:
    """Build mmf_flava's pretraining model, and its batch.

    Args:
        cached: use the codes of the batch instead of running the codebook.
    """
    from mmf_flava.config.model import FlavaConfig

    settings = FlavaConfig(compile=compiled)
    model = build_pretraining(settings)
    if not cached and kind != "text":
        from mmf_flava.models.codebook.dalle_encoder import DalleEncoder

        model.codebook = DalleEncoder(settings.codebook.vocab_size)
    return model, sample_list(kind, batch, cached)


def build_pretraining(settings: Any) -> nn.Module:
    """Build mmf_flava's model with heads and losses from a ``FlavaConfig``, in the same way as MMF."""
    import mmf.utils.env
    from mmf.common.registry import registry
    from omegaconf import OmegaConf

    mmf.utils.env.setup_imports()
    from mmf_flava.models.pretraining import FlavaPretraining

    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    model = FlavaPretraining(OmegaConf.structured(settings))
    model.build()
    model.init_losses()
    return model


def sample_list(kind: str, batch: Batch, cached: bool) -> Any:
    """Return the batch in the format of mmf_flava's datasets."""
    from mmf.common.sample import SampleList

    fields = {}
    if kind != "text":
        fields |= {"image": batch.image, "image_patch_mask": batch.patch_mask}
        fields |= {"image_codes": batch.codes} if cached else {"image_for_codebook": batch.codebook_image}
    if kind != "image":
        fields |= {"input_ids": batch.ids, "input_ids_masked": batch.ids_masked}
        fields |= {"lm_label_ids": batch.labels, "input_mask": batch.mask}
    if kind == "pair":
        fields["is_correct"] = batch.match
    samples = SampleList()
    for name, value in fields.items():
        samples.add_field(name, value)
    samples.dataset_name, samples.dataset_type = kind, "train"
    return samples


def build_huggingface(kind: str, batch: Batch, cached: bool, compiled: bool) -> tuple[nn.Module, Forward]:
    """Build transformers' FlavaForPreTraining, used as documented. It does not support cached codes."""
    from transformers import FlavaConfig, FlavaForPreTraining

    model = FlavaForPreTraining(FlavaConfig())
    if compiled:
        model.compile()

    def forward() -> torch.Tensor:
        inputs = {}
        if kind != "text":
            inputs |= {"pixel_values": batch.image, "codebook_pixel_values": batch.codebook_image * 0.8 + 0.1}
            inputs |= {"bool_masked_pos": batch.patch_mask.clone()}
        if kind != "image":
            inputs |= {"input_ids": batch.ids, "input_ids_masked": batch.ids_masked}
            inputs |= {
                "attention_mask": batch.mask.long(),
                "mlm_labels": batch.labels.masked_fill(batch.labels < 0, -100),
            }
        if kind == "pair":
            inputs["itm_labels"] = batch.match
        return model(**inputs, return_loss=True, output_hidden_states=True).loss

    return model, forward


def build_torchmultimodal(kind: str, batch: Batch, cached: bool, compiled: bool) -> tuple[nn.Module, Forward]:
    """Build torchmultimodal's flava_model_for_pretraining, with random weights in the codebook."""
    from torchmultimodal.models.flava import model as flava

    encoder = flava.DalleVAEEncoder
    flava.DalleVAEEncoder = lambda **arguments: encoder(**{**arguments, "pretrained": False})
    model = flava.flava_model_for_pretraining()

    def forward() -> torch.Tensor:
        inputs = {}
        if kind != "text":
            inputs |= {"image": batch.image, "image_for_codebook": batch.codebook_image * 0.8 + 0.1}
            inputs |= {"image_patches_mask": batch.patch_mask.clone()}
        if kind != "image":
            inputs |= {"text": batch.ids, "text_masked": batch.ids_masked, "mlm_labels": batch.labels.clone()}
        if kind == "pair":
            inputs["itm_labels"] = batch.match
        output = model(**inputs, required_embedding={"pair": "mm"}.get(kind, kind))
        return torch.stack([loss for loss in output.losses.values() if loss is not None]).sum()

    return model, forward


PEERS = {"huggingface": build_huggingface, "torchmultimodal": build_torchmultimodal}
