"""Estimated memory compared with counted tensors, and with the hardware that the pretraining recipes state."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import mmf_flava.plugin  # noqa: F401  registers the losses
from mmf_flava.config.run import TrainingConfig
from mmf_flava.data.from_recipe import read_recipe
from mmf_flava.data.masking import IGNORED
from mmf_flava.errors import UserError
from mmf_flava.models import attention
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.codebook.frozen import CHUNK_SIZE
from mmf_flava.models.dino.pretraining import FlavaDino
from mmf_flava.models.pretraining import FlavaPretraining
from mmf_flava.training.activations import peak_bytes
from mmf_flava.training.memory import GIGABYTE, MemoryEstimate, estimate_memory
from mmf_flava.training.update import Updater
from tests.models.conftest import sample_list

ROOT = Path(__file__).parents[2]
PRETRAIN = ROOT / "projects" / "flava" / "configs" / "pretrain"
RECIPES = sorted(path for path in PRETRAIN.glob("*.yaml") if not path.name.startswith("demo_"))
TABLE = (ROOT / "benchmarks" / "README.md").read_text()
HARDWARE = re.compile(r"^# (\d+) accelerators? of (\d+) GB,", re.MULTILINE)
SIZE = {"hidden_size": 64, "num_layers": 3, "num_heads": 2, "mlp_size": 256}
PATCHES, MASKED_PATCHES, TOKENS, MASKED_TOKENS, VOCABULARY, CODES = 16, 6, 22, 3, 200, 100
IMAGE = {"params": {"image_size": 32, "patch_size": 8, "codebook_size": 16, "mask": {"target": MASKED_PATCHES}}}
TEXT = {"params": {"max_length": TOKENS, "pad_to_multiple": 1, "mask_probability": 0.15, "whole_word": True}}
KINDS = {"pmd": {"image": IMAGE, "text": TEXT}, "imagenet": {"image": IMAGE}, "ccnews_bookcorpus": {"text": TEXT}}
TOLERANCE = 0.1


@pytest.fixture(autouse=True)
def kernel_of_cuda(monkeypatch):
    """The estimates are for CUDA, where attention computes in the dtype of its inputs."""
    monkeypatch.setattr(attention, "SLOW_ON_CPU", ())


def recipe(datasets: str, size: int, optimizer: str = "AdamW", **training) -> OmegaConf:
    """Return the sections of a recipe of a small model that an estimate reads; ``size`` is the global batch size."""
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    processors = {name: {f"{kind}_processor": value for kind, value in KINDS[name].items()} for name in KINDS}
    model = {
        "image_encoder": {**SIZE, "image_size": 32, "patch_size": 8},
        "text_encoder": {**SIZE, "vocab_size": VOCABULARY, "max_length": TOKENS},
        "multimodal_encoder": SIZE,
        "projection_size": 32,
        "codebook": {"vocab_size": CODES},
    }
    options = {"precision": "fp32", "sharding": "none", "activation_checkpointing": False, "update_frequency": 1}
    options |= {
        "batch_size": size,
        "batch_size_per_device": None,
        "clip_gradients": False,
        "lr_scheduler": False,
        "max_updates": 4,
    }
    return OmegaConf.create(
        {
            "model": "flava",
            "datasets": datasets,
            "model_config": {"flava": model},
            "dataset_config": {name: {"codes": "cached", "processors": processors[name]} for name in KINDS},
            "training": options | training,
            "optimizer": {
                "type": optimizer,
                "params": {"lr": 1e-3} | ({"momentum": 0.9} if optimizer == "SGD" else {}),
            },
        }
    )


def batch(dataset: str, size: int):
    """Return a batch with values, of the sizes that the estimate assumes."""
    fields = {}
    if "image" in KINDS[dataset]:
        fields["image"] = torch.randn(size, 3, 32, 32)
        fields["image_patch_mask"] = (torch.arange(PATCHES) < MASKED_PATCHES).repeat(size, 1)
        fields["image_codes"] = torch.randint(CODES, (size, PATCHES))
    if "text" in KINDS[dataset]:
        ids = torch.randint(5, VOCABULARY, (size, TOKENS))
        labels = torch.where(torch.arange(TOKENS) < MASKED_TOKENS, ids, IGNORED)
        fields |= {"input_ids": ids, "input_ids_masked": ids.clone(), "lm_label_ids": labels}
        fields["input_mask"] = torch.ones(size, TOKENS, dtype=torch.bool)
    if dataset == "pmd":
        fields["is_correct"] = torch.ones(size, dtype=torch.long)
    return sample_list(dataset, **fields)


def build(config) -> FlavaPretraining:
    model = FlavaPretraining(config.model_config.flava)
    model.build()
    model.init_losses()
    return model.train()


def updater(model, config) -> Updater:
    options = {key: config.training[key] for key in ("precision", "activation_checkpointing")}
    return Updater(model, config, TrainingConfig(**options), torch.device("cpu"))


def loss(model, samples) -> Tensor:
    return sum(value.mean() for value in model(samples)["losses"].values())


def saved_bytes(model, samples) -> int:
    """Count the storages that a forward pass on the CPU saves, except weights and the batch."""
    excluded = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *tensors(samples.values()))}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # kept, so that its address is not reused
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model, samples)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in excluded)


def tensors(values) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor)]


def size_of(values) -> int:
    return sum(value.numel() * value.element_size() for value in tensors(values))


@pytest.mark.parametrize("dataset", KINDS)
@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_activations_are_the_saved_tensors_of_a_forward_pass(dataset, size, precision):
    # fsdp casts all weights; the operations that autocast casts differ between CPU and CUDA
    sharding = "fsdp" if precision == "bf16" else "none"
    config = recipe(dataset, size, precision=precision, sharding=sharding)
    model, samples = build(config), batch(dataset, size)
    if precision == "bf16":
        model.bfloat16()
    elif precision == "fp16":
        updater(model, config)  # casts the model
    estimate = estimate_memory(config, processes=1)
    assert estimate.activations == pytest.approx(saved_bytes(model, samples), rel=TOLERANCE)
    assert estimate.batch == size_of(samples.values())


@pytest.mark.parametrize("dataset", KINDS)
def test_autocast_saves_activations_and_copies_of_the_weights(dataset):
    config = recipe(dataset, 32, precision="bf16")
    model, samples = build(config), batch(dataset, 32)
    estimate = estimate_memory(config, processes=1)
    with torch.autocast("cpu", torch.bfloat16):
        counted = saved_bytes(model, samples)
    assert estimate.activations + estimate.compute_copies == pytest.approx(counted, rel=TOLERANCE)
    assert 0 < estimate.compute_copies < estimate.weights / 2


def test_batch_that_needs_most_is_estimated():
    config = recipe("imagenet,pmd,ccnews_bookcorpus", 8)
    estimate = estimate_memory(config, processes=2)
    assert (estimate.dataset, estimate.batch_size) == ("pmd", 4)
    assert estimate.activations == estimate_memory(recipe("pmd", 4), processes=1).activations


@pytest.mark.parametrize("dataset", KINDS)
@pytest.mark.parametrize("size", [32, 128])
def test_peak_of_forward_and_backward_pass(dataset, size):
    config = recipe(dataset, size)
    model, samples = build(config), batch(dataset, size)
    estimate = estimate_memory(config, processes=1)
    peak = peak_bytes(lambda: loss(model, samples).backward())
    assert estimate.activations + estimate.losses == pytest.approx(peak, rel=TOLERANCE)
    assert peak < estimate.activations + estimate.losses + estimate.gradients


@pytest.mark.parametrize("dataset", KINDS)
@pytest.mark.parametrize("size", [32, 128])
def test_peak_with_activation_checkpointing(dataset, size):
    config = recipe(dataset, size, activation_checkpointing=True)
    model, samples = build(config), batch(dataset, size)
    updater(model, config)  # enables checkpointing
    estimate = estimate_memory(config, processes=1)
    peak = peak_bytes(lambda: loss(model, samples).backward())
    needed = estimate.activations + estimate.losses
    assert peak < needed + estimate.gradients
    assert needed < 1.2 * peak
    assert estimate.activations < 0.65 * estimate_memory(recipe(dataset, size), processes=1).activations


@pytest.mark.parametrize(
    ("datasets", "precision", "optimizer"),
    [("pmd", "fp32", "AdamW"), ("imagenet", "fp32", "SGD"), ("pmd", "fp16", "SGD"), ("imagenet", "fp16", "AdamW")],
)
def test_state_is_that_of_an_update(datasets, precision, optimizer):
    config = recipe(datasets, 8, optimizer, precision=precision)
    model, samples = build(config), batch(datasets, 8)
    trained = updater(model, config)
    steps = 0
    while steps < 2:  # the first fp16 steps overflow and are skipped
        trained.accumulate(samples)
        steps += trained.step()
    trained.accumulate(samples)
    estimate = estimate_memory(config, processes=1)
    masters = set(trained.masters.values())
    gradients = [parameter.grad for parameter in {*model.parameters(), *masters}]
    assert estimate.weights == size_of(masters)
    assert estimate.compute_copies == size_of(p for p in model.parameters() if p.dtype != torch.float32)
    assert estimate.gradients == size_of(gradients)
    states = trained.optimizer.state.values()
    assert estimate.optimizer == size_of(value for state in states for key, value in state.items() if key != "step")


def test_sharding_changes_the_state():
    alone, ddp, fsdp = (
        estimate_memory(recipe("pmd", 32, sharding=sharding), processes)
        for sharding, processes in (("none", 1), ("ddp", 4), ("fsdp", 4))
    )
    assert (ddp.weights, ddp.optimizer) == (alone.weights, alone.optimizer)
    assert ddp.gradients == alone.gradients + alone.weights  # the buckets have all parameters
    assert fsdp.weights == pytest.approx(alone.weights / 4, abs=4)
    assert fsdp.optimizer == pytest.approx(alone.optimizer / 4, abs=4)
    assert alone.gradients / 4 < fsdp.gradients < alone.gradients
    assert ddp.batch_size == fsdp.batch_size == 8
    # 8 embeddings of width 32 and logits, of 4 processes: values and gradients, for both modalities
    local = estimate_memory(recipe("pmd", 8), 1)
    assert ddp.losses - local.losses == 4 * 4 * (32 * 32 + 8 * 32)


def test_gradient_accumulation_with_fsdp_keeps_the_complete_gradients():
    once, twice = (estimate_memory(recipe("pmd", 32, sharding="fsdp", update_frequency=n), processes=4) for n in (1, 2))
    complete = estimate_memory(recipe("pmd", 32), processes=1).gradients
    assert twice.gradients == pytest.approx(complete / 4 + complete, abs=4)
    assert twice.gradients > once.gradients


def test_codebook_encodes_chunks_of_images():
    config = recipe("imagenet", 256)
    config.dataset_config.imagenet.codes = None
    sizes = {"hidden_size": 16, "num_groups": 3}
    config.model_config.flava.codebook = {"type": "dvae", "path": "unread", "vocab_size": CODES, **sizes}
    estimate, cached = estimate_memory(config, processes=1), estimate_memory(recipe("imagenet", 256), processes=1)
    codebook = DalleEncoder(CODES, **sizes, channels_last=True)
    samples = batch("imagenet", CHUNK_SIZE)
    views = torch.rand(CHUNK_SIZE, 3, 16, 16)
    peak = peak_bytes(lambda: codebook.codes_at(views, samples["image_patch_mask"], [MASKED_PATCHES] * CHUNK_SIZE))
    assert estimate.codebook == size_of(codebook.parameters())
    assert estimate.codebook_activations == pytest.approx(peak, rel=TOLERANCE)
    assert estimate.batch - cached.batch == 256 * 3 * 16 * 16 * 4
    assert (cached.codebook, cached.codebook_activations) == (0, 0)


def test_format_has_all_components():
    estimate = estimate_memory(recipe("pmd", 8), processes=1)
    lines = estimate.format().splitlines()
    assert lines[0].endswith("GB per process for a batch of 8 samples of pmd")
    assert [line.split(":")[0].strip() for line in lines[1:]] == list(estimate.components)
    assert estimate.fits(estimate.total / 0.9 + 1) and not estimate.fits(estimate.total)


def test_other_models_are_not_supported():
    config = recipe("pmd", 8)
    config.model = "vilt"
    with pytest.raises(UserError, match="model: vilt is not supported"):
        estimate_memory(config, processes=1)


def dino_recipe(size: int, **training) -> OmegaConf:
    config = recipe("imagenet", size, **training)
    encoder = {**SIZE, "image_size": 32, "patch_size": 8}
    head = {"hidden_size": 64, "bottleneck_size": 16, "out_dim": 400}
    config.model, config.model_config = "flava_dino", {"flava_dino": {"image_encoder": encoder, "head": head}}
    crops = {"global_size": 32, "local_size": 16, "num_local": 3}
    config.dataset_config.imagenet.processors.image_processor = {"type": "flava_multicrop", "params": crops}
    return config


def dino(config, size: int) -> tuple[FlavaDino, object]:
    model = FlavaDino(config.model_config.flava_dino)
    model.build()
    model.init_losses()
    model.plan_updates(1, 1)
    crops = {"crops_global": torch.randn(size, 2, 3, 32, 32), "crops_local": torch.randn(size, 3, 3, 16, 16)}
    return model.train(), sample_list("imagenet", **crops)


@pytest.mark.parametrize("size", [8, 32])
def test_memory_of_dino(size):
    config = dino_recipe(size)
    model, samples = dino(config, size)
    estimate = estimate_memory(config, processes=1)
    assert estimate.activations == pytest.approx(saved_bytes(model, samples), rel=TOLERANCE)
    assert estimate.batch == size_of(samples.values())
    peak = peak_bytes(lambda: loss(model, samples).backward())
    assert 0.9 * peak < estimate.activations + estimate.losses + estimate.gradients < 1.3 * peak
    student = sum(parameter.numel() for parameter in model.student.parameters())
    assert (estimate.weights, estimate.gradients, estimate.optimizer) == (8 * student, 4 * student, 8 * student)


@cache
def estimate_of(sections: str, processes: int) -> MemoryEstimate:
    """Estimate a recipe; recipes that differ in initial weights only are estimated once."""
    return estimate_memory(OmegaConf.create(sections), processes)


def sections_of(config) -> str:
    """Return the sections of a recipe that determine its memory, as YAML."""
    model = OmegaConf.to_container(config.model_config[config.model], resolve=True)
    for encoder in {"image_encoder", "text_encoder"} & {*model}:
        model[encoder]["pretrained"] = None
    keys = ("precision", "sharding", "activation_checkpointing", "update_frequency", "batch_size")
    training = {key: config.training[key] for key in (*keys, "batch_size_per_device")}
    datasets = {
        name: OmegaConf.to_container(config.dataset_config[name], resolve=True) for name in config.datasets.split(",")
    }
    optimizer = OmegaConf.to_container(config.optimizer, resolve=True)
    sections = {"model": config.model, "datasets": config.datasets, "training": training, "optimizer": optimizer}
    return OmegaConf.to_yaml(sections | {"model_config": {config.model: model}, "dataset_config": datasets})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_fits_the_hardware_of_its_header(path):
    """The estimate is at most 90 % of the accelerators' memory, and the table in benchmarks/README.md is current."""
    processes, gigabytes = map(int, HARDWARE.search(path.read_text()).groups())
    estimate = estimate_of(sections_of(read_recipe(str(path))), processes)
    assert estimate.fits(gigabytes * GIGABYTE), estimate.format()
    row = re.search(
        rf"^\| {path.stem} \| {processes} x {gigabytes} GB \|.* ([\d.]+) GB \| yes \|$", TABLE, re.MULTILINE
    )
    assert float(row[1]) == pytest.approx(estimate.total / GIGABYTE, rel=0.02)


def test_batch_of_mim_does_not_fit_without_gradient_accumulation():
    overrides = ["training.batch_size=8192", "training.update_frequency=1"]
    estimate = estimate_of(sections_of(read_recipe(str(PRETRAIN / "mim.yaml"), overrides)), 8)
    assert not estimate.fits(80 * GIGABYTE)
