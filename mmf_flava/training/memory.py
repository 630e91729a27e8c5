"""Estimate of the memory that each process of a pretraining run needs. It requires no GPU, data or weights.

Not included: the CUDA context, buffers of NCCL and cuBLAS, workspaces of cuDNN, fragmentation, and evaluations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmf_flava.compat import mmf_api
from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.model import FlavaConfig
from mmf_flava.config.schema import parse_section, to_dict
from mmf_flava.data.mask_counts import FIELD
from mmf_flava.errors import UserError
from mmf_flava.models.codebook.build import Codebook
from mmf_flava.models.codebook.frozen import CHUNK_SIZE
from mmf_flava.training.activations import SavedBytes, count_saved, peak_bytes
from mmf_flava.training.fake_pretraining import (
    build_fake_batch,
    build_fake_codebook,
    build_fake_crops,
    build_fake_dino,
    build_fake_model,
)

# an estimate may use this fraction of an accelerator's memory; the rest is for memory that it does not include
USABLE = 0.9
FP32, GIGABYTE = 4, 10**9  # bytes
GLOBAL_CROPS = 2  # of an image, for DINO
CODE_LOSSES = {"mim", "mmm_image"}


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory in bytes that one process needs for an update on the dataset with the highest memory use.

    weights: the fp32 weights. With fp16, these are the master weights; with FSDP, this process's shard.
    compute_copies: half-precision copies of the weights; with FSDP, the gathered weights.
    gradients: all gradients, including DDP's buckets, the fp32 copies of fp16 gradients, and, with FSDP, the unsharded
        gradients of one unit (of all units if ``update_frequency`` is greater than 1).
    optimizer: the optimizer's state.
    codebook: weights of the image codebook.
    codebook_activations: peak memory of the codebook's activations while it encodes a chunk of images.
    activations: tensors saved for the backward pass.
    losses: temporary tensors of the largest masked prediction loss, and embeddings and logits of the contrastive loss;
        of DINO, gradients of the student's logits, and the teacher's logits and probabilities.
    batch: the batch on the device.
    """

    dataset: str
    batch_size: int
    weights: int
    compute_copies: int
    gradients: int
    optimizer: int
    codebook: int
    codebook_activations: int
    activations: int
    losses: int
    batch: int

    @property
    def components(self) -> dict[str, int]:
        """Memory in bytes of each component, e.g. ``weights`` or ``gradients``."""
        return {name: size for name, size in asdict(self).items() if name not in ("dataset", "batch_size")}

    @property
    def total(self) -> int:
        """Sum of the components: an upper bound, because they do not all reach their maximum at the same time."""
        return sum(self.components.values())

    def fits(self, accelerator_bytes: float) -> bool:
        """Return whether ``total`` is at most 90% (``USABLE``) of an accelerator's memory."""
        return self.total <= USABLE * accelerator_bytes

    def format(self) -> str:
        """Return the total and the components in GB (10^9 bytes)."""
        title = f"{self.total / GIGABYTE:.1f} GB per process for a batch of {self.batch_size} samples of {self.dataset}"
        return "\n".join([title, *(f"  {name}: {size / GIGABYTE:.2f} GB" for name, size in self.components.items())])


def estimate_memory(config: Any, processes: int) -> MemoryEstimate:
    """Estimate the memory of each process of a pretraining run.

    Args:
        config: a recipe from ``read_recipe``.
        processes: number of processes, one per accelerator.

    Raises:
        UserError: the recipe's model is neither ``flava`` nor ``flava_dino``.
    """
    if config.model == "flava_dino":
        return _estimate_dino(config, processes)
    if config.model != "flava":
        raise UserError(
            f"model: {config.model} is not supported. Memory can be estimated only for the models flava and flava_dino."
        )
    section = {key: value for key, value in to_dict(config.model_config.flava).items() if key != "model"}
    flava, training = parse_section(FlavaConfig, section, "model_config.flava"), config.training
    size = training.batch_size_per_device or math.ceil(training.batch_size / processes)
    autocast = training.precision == "bf16" and training.sharding != "fsdp"
    saved, by_dataset, codebook = [], {}, None
    with FakeTensorMode(), torch.device("cuda"):
        model = build_fake_model(flava, training)
        for name in (name.strip() for name in config.datasets.split(",")):
            batch = build_fake_batch(config.dataset_config[name], size)
            saved.append(count_saved(model, batch, autocast, training.activation_checkpointing))
            by_dataset[name] = {
                "activations": saved[-1].activations,
                "losses": _loss_bytes(flava, model.needs, batch, saved[-1].logits, processes),
                "batch": _bytes(batch.values()),
                "codebook_activations": 0,
            }
            if "image_for_codebook" in batch and flava.codebook.type != "cached":
                pixels, num_patches = batch["image_for_codebook"].shape[-1], batch["image_patch_mask"].shape[1]
                codebook = build_fake_codebook(flava.codebook, pixels, num_patches)
                if CODE_LOSSES & {*model.needs}:
                    by_dataset[name]["codebook_activations"] = _chunk_bytes(codebook, batch)
    name = max(by_dataset, key=lambda name: sum(by_dataset[name].values()))
    codebook_bytes = 0 if codebook is None else _bytes([*codebook.parameters(), *codebook.buffers()])
    state = _state_bytes(dict(model.named_parameters()), config, saved, processes)
    return MemoryEstimate(name, size, codebook=codebook_bytes, **state, **by_dataset[name])


def _estimate_dino(config: Any, processes: int) -> MemoryEstimate:
    section = {key: value for key, value in to_dict(config.model_config.flava_dino).items() if key != "model"}
    dino, training = parse_section(DinoConfig, section, "model_config.flava_dino"), config.training
    size = training.batch_size_per_device or math.ceil(training.batch_size / processes)
    autocast = training.precision == "bf16" and training.sharding != "fsdp"
    saved, by_dataset = [], {}
    with FakeTensorMode(), torch.device("cuda"):
        model = build_fake_dino(dino, training)
        for name in (name.strip() for name in config.datasets.split(",")):
            batch = build_fake_crops(config.dataset_config[name], size)
            saved.append(count_saved(model, batch, autocast, training.activation_checkpointing))
            crops = sum(batch[key].shape[1] for key in ("crops_global", "crops_local") if key in batch)
            by_dataset[name] = {
                "activations": saved[-1].activations,
                "losses": FP32 * size * dino.head.out_dim * (2 * crops + 2 * GLOBAL_CROPS),
                "batch": _bytes(batch.values()),
                "codebook_activations": 0,
            }
    name = max(by_dataset, key=lambda name: sum(by_dataset[name].values()))
    state = _state_bytes(dict(model.named_parameters()), config, saved, processes)
    return MemoryEstimate(name, size, codebook=0, **state, **by_dataset[name])


def _chunk_bytes(codebook: Codebook, batch: Any) -> int:
    images, mask = batch["image_for_codebook"][:CHUNK_SIZE], batch["image_patch_mask"][:CHUNK_SIZE]
    return peak_bytes(lambda: codebook.codes_at(images, mask, batch[FIELD].patches[:CHUNK_SIZE]))


def _loss_bytes(flava: FlavaConfig, needs: Iterable[str], batch: Any, logits: int, processes: int) -> int:
    total = 2 * FP32 * logits  # the gradients of the logits and of their log-softmax
    if processes > 1 and "contrast" in needs and "is_correct" in batch:
        size = len(batch["is_correct"])
        # for both modalities: embeddings of all processes and their gradients, and logits and their gradients
        total += 2 * 2 * FP32 * size * processes * (flava.projection_size + size)
    return total


def _state_bytes(
    weights: Mapping[str, nn.Parameter], config: Any, saved: Sequence[SavedBytes], processes: int
) -> dict[str, int]:
    """Return the bytes of weights, gradients and optimizer state.

    Parameters that no dataset trains have neither gradients nor optimizer state, but DDP's buckets include them.
    """
    training, sharding = config.training, config.training.sharding
    trained = [weights[name] for name in frozenset[str]().union(*(counted.trained for counted in saved))]
    size, trained_size = (FP32 * sum(weight.numel() for weight in group) for group in (weights.values(), trained))
    masters = trained_size if training.precision == "fp16" else 0  # fairseq keeps the master weights' gradients
    state = {"weights": size, "optimizer": round(_optimizer_ratio(config) * trained_size)}
    if sharding == "fsdp":
        state |= {"gradients": trained_size + masters}
        state = {name: math.ceil(value / processes) for name, value in state.items()}
        gathered, largest = _gathered_bytes(weights)
        gradients = state["gradients"] + (_bytes(trained) if training.update_frequency > 1 else largest)
        return {**state, "compute_copies": gathered, "gradients": gradients}
    half = _bytes(weight for weight in weights.values() if weight.dtype != torch.float32)
    return {
        **state,
        "compute_copies": half + max(counted.weight_copies for counted in saved),
        "gradients": _bytes(trained) + masters + (_bytes(weights.values()) if sharding == "ddp" else 0),
    }


def _gathered_bytes(weights: Mapping[str, nn.Parameter]) -> tuple[int, int]:
    """Return the bytes of the FSDP units that are gathered at the same time, and the bytes of the largest unit.

    At most one block of each encoder and all units that are not blocks are gathered at the same time.
    """
    units: dict[str, int] = {}  # names as in fsdp.py: flava.ENCODER, flava.ENCODER.blocks.N, heads.NAME
    for name, weight in weights.items():
        unit = ".".join(name.split(".")[: 4 if ".blocks." in name else 2])
        units[unit] = units.get(unit, 0) + _bytes([weight])
    blocks = {name.rpartition(".")[0]: size for name, size in units.items() if ".blocks." in name}
    return sum(size for name, size in units.items() if ".blocks." not in name) + sum(blocks.values()), max(
        units.values()
    )


def _optimizer_ratio(config: Any) -> float:
    """Return the number of optimizer state elements per parameter element, measured in one step of the optimizer."""
    parameter = nn.Parameter(torch.zeros(8, 8))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = mmf_api.build_optimizer([{"params": [parameter]}], config)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(value.numel() for value in values if value.ndim) / parameter.numel()


def _bytes(values: Iterable[Any]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
