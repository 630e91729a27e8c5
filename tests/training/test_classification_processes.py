"""``flava_classification`` on two gloo processes with every sharding and precision, compared with one process."""

import pytest
import torch
import torch.distributed as dist
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.model import (
    ClassificationConfig,
    ImageEncoderConfig,
    MultimodalEncoderConfig,
    TextEncoderConfig,
)
from mmf_flava.models.classification import FlavaClassification
from mmf_flava.training.update_losses import UpdateLosses
from tests.models.conftest import sample_list
from tests.processes import process_group, run_ranks
from tests.training.toys import SIZE, batch, build_toy, updater

FROZEN = {"freeze": ["image_encoder"], "frequency": 2, "activation_checkpointing": True}
CASES = {(sharding, bool(options)): options for sharding in ("ddp", "fsdp") for options in ({}, FROZEN)}
HALF = [(sharding, precision) for sharding in ("ddp", "fsdp") for precision in ("fp16", "bf16")]


def build(freeze=()):
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    torch.manual_seed(0)
    config = ClassificationConfig(
        image_encoder=ImageEncoderConfig(**SIZE, image_size=4, patch_size=2),
        text_encoder=TextEncoderConfig(**SIZE, vocab_size=11, max_length=6),
        multimodal_encoder=MultimodalEncoderConfig(**SIZE),
        projection_size=4,
        num_labels=2,
        freeze=list(freeze),
        lr_multiplier={"classifier": 3.0},
        losses=["cross_entropy"],
    )
    config.classifier.dropout = 0.0
    return build_toy(FlavaClassification(OmegaConf.structured(config)))


def samples(number, rows):
    fields = batch("pmd", number, rows)
    names = ("image", "input_ids", "input_mask")
    return sample_list("memes", **{name: fields[name] for name in names}, targets=fields["is_correct"])


def run(rows, freeze=(), frequency=1, updates=20, same=False, optimizer="SGD", lr=0.003, **training):
    """Train, and return the losses of each update, averaged over processes, and the state after the last one.

    Args:
        same: whether all updates have the same batch.
    """
    trained, calls, losses = updater(build(freeze), optimizer=optimizer, lr=lr, clip=1.0, **training), [], []
    trained.engine.module.train()
    trained.engine.model.losses.register_forward_hook(lambda *_: calls.append(1))
    for number in range(updates):
        batches = [samples(0 if same else 10 * number + step, rows) for step in range(frequency)]
        update = UpdateLosses(trained.engine.model, batches, torch.device("cpu"))
        for part in batches:
            trained.accumulate(part, part is batches[-1], update)
        trained.step()
        losses.append(sum(update.means.values()))
    losses = torch.stack(losses)
    if dist.is_initialized():
        dist.all_reduce(losses)
        losses /= 2
    moments = set(trained.state_dict()["state"])
    return {"losses": losses, "calls": len(calls), "weights": trained.model_state(), "moments": moments}


def process(rank: int, folder: str) -> None:
    with process_group(rank, folder) as results:
        rows = slice(3 * rank, 3 * rank + 3)
        results |= {case: run(rows, sharding=case[0], **options) for case, options in CASES.items()}
        half = {"freeze": FROZEN["freeze"], "updates": 12, "same": True, "optimizer": "AdamW", "lr": 0.001}
        for sharding, precision in HALF:
            results[sharding, precision] = run(rows, sharding=sharding, precision=precision, **half)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("classification"))
    run_ranks(process, (folder,), 2)
    return torch.load(f"{folder}/results", weights_only=False)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_process(found, case):
    actual, expected = found[case], run(slice(None), **CASES[case])
    torch.testing.assert_close(actual["losses"], expected["losses"], rtol=0, atol=1e-6)
    assert actual["weights"].keys() == expected["weights"].keys() and actual["moments"] == expected["moments"]
    for name, value in expected["weights"].items():
        torch.testing.assert_close(actual["weights"][name], value, rtol=0, atol=1e-6, msg=name)
    assert actual["calls"] == 20 * CASES[case].get("frequency", 1)  # the losses of a batch are computed once
    before = build().state_dict()
    unchanged = {name for name in before if torch.equal(before[name], actual["weights"][name])}
    assert ({name for name in before if "image_encoder" in name} <= unchanged) == ("freeze" in CASES[case])


@pytest.mark.parametrize(("sharding", "precision"), HALF)
def test_half_precision_learns_and_saves_frozen_weights_in_fp32(found, sharding, precision):
    result, before = found[sharding, precision], build().state_dict()
    assert result["losses"].isfinite().all() and result["losses"][-1] < result["losses"][0] - 0.05
    assert {value.dtype for value in result["weights"].values()} == {torch.float32}
    for name in before:
        if "image_encoder" in name:
            assert torch.equal(result["weights"][name], before[name])
