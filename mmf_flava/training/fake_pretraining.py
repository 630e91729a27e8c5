"""The pretraining model, its codebook and its batches as fake tensors, which have shapes and dtypes but no values.

Call all functions under ``FakeTensorMode`` and ``torch.device("cuda")``. They also run on machines without CUDA.
"""

import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from mmf.common.sample import SampleList
from omegaconf import OmegaConf
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.model import CodebookConfig, FlavaConfig
from mmf_flava.config.processors import MAX_LENGTH, ImageProcessorConfig, MulticropConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.mask_counts import FIELD, MaskCounts
from mmf_flava.models.codebook.build import Codebook, KMeansCodebook
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.dino.pretraining import FlavaDino
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.models.flava import Flava
from mmf_flava.models.pretraining import FlavaPretraining

Model = TypeVar("Model", bound=nn.Module)
# assumed maximum number of masked tokens of a text, in standard deviations above the mean
DEVIATIONS = 4


def build_fake_model(flava: FlavaConfig, training: Any) -> FlavaPretraining:
    """Build the pretraining model with weights in its compute precision, without a codebook.

    Args:
        training: config section with the keys ``precision`` and ``sharding``.
    """
    flava = replace(flava, compile=False, codebook=replace(flava.codebook, type="cached"))
    model = FlavaPretraining(OmegaConf.structured(flava))
    model.flava, model.codebook = Flava(flava), None
    model.init_losses()
    return _in_compute_precision(model, training)


def build_fake_dino(dino: DinoConfig, training: Any) -> FlavaDino:
    """Build the model ``flava_dino`` with weights in its compute precision, in its first update.

    Args:
        training: see ``build_fake_model``.
    """
    model = FlavaDino(OmegaConf.structured(dino))
    with unset_fake_temporarily(), torch.device("meta"):  # the initialisation reads values, which fake tensors lack
        model.build()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=weight.requires_grad)
        module._buffers.update({name: torch.empty(value.shape) for name, value in module._buffers.items()})
    model.init_losses()
    model.plan_updates(1, 1)
    return _in_compute_precision(model, training)


def _in_compute_precision(model: Model, training: Any) -> Model:
    """Cast the weights of a model to its compute precision, and return the model in training mode."""
    if training.precision == "fp16":
        from mmf_flava.training import fp16  # imports fairseq, which takes a second

        fp16.use_fp32_layer_norms(model)
        if training.sharding != "fsdp":
            fp16.cast_to_fp16(model)
    if training.sharding == "fsdp":
        for parameter in model.parameters():
            if parameter.ndim:  # the scalar, the logit scale, is in the root unit and stays in fp32
                parameter.data = parameter.data.to(DTYPES[training.precision])
    return model.train()


def build_fake_codebook(config: CodebookConfig, pixels: int, num_patches: int) -> Codebook:
    """Build the codebook of type ``dvae`` or ``kmeans`` without its weights.

    Args:
        pixels: side length in pixels of the codebook's input images.
        num_patches: number of codes per image.
    """
    if config.type == "dvae":
        sizes = (config.vocab_size, config.hidden_size, config.num_groups, config.num_blocks_per_group)
        return DalleEncoder(*sizes, dtype=config.dtype, channels_last=config.channels_last)
    shape = (config.vocab_size, 3 * (pixels // math.isqrt(num_patches)) ** 2)
    with unset_fake_temporarily(), torch.device("cpu"):
        codebook = KMeansCodebook(torch.zeros(shape))  # hashes the values, which fake tensors lack
    codebook.centroids = torch.empty(shape)
    return codebook


def build_fake_crops(dataset: Any, size: int) -> SampleList:
    """Return a batch of crops for DINO; see ``build_fake_batch``."""
    params = parse_section(MulticropConfig, dataset.processors.image_processor.params, "image_processor.params")
    batch = SampleList()
    batch.add_field("crops_global", torch.empty(size, 2, 3, params.global_size, params.global_size))
    if params.num_local:
        batch.add_field("crops_local", torch.empty(size, params.num_local, 3, params.local_size, params.local_size))
    batch.dataset_name, batch.dataset_type = "fake", "train"
    return batch


def build_fake_batch(dataset: Any, size: int) -> SampleList:
    """Return the largest batch of a dataset: all texts have ``max_length`` tokens, and all image-text pairs match.

    The batch always contains image codes, so that the model does not run the codebook. It also contains the codebook's
    input images, unless the dataset has cached codes.

    Args:
        dataset: config section ``dataset_config.NAME``; its processors determine the fields of the batch.
        size: number of samples.
    """
    batch, patches, tokens = SampleList(), [0] * size, [0] * size
    image, text = (dataset.processors.get(f"{name}_processor") for name in ("image", "text"))
    if image is not None:
        params = parse_section(ImageProcessorConfig, image.params, "image_processor.params")
        side, num_patches = params.image_size, (params.image_size // params.patch_size) ** 2
        patches = [params.mask.block_sizes(num_patches)[0] if params.mask is not None else 0] * size
        batch.add_field("image", torch.empty(size, 3, side, side))
        batch.add_field("image_patch_mask", torch.empty(size, num_patches, dtype=torch.bool))
        batch.add_field("image_codes", torch.empty(size, num_patches, dtype=torch.long))
        if (pixels := params.codebook_size) is not None and not dataset.get("codes"):
            batch.add_field("image_for_codebook", torch.empty(size, 3, pixels, pixels))
    if text is not None:
        multiple, tokens = text.params.pad_to_multiple, _masked_tokens(text.params, size)
        length = math.ceil((text.params.max_length or MAX_LENGTH) / multiple) * multiple
        for name in ("input_ids", "input_ids_masked", "lm_label_ids"):
            batch.add_field(name, torch.empty(size, length, dtype=torch.long))
        batch.add_field("input_mask", torch.empty(size, length, dtype=torch.bool))
    if image is not None and text is not None:
        batch.add_field("is_correct", torch.empty(size, dtype=torch.long))
    batch.add_field(FIELD, MaskCounts(patches, tokens, [True] * size))
    batch.dataset_name, batch.dataset_type = "fake", "train"
    return batch


def _masked_tokens(text: Any, size: int) -> list[int]:
    """Return the number of masked tokens per text: the assumed maximum for the first text, the mean for all others."""
    maskable = (text.max_length or MAX_LENGTH) - 2
    mean = maskable * text.mask_probability
    deviation = 0.0 if text.whole_word else math.sqrt(mean * (1 - text.mask_probability))
    return [min(round(mean + DEVIATIONS * deviation), maskable)] + [round(mean)] * (size - 1)
