"""The registered dataset: fields of its samples, splits, checks against the recipe, submission files."""

import pytest
import torch
from mmf.common.batch_collator import BatchCollator
from mmf.common.registry import registry
from mmf.common.report import Report
from omegaconf import OmegaConf
from tokenizers.processors import TemplateProcessing

from mmf_flava.compat import mmf_api
from mmf_flava.config.datasets import GLUE_TASKS
from mmf_flava.data import glue, unmasked  # noqa: F401  registers the processor
from mmf_flava.data.glue_tasks import TASKS
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError
from tests.data.conftest import DATASETS
from tests.data.glue_toys import rows, write_tsv, write_vocabulary


@pytest.fixture
def words(tmp_path):
    """Folder of a tokenizer with the words of the toy data."""
    return write_vocabulary(tmp_path / "words")


@pytest.fixture
def load(tmp_path, words):
    """``load("rte", "train", max_length=9, ...)`` through the registered builder; further keys are the section's."""

    def load(name, dataset_type="train", max_length=16, **section):
        config = OmegaConf.load(DATASETS / "glue.yaml").dataset_config.glue
        overrides = {
            "data_dir": str(tmp_path),
            "task": name,
            "processors": {"text_processor": {"params": {}}},
            **section,
        }
        overrides["processors"]["text_processor"]["params"] = {"tokenizer": str(words), "max_length": max_length}
        registry.unregister("glue_text_processor")
        builder = registry.get_builder_class("glue")()
        section = OmegaConf.merge(config, overrides)
        builder.build_dataset(section, dataset_type)
        return builder.load_dataset(section, dataset_type)

    registry.register("config", OmegaConf.create({}))
    yield load
    registry.register("config", OmegaConf.create({}))


def batch(dataset, count):
    return BatchCollator("glue", dataset.dataset_type)([dataset[n] for n in range(count)])


def test_sample_of_a_single_sentence_task(tmp_path, load):
    write_tsv(tmp_path, "cola", train=3)
    dataset = load("cola")
    sample = dataset[1]
    ids = sample.input_ids[sample.input_mask == 1]
    tokens = [dataset.text_processor.tokenizer.id_to_token(number) for number in ids]
    (text,), label = dataset.examples[1].texts, sample.targets
    assert tokens == ["[CLS]", "a", '"', *text.split('"')[1].split(), "[SEP]"]
    assert (label.item(), label.dtype, sample.id.item(), sample.sample_id) == (1, torch.long, 1, "train.tsv:2")


@pytest.mark.parametrize("max_length", [9, 11, 13, 41])
def test_pair_is_truncated_at_the_longer_sentence(tmp_path, load, words, max_length):
    """Equals the truncation of the tokenizers library if both sentences get equal lengths."""
    (tmp_path / "RTE").mkdir()
    first, second = "string module list number value", "object class name file type the of same other"
    lines = ["index\tsentence1\tsentence2\tlabel", f"0\t{first}\t{second}\tentailment", f"1\t{second}\tthe\tentailment"]
    (tmp_path / "RTE/train.tsv").write_text("\n".join(lines) + "\n")
    reference = load_tokenizer(words)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    reference.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    reference.enable_truncation(max_length, strategy="longest_first")
    dataset = load("rte", max_length=max_length)
    for n, texts in enumerate(((first, second), (second, "the"))):
        ids = dataset[n].input_ids[dataset[n].input_mask == 1].tolist()
        assert ids == reference.encode(*texts).ids


def test_targets_are_batched(tmp_path, load):
    write_tsv(tmp_path, "mnli", train=6)
    targets = batch(load("mnli"), 6).targets
    assert (targets.tolist(), targets.dtype) == ([0, 1, 2] * 2, torch.long)


def test_stsb_scores_are_divided_by_five(tmp_path, load):
    write_tsv(tmp_path, "stsb", dev=6)
    targets = batch(load("stsb", "val"), 6).targets
    assert targets.dtype == torch.float32
    assert targets.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_splits_follow_the_recipe(tmp_path, load):
    write_tsv(tmp_path, "qnli", train=5, dev=4, test=3)
    assert [len(load("qnli", split)) for split in ("train", "val", "test")] == [5, 4, 3]
    assert len(load("qnli", "test", splits={"test": "dev"})) == 4
    assert "targets" not in load("qnli", "test")[0]
    with pytest.raises(UserError, match=r"splits.val: must be one of train, dev, test, got 'validation'"):
        load("qnli", "val", splits={"val": "validation"})
    with pytest.raises(UserError, match=r"splits.val: this split of QNLI has no labels"):
        load("qnli", "val", splits={"val": "test"})


@pytest.mark.parametrize(("value", "problem"), [("MRPC", "one of"), (None, "given, one of"), (5, "a string")])
def test_unknown_task_raises(load, value, problem):
    with pytest.raises(UserError, match=f"dataset_config.glue.task: must be {problem}.*"):
        load(value)


def test_every_task_can_be_configured():
    assert set(GLUE_TASKS) == set(TASKS)


def test_unknown_key_suggests_a_close_match(load):
    with pytest.raises(UserError, match=r"'taks' is not a key of dataset_config.glue. Did you mean 'task'"):
        load("rte", taks="rte")


def test_mismatched_num_labels_raises(tmp_path, load):
    write_tsv(tmp_path, "mnli", train=3)
    recipe = {"model": "flava_classification", "model_config": {"flava_classification": {"num_labels": 2}}}
    registry.register("config", OmegaConf.create(recipe))
    with pytest.raises(
        UserError, match=r"num_labels is 2, but the labels of MNLI are entailment, neutral, contradiction\. .*to 3"
    ):
        load("mnli")


def predict_in_two_batches(dataset, scores):
    """Return the predictions for all samples, made in two batches as in MMF."""
    rows = []
    for numbers in (range(0, 2), range(2, len(scores))):
        samples = BatchCollator("glue", "test")([dataset[n] for n in numbers])
        rows += dataset.format_for_prediction(Report(samples, {"scores": scores[list(numbers)]}))
    return rows


@pytest.mark.parametrize(
    ("name", "scores", "file", "value"),
    [
        ("rte", [[2.0, 1.0], [1.0, 2.0], [0.0, -1.0]], "RTE", ["entailment", "not_entailment", "entailment"]),
        ("cola", [[2.0, 1.0], [1.0, 2.0], [0.0, -1.0]], "CoLA", ["0", "1", "0"]),
        (
            "mnli_mismatched",
            [[0.0, 0, 1], [0, 1.0, 0], [1.0, 0, 0]],
            "MNLI-mm",
            ["contradiction", "neutral", "entailment"],
        ),
        ("stsb", [[0.5], [1.25], [-0.1]], "STS-B", ["2.500", "5.000", "0.000"]),
    ],
)
def test_submission_file_is_written(tmp_path, load, monkeypatch, name, scores, file, value):
    write_tsv(tmp_path, name, test=3)
    monkeypatch.setattr(mmf_api, "save_dir", lambda: str(tmp_path / "run"))
    monkeypatch.setattr(mmf_api, "log", lambda message: None)
    dataset = load(name, "test")
    rows = dataset.on_prediction_end(predict_in_two_batches(dataset, torch.tensor(scores)))
    assert rows == [{"index": n, "prediction": prediction} for n, prediction in enumerate(value)]
    lines = (tmp_path / "run/submission" / f"{file}.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{n}\t{prediction}" for n, prediction in enumerate(value))]


def test_mnli_prediction_requires_one_subset(tmp_path, load):
    write_tsv(tmp_path, "mnli", test=3)
    assert len(load("mnli", "test")) == 6
    registry.register("config", OmegaConf.create({"evaluation": {"predict": True}}))
    with pytest.raises(UserError, match=r"Predict with dataset_config.glue.task=mnli_matched"):
        load("mnli", "test")


def test_toy_task_is_learnable():
    for texts, target in rows(glue.TASKS["rte"], 6, 0):
        assert texts[1].startswith("same") == (target == 1)
