"""Weights of models that are not of mmf_flava."""

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.errors import UserError
from mmf_flava.weights.stock import load_stock_weights


class Toy(torch.nn.Module):
    def __init__(self, labels=2):
        super().__init__()
        self.model = torch.nn.ModuleDict({"bert": torch.nn.Linear(3, 3), "head": torch.nn.Linear(3, labels)})


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as MMF's trainer writes it, with its configuration."""
    model, file = Toy(), tmp_path / "current.ckpt"
    config = OmegaConf.create({"training": {"max_updates": 3, "lr_steps": [1]}})
    torch.save({"model": model.state_dict(), "optimizer": {}, "config": config, "num_updates": 3}, file)
    return file, model


def test_all_weights_of_a_checkpoint_of_mmf(checkpoint):
    file, trained = checkpoint
    model = Toy()
    assert not load_stock_weights(model, file).allowed
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())


def test_weights_of_another_size_need_a_pattern(checkpoint):
    file, _ = checkpoint
    with pytest.raises(UserError, match=r"current.ckpt does not match the model: 2 keys differ"):
        load_stock_weights(Toy(labels=5), file)
    assert load_stock_weights(Toy(labels=5), file, ["model.head.*"]).allowed == ["model.head.weight", "model.head.bias"]


@pytest.mark.parametrize("mapping", [{"bert": "bert"}, {"model.bert": "model.bert"}])
def test_mapped_modules_as_in_mmf(checkpoint, mapping):
    file, trained = checkpoint
    model = Toy(labels=5)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    load_stock_weights(model, file, mapping=mapping)
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key] if "bert" in key else initial[key]), key


def test_module_of_another_name(tmp_path):
    torch.save(
        {f"module.encoder.{key}": value for key, value in Toy().model["bert"].state_dict().items()}, tmp_path / "a.pth"
    )
    model = Toy()
    load_stock_weights(model, tmp_path / "a.pth", mapping={"model.bert": "encoder"})
    assert torch.equal(model.model["bert"].weight, torch.load(tmp_path / "a.pth")["module.encoder.weight"])
    with pytest.raises(
        UserError, match=r"^checkpoint.pretrained_state_mapping: .* no equal weights in the modules image"
    ):
        load_stock_weights(model, tmp_path / "a.pth", mapping={"image": "encoder"})
