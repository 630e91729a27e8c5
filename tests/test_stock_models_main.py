"""A model and two datasets of MMF's main branch train round robin beyond their first epoch.

None of them is ours. ``cnn_lstm`` is MMF's smallest model and downloads nothing; ``clevr`` and ``mmimdb`` have the
fields that it needs.
"""

import re

import pytest

from tests.finetuning.stock_toys import ANSWERS, RECIPE, write_clevr, write_mmimdb, write_recipe, write_vocabularies
from tests.mmf_versions import needs_main

pytestmark = needs_main

MMIMDB = {
    "image_key": "image",
    "processors": {
        "text_processor": {
            "type": "vocab",
            "params": {
                "max_length": 10,
                "vocab": {"type": "random", "vocab_file": "words.txt", "embedding_name": None},
            },
        },
        "answer_processor": ANSWERS,
        "image_processor": {"params": {"transforms": ["ToTensor"]}},
    },
}


@pytest.fixture
def recipe(tmp_path) -> str:
    data = tmp_path / "cache" / "data"
    for split, size in (("train", 12), ("val", 6), ("test", 6)):
        write_clevr(data, split, size)
        write_mmimdb(data, "dev" if split == "val" else split, size)
    write_vocabularies(data)
    sections = {
        "multitasking": {"type": "round_robin"},
        "dataset_config": {**RECIPE["dataset_config"], "mmimdb": MMIMDB},
        "training": {"trainer": "mmf", "log_interval": 1, "evaluation_interval": 5, "checkpoint_interval": 5},
    }
    return str(write_recipe(tmp_path / "stock.yaml", **sections))


def losses(log: str, split: str) -> dict[int, dict[str, float]]:
    """Return the values of a split in MMF's log: ``{update: {"clevr/logit_bce": ...}}``."""
    values = {}
    for update, rest in re.findall(r"progress: (\d+)/\d+, (.*)", log):
        named = {name: float(value) for name, value in re.findall(rf"{split}/([\w/]+): ([-\w.]+)", rest)}
        if named:
            values[int(update)] = named
    return values


def test_two_datasets_train_beyond_their_first_epoch_and_resume(mmf, recipe, tmp_path):
    """An epoch has 6 updates of 4 samples: 13 updates exceed two epochs, and 20 exceed three."""
    cache = {"MMF_CACHE_DIR": str(tmp_path / "cache")}
    # MMF reads model and dataset from the command line only, and true as a string
    options = ["model=cnn_lstm", "dataset=clevr,mmimdb", "training.batch_size=4", "training.tensorboard=False"]
    result = mmf("mmf_run", *options, "training.max_updates=13", config=recipe, **cache)
    assert result.returncode == 0, result.stderr[-3000:]
    log = (tmp_path / "run" / "train.log").read_text()
    train = losses(log, "train")
    assert list(train) == list(range(1, 14))
    assert {"clevr/logit_bce", "mmimdb/logit_bce"} <= set(train[13])
    assert all(0 < value < 10 for named in train.values() for value in named.values())  # neither NaN nor infinite
    assert train[13]["total_loss"] < train[1]["total_loss"]
    assert list(losses(log, "val")) == [5, 10]
    (tested,) = losses(log, "test").values()  # of the best update
    assert {"clevr/multilabel_micro_f1", "mmimdb/multilabel_micro_f1"} <= set(tested)

    result = mmf("mmf_run", *options, "training.max_updates=20", "checkpoint.resume=True", config=recipe, **cache)
    assert result.returncode == 0, result.stderr[-3000:]
    resumed = losses((tmp_path / "run" / "train.log").read_text(), "train")
    assert max(resumed) == 20 and all(0 < value < 10 for value in resumed[20].values())
    assert (tmp_path / "run" / "models" / "model_20.ckpt").is_file()
