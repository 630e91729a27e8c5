"""Stock models of MMF: what is refused, parameter groups, tied weights in checkpoints, BatchNorm on two processes."""

import json

import pytest
import torch
import torch.distributed as dist
from mmf.common.registry import registry
from safetensors import safe_open
from safetensors.torch import save_model
from torch import nn

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import EvaluationConfig, TrainingConfig
from mmf_flava.data.codes import OPENED_CODES
from mmf_flava.errors import UserError
from mmf_flava.training import model_interface
from mmf_flava.training.callbacks import TrainerAttributes
from mmf_flava.training.checkpoint import GatheredState, load_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.sharding import build_engine
from mmf_flava.weights.loading import load_checkpoint_weights
from mmf_flava.weights.weight_files import read_safetensors
from tests.processes import run_ranks
from tests.training.stock_toy import NAME, StockToy, build, words
from tests.training.toys import toy, updater


def test_a_training_batch_has_losses_with_a_gradient():
    model, batch = build(), words(0)
    model_interface.check_losses(model, batch, model(batch)["losses"])
    for losses, message in (
        ({}, r"has no losses for dataset 'words': .* field targets"),
        ({"own": 0.5}, r"the loss own is no tensor with a gradient"),
        ({"own": torch.tensor(0.5)}, r"the loss own is no tensor with a gradient"),
    ):
        with pytest.raises(UserError, match=message):
            model_interface.check_losses(model, batch, losses)


def train(trained, updates, rows=slice(None), first=0):
    for number in range(first, first + updates):
        trained.accumulate(words(number, rows))
        assert trained.step()


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("sharding", "fsdp", "Set training.sharding: ddp"),
        ("precision", "fp16", "Set training.precision: bf16 or fp32"),
        ("activation_checkpointing", True, "Set it to false"),
    ],
)
def test_stock_models_are_not_sharded_cast_or_checkpointed(key, value, remedy):
    with pytest.raises(UserError, match=rf"^training\.{key}.* {NAME} does not.*{remedy}"):
        model_interface.check_stock_model(NAME, TrainingConfig(**{key: value}))
    for name in ("flava", "flava_classification"):
        model_interface.check_stock_model(name, TrainingConfig(**{key: value}))
    model_interface.check_stock_model(NAME, TrainingConfig(sharding="ddp", precision="bf16"))


@pytest.mark.parametrize("section", model_interface.EVALUATION_METHODS)
def test_evaluations_need_the_methods_of_flava(section):
    evaluation = EvaluationConfig(**{section: {}})
    with pytest.raises(
        UserError, match=rf"^evaluation\.{section} needs a model that defines \w+, which {NAME} does not"
    ):
        model_interface.check_evaluations(NAME, evaluation)
    model_interface.check_evaluations("flava", evaluation)
    model_interface.check_evaluations(NAME, EvaluationConfig())


def test_defaults_of_a_model_without_the_methods():
    model = build()
    assert model_interface.shard_units(model) == model_interface.replicated_modules(model) == []
    assert model_interface.metadata(model) == model_interface.fingerprints(model) == {}
    assert model_interface.load_pretrained(model, [], [], None) == []
    assert model_interface.batch_flops(model, words(0), 1) == 0
    assert model_interface.fixed_parameters(model) == []
    model_interface.plan_updates(model, 10, 2)
    model_interface.start_update(model, 3)
    model.metadata = nn.Linear(1, 1)  # a module is no method
    assert model_interface.metadata(model) == {}


def test_flava_defines_the_methods():
    model = toy()
    assert {model.get_submodule(path) for path in model_interface.shard_units(model)} >= {*model.heads.values()}
    assert json.loads(model_interface.metadata(model)["flava_config"])["projection_size"] == 4
    registry.register(OPENED_CODES, {"pmd train": None, "pmd val": {"codebook": {"sha256": "a" * 64}}})
    assert model_interface.fingerprints(model) == {"codebook": "a" * 64}
    registry.register(OPENED_CODES, {})
    assert model_interface.fingerprints(model) == {}


def test_frozen_parameters_are_left_out_of_the_groups(monkeypatch):
    model = build()
    model.norm.weight.requires_grad_(False)
    groups = [{"params": model.embedding.parameters()}, {"params": model.norm.parameters(), "lr": 0.5}]
    groups += [{"params": list(model.unused.parameters()) * 2}]
    monkeypatch.setattr(StockToy, "get_optimizer_parameters", lambda self, config: groups, raising=False)
    trained = updater(model, lr=0.25)
    assert [len(group["params"]) for group in trained.optimizer.param_groups] == [1, 1, 2]
    assert [group["lr"] for group in trained.optimizer.param_groups] == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (lambda model: [{"params": model.parameters()}, {"params": [model.norm.bias]}], "norm.bias in two groups"),
        (lambda model: [*model.parameters(), torch.nn.Parameter(torch.ones(1))], "no parameter of the model"),
    ],
)
def test_wrong_groups_are_refused(monkeypatch, select, message):
    monkeypatch.setattr(StockToy, "get_optimizer_parameters", lambda self, config: select(self), raising=False)
    with pytest.raises(UserError, match=f"StockToy.get_optimizer_parameters returns .*{message}"):
        mmf_api.parameter_groups(build(), None)


def test_a_model_without_trained_parameters_is_refused():
    with pytest.raises(UserError, match="no parameter that requires a gradient"):
        mmf_api.parameter_groups(build().requires_grad_(False), None)


@pytest.mark.skipif(mmf_api.MMF_VERSION != "rc10", reason="MMF's main branch refuses such a model")
def test_parameters_in_no_group_are_frozen(monkeypatch):
    method = lambda self, config: self.embedding.parameters()  # noqa: E731
    monkeypatch.setattr(StockToy, "get_optimizer_parameters", method, raising=False)
    model = build()
    mmf_api.parameter_groups(model, None)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["embedding.weight"]


@pytest.mark.parametrize("background", [False, True])
def test_tied_weights_are_saved_once_and_resumed(tmp_path, background):
    trained = updater(build())
    train(trained, 3)
    folder = CheckpointFolder(tmp_path, background=background)
    state = GatheredState(trained.model_state(), model_interface.metadata(trained.engine.model))
    path = folder.save(3, state, GatheredState(trained.state_dict()), {})
    folder.wait()
    with safe_open(path / "model.safetensors", "pt") as file:
        assert "embedding.weight" in file.keys() and "output.weight" not in file.keys()  # noqa: SIM118
    assert read_safetensors(path / "model.safetensors")[0].keys() == build().state_dict().keys()
    model = build()
    load_checkpoint_weights(model, path)
    assert model.output.weight is model.embedding.weight
    for name, value in trained.engine.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.norm.num_batches_tracked == 3
    resumed = updater(model)
    load_state(path, resumed)
    train(trained, 2, first=3)
    train(resumed, 2, first=3)
    assert all(torch.equal(value, resumed.model_state()[name]) for name, value in trained.model_state().items())
    assert not getattr(model, "is_pl_enabled", False)


def test_tied_weights_of_safetensors_are_read(tmp_path):
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "model.safetensors"))
    assert read_safetensors(tmp_path / "model.safetensors")[0].keys() == model.state_dict().keys()


def test_counts_are_registered():
    class Trainer(TrainerAttributes):
        num_updates, current_iteration, current_epoch = 3, 6, 2

    Trainer.register_counts(Trainer())
    assert [registry.get(name) for name in ("num_updates", "current_iteration", "current_epoch")] == [3, 6, 2]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    model = build()
    with pytest.raises(UserError, match=r"tied weights.*embedding\.weight and output\.weight.*sharding: ddp"):
        build_engine(model, [{"params": list(model.parameters())}], TrainingConfig(sharding="fsdp"), "cpu")
    refused = updater(build(), sharding="ddp")
    with pytest.raises(UserError, match=r"training\.find_unused_parameters: .* Set it to true"):
        train(refused, 2, rows)
    model = build()
    model.unused.requires_grad_(False)
    trained = updater(model, sharding="ddp")
    train(trained, 3, rows)
    different = model.norm.running_mean.clone()
    trained.engine.broadcast_buffers()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained.accumulate(words(9, rows))
    changed = model.norm.running_mean.clone()
    trained.discard()
    skipped = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save({"local": different, "before": before, "changed": changed, "skipped": skipped}, f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def test_processes_evaluate_the_batch_statistics_of_the_first_one(tmp_path):
    run_ranks(process, (str(tmp_path),), 2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert not torch.equal(first["local"], second["local"])
    assert torch.equal(first["local"], first["before"]["norm.running_mean"])
    for result in (first, second):
        assert not torch.equal(result["changed"], result["before"]["norm.running_mean"])
        for name, value in first["before"].items():
            assert torch.equal(result["before"][name], value) and torch.equal(result["skipped"][name], value)
