"""A run compares its recipe and its data with those of the checkpoint that it resumes from."""

import copy
import json
from types import SimpleNamespace

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import ResetConfig
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.errors import UserError
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.identity import RANDOM_SEED, RunIdentity, use_seed_of_checkpoint

CONFIG = {
    "model": "my_model",
    "model_config": {"my_model": {"layers": 2}, "another": {"layers": 3}},
    "datasets": "pairs",
    "dataset_config": {"pairs": {"data_dir": "/a", "splits": {"train": {"one": 1, "two": 0.5}}}, "another": {}},
    "training": {"seed": 1, "batch_size": 8, "num_workers": 1},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}},
    "scheduler": {"type": "warmup_cosine"},
}


class Pairs:
    """A dataset; ``content`` stands for its files."""

    def __init__(self, config, size=10, content="a", vocabulary="b" * 64):
        self.config, self.size, self.content = (
            OmegaConf.create(config.get("dataset_config").get("pairs")),
            size,
            content,
        )
        self.text_processor = SimpleNamespace(vocabulary_hash=vocabulary)

    def __len__(self):
        return 2 * self.size

    def fingerprint(self):
        return self.content * 64


class Model:
    """A model whose targets depend on a file; ``codebook`` is its hash."""

    def __init__(self, codebook):
        self.codebook = codebook

    def fingerprints(self):
        return {} if self.codebook is None else {"codebook": self.codebook}


def identity(changes=(), train=None, val=None, codebook=None):
    config = OmegaConf.create(copy.deepcopy(CONFIG))
    for key, value in dict(changes).items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    splits = {"train": {"pairs": Pairs(config, **(train or {}))}, "val": {"pairs": Pairs(config, **(val or {}))}}
    loader = MultitaskLoader(splits["train"], SimpleNamespace(names=["pairs"]), config.training.batch_size)
    data = SimpleNamespace(datasets={**splits, "test": {}}, loader=loader)
    return RunIdentity.of_run(config, data, Model(codebook))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "update_00000004"
    folder.mkdir()
    state = {"identity": identity().to_json(), "loader": {"lanes": 8, "batch_size": 8}}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(mmf_api, "log", lines.append)
    return lines


def test_nothing_is_said_about_free_changes(checkpoint, log):
    same = identity(
        {"training.num_workers": 9, "dataset_config.pairs.data_dir": "/b", "model_config.another.layers": 7}
    )
    same.compare(checkpoint, ResetConfig())
    same.log_changes(checkpoint)
    assert log == [] and not same.new_data


def test_reset_all_refuses_only_weights_with_another_meaning(checkpoint):
    reset = ResetConfig(all=True)
    changes = {"training.seed": 2, "optimizer.type": "SGD", "model_config.my_model.layers": 3}
    identity(changes, train={"size": 11}, codebook="d" * 64).compare(checkpoint, reset)
    with pytest.raises(UserError, match=r"\(vocabulary\): c{16} differs from b{16}"):
        identity(changes, train={"vocabulary": "c" * 64}).compare(checkpoint, reset)
    state = {"identity": identity(codebook="d" * 64).to_json(), "loader": {"lanes": 8, "batch_size": 8}}
    (checkpoint / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"codebook \(weights\): e{16} differs from d{16}"):
        identity(codebook="e" * 64).compare(checkpoint, reset)


def test_applied_changes_are_logged_one_a_key(checkpoint, log):
    other = identity({"optimizer.params.lr": 1e-4, "training.max_updates": 9}, val={"size": 11})
    other.compare(checkpoint, ResetConfig())
    other.log_changes(checkpoint)
    start = "Changed since update_00000004: "
    assert log == [
        f"{start}training.max_updates: not set -> 9",
        f"{start}optimizer.params.lr: 0.001 -> 0.0001",
        f"{start}dataset_config.pairs.splits.val (records): 10 -> 11",
        f"{start}dataset_config.pairs.splits.val (samples of an epoch): 20 -> 22",
    ]


@pytest.mark.parametrize(
    ("run", "key", "values", "remedy"),
    [
        ({"changes": {"training.seed": 2}}, "training.seed", "2 differs from 1", "reset.data"),
        ({"changes": {"multitasking.type": "ratios"}}, "multitasking", "ratios", "reset.data"),
        ({"train": {"size": 11}}, r"splits.train \(records\)", "11 differs from 10", "reset.data"),
        ({"train": {"content": "c"}}, r"splits.train \(content\)", "c{16} differs from a{16}", "reset.data"),
        (
            {"changes": {"dataset_config.pairs.splits.train": {"one": 1, "two": 2}}},
            r"splits.train \(weights\)",
            r"\[1.0, 2.0\] differs from \[1.0, 0.5\]",
            "reset.data",
        ),
        ({"changes": {"optimizer.type": "SGD"}}, "optimizer.type", "SGD differs from AdamW", "reset.optimizer"),
        ({"changes": {"model_config.my_model.layers": 3}}, "my_model.layers", "3 differs from 2", "resume_pretrained"),
        ({"train": {"vocabulary": "c" * 64}}, r"\(vocabulary\)", "c{16} differs from b{16}", "resume_pretrained"),
        ({"codebook": "d" * 64}, r"codebook \(weights\)", "d{16} differs from not set", "resume_pretrained"),
    ],
)
def test_refused_changes_name_the_key_and_what_allows_them(checkpoint, run, key, values, remedy):
    other = identity(**run)
    with pytest.raises(UserError, match=f"{key}.*: .*{values}.*{checkpoint}.*{remedy}=true") as error:
        other.compare(checkpoint, ResetConfig())
    assert "\n" not in str(error.value)
    resets = {"reset.data": {"data": True}, "reset.optimizer": {"optimizer": True}}
    if remedy in resets:
        other.compare(checkpoint, ResetConfig(**resets[remedy]))
        assert other.new_data == (remedy == "reset.data")
    else:
        with pytest.raises(UserError):
            other.compare(checkpoint, ResetConfig(data=True, optimizer=True, counts=True))


def test_a_batch_size_that_is_not_a_multiple_of_the_lanes_is_refused(checkpoint):
    identity({"training.batch_size": 16}).compare(checkpoint, ResetConfig())
    other = identity({"training.batch_size": 12})
    with pytest.raises(UserError, match=r"^training.batch_size: .* 8, and 12 .*8 lanes.*checkpoint.reset.data=true"):
        other.compare(checkpoint, ResetConfig())
    other.compare(checkpoint, ResetConfig(data=True))
    assert other.new_data


def test_several_refused_changes_have_one_message(checkpoint):
    other = identity({"training.seed": 2, "optimizer.type": "SGD"})
    with pytest.raises(
        UserError, match=r"training.seed: .*differ too: optimizer.type\. .*data=true.* and .*optimizer="
    ):
        other.compare(checkpoint, ResetConfig())
    with pytest.raises(UserError, match=r"^optimizer.type"):
        other.compare(checkpoint, ResetConfig(data=True))
    other.compare(checkpoint, ResetConfig(data=True, optimizer=True))


def test_a_dataset_without_text_can_be_added_and_removed(checkpoint):
    """All datasets have one vocabulary, so a dataset that is added or removed does not change the model."""
    changed = identity(train={"size": 11})
    del changed.data["dataset_config.pairs.processors (vocabulary)"]
    with pytest.raises(UserError, match=r"\(records\): 11 differs from 10.* checkpoint\.reset\.data=true") as error:
        changed.compare(checkpoint, ResetConfig())
    assert "resume_pretrained" not in str(error.value)
    changed.compare(checkpoint, ResetConfig(data=True))
    assert changed.new_data


def test_reset_data_continues_if_the_data_are_the_same(checkpoint, log):
    same = identity({"optimizer.params.lr": 1e-4})
    same.compare(checkpoint, ResetConfig(data=True))
    assert not same.new_data


def test_checkpoints_without_identity_are_refused(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    run = identity()
    with pytest.raises(UserError, match=r"earlier version.*reset.data=true.*reset.counts=true.*resume_pretrained=true"):
        run.compare(tmp_path, ResetConfig())
    run.compare(tmp_path, ResetConfig(data=True))
    assert run.new_data
    run.compare(tmp_path, ResetConfig(counts=True))


@pytest.mark.parametrize("identity_of_file", [3, {"recipe": 3, "data": {}}, {"data": {}}, {"recipe": {}, "data": []}])
def test_a_damaged_identity_is_one_sentence(tmp_path, identity_of_file):
    (tmp_path / "state.json").write_text(json.dumps({"identity": identity_of_file, "loader": {}}))
    with pytest.raises(
        UserError, match=r"state.json is not a valid state of a checkpoint \(.*\)\. Resume from another"
    ):
        identity().compare(tmp_path, ResetConfig())


def test_random_seed_is_that_of_the_checkpoint(tmp_path, log):
    checkpoints = CheckpointFolder(tmp_path)
    section = {"resume": True, "resume_file": None, "resume_pretrained": False, "reset": vars(ResetConfig())}
    config = OmegaConf.create({"training": {"seed": 77}, "checkpoint": section})
    registry.register(RANDOM_SEED, True)
    use_seed_of_checkpoint(config, checkpoints)
    assert config.training.seed == 77  # there is no checkpoint
    folder = tmp_path / "checkpoints" / "update_00000004"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"identity": identity().to_json()}))
    registry.register(RANDOM_SEED, False)
    use_seed_of_checkpoint(config, checkpoints)
    assert config.training.seed == 77
    registry.register(RANDOM_SEED, True)
    use_seed_of_checkpoint(config, checkpoints)
    assert config.training.seed == 1 and "The seed of the checkpoint, 1, is used" in log[0]
    newest = tmp_path / "checkpoints" / "update_00000005"
    newest.mkdir()
    (newest / "state.json").write_text("{")  # damaged: the run resumes from the older checkpoint
    config.training.seed = 77
    use_seed_of_checkpoint(config, checkpoints)
    assert config.training.seed == 1
    config.training.seed, config.checkpoint.resume, config.checkpoint.resume_file = 77, False, str(folder)
    use_seed_of_checkpoint(config, checkpoints)
    assert config.training.seed == 1
