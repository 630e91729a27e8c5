"""The registered dataset: fields of its samples, splits, checks against the recipe, the benchmark's file."""

import pytest
import torch
from mmf.common.batch_collator import BatchCollator
from mmf.common.registry import registry
from mmf.common.report import Report
from omegaconf import OmegaConf
from tokenizers.processors import TemplateProcessing

from mmf_flava.compat import mmf_api
from mmf_flava.data import glue, unmasked  # noqa: F401  registers the processor
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError
from tests.data.conftest import DATASETS
from tests.data.glue_toys import rows, write_tsv, write_vocabulary


@pytest.fixture
def words(tmp_path):
    """The folder of a tokenizer of the toys' words."""
    return write_vocabulary(tmp_path / "words")


@pytest.fixture
def load(tmp_path, words):
    """``load("rte", "train", max_length=9, ...)`` through the registered builder; further keys are the section's."""

    def load(name, dataset_type="train", max_length=16, **section):
        config = OmegaConf.load(DATASETS / "glue.yaml").dataset_config.glue
        own = {"data_dir": str(tmp_path), "task": name, "processors": {"text_processor": {"params": {}}}, **section}
        own["processors"]["text_processor"]["params"] = {"tokenizer": str(words), "max_length": max_length}
        registry.unregister("glue_text_processor")
        builder = registry.get_builder_class("glue")()
        section = OmegaConf.merge(config, own)
        builder.build_dataset(section, dataset_type)
        return builder.load_dataset(section, dataset_type)

    registry.register("config", OmegaConf.create({}))
    yield load
    registry.register("config", OmegaConf.create({}))


def batch(dataset, count):
    return BatchCollator("glue", dataset.dataset_type)([dataset[n] for n in range(count)])


def test_a_sentence(tmp_path, load):
    write_tsv(tmp_path, "cola", train=3)
    dataset = load("cola")
    sample = dataset[1]
    tokens = [dataset.text_processor.tokenizer.id_to_token(number) for number in sample.input_ids[sample.input_mask]]
    (text,), label = dataset.examples[1].texts, sample.targets
    assert tokens == ["[CLS]", "a", '"', *text.split('"')[1].split(), "[SEP]"]
    assert (label.item(), label.dtype, sample.id.item(), sample.sample_id) == (1, torch.long, 1, "train.tsv:2")


@pytest.mark.parametrize("max_length", [9, 11, 13, 41])
def test_a_pair_is_cut_at_the_longer_sentence(tmp_path, load, words, max_length):
    """As the library of tokenizers does it, where both sentences can get as many."""
    (tmp_path / "RTE").mkdir()
    first, second = "string module list number value", "object class name file type the of same other"
    lines = ["index\tsentence1\tsentence2\tlabel", f"0\t{first}\t{second}\tentailment", f"1\t{second}\tthe\tentailment"]
    (tmp_path / "RTE/train.tsv").write_text("\n".join(lines) + "\n")
    oracle = load_tokenizer(words)
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    oracle.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    oracle.enable_truncation(max_length, strategy="longest_first")
    dataset = load("rte", max_length=max_length)
    for n, texts in enumerate(((first, second), (second, "the"))):
        ids = dataset[n].input_ids[dataset[n].input_mask].tolist()
        assert ids == oracle.encode(*texts).ids


def test_targets_of_a_batch(tmp_path, load):
    write_tsv(tmp_path, "mnli", train=6)
    targets = batch(load("mnli"), 6).targets
    assert (targets.tolist(), targets.dtype) == ([0, 1, 2] * 2, torch.long)


def test_scores_are_fifths(tmp_path, load):
    write_tsv(tmp_path, "stsb", dev=6)
    targets = batch(load("stsb", "val"), 6).targets
    assert targets.dtype == torch.float32
    assert targets.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_splits_are_the_recipes(tmp_path, load):
    write_tsv(tmp_path, "qnli", train=5, dev=4, test=3)
    assert [len(load("qnli", split)) for split in ("train", "val", "test")] == [5, 4, 3]
    assert len(load("qnli", "test", splits={"test": "dev"})) == 4
    assert "targets" not in load("qnli", "test")[0]
    with pytest.raises(UserError, match=r"splits.val is 'validation'; it is one of GLUE's train, dev, test"):
        load("qnli", "val", splits={"val": "validation"})
    with pytest.raises(UserError, match=r"splits.val names a split of QNLI without labels"):
        load("qnli", "val", splits={"val": "test"})


@pytest.mark.parametrize(
    ("said", "hint"), [("MRPC", "Did you mean 'mrpc'"), (None, "Known here: cola, mnli"), ("sst", "sst2")]
)
def test_an_unknown_task(load, said, hint):
    with pytest.raises(UserError, match=f"glue.task is {said!r}.*{hint}"):
        load(said)


def test_an_unknown_key(load):
    with pytest.raises(UserError, match=r"'taks' is not a key of dataset_config.glue. Did you mean 'task'"):
        load("rte", taks="rte")


def test_the_model_has_to_have_as_many_labels(tmp_path, load):
    write_tsv(tmp_path, "mnli", train=3)
    recipe = {"model": "flava_classification", "model_config": {"flava_classification": {"num_labels": 2}}}
    registry.register("config", OmegaConf.create(recipe))
    with pytest.raises(UserError, match=r"num_labels is 2, but MNLI has entailment, neutral, contradiction .*to 3"):
        load("mnli")


def test_texts_have_to_fit_the_positions(tmp_path, load):
    write_tsv(tmp_path, "rte", train=3)
    model = {"num_labels": 2, "text_encoder": {"max_length": 32}}
    recipe = {"model": "flava_classification", "model_config": {"flava_classification": model}}
    registry.register("config", OmegaConf.create(recipe))
    assert len(load("rte", max_length=32)) == 3
    with pytest.raises(
        UserError, match=r"params.max_length is 33, but .*text_encoder.max_length.* set the first to 32"
    ):
        load("rte", max_length=33)


def answers(dataset, scores):
    """The report of MMF's prediction over these samples, in two batches."""
    rows = []
    for numbers in (range(0, 2), range(2, len(scores))):
        samples = BatchCollator("glue", "test")([dataset[n] for n in numbers])
        rows += dataset.format_for_prediction(Report(samples, {"scores": scores[list(numbers)]}))
    return rows


@pytest.mark.parametrize(
    ("name", "scores", "file", "said"),
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
def test_the_benchmarks_file(tmp_path, load, monkeypatch, name, scores, file, said):
    write_tsv(tmp_path, name, test=3)
    monkeypatch.setattr(mmf_api, "save_dir", lambda: str(tmp_path / "run"))
    monkeypatch.setattr(mmf_api, "log", lambda message: None)
    rows = answers(load(name, "test"), torch.tensor(scores))
    assert rows == [{"index": n, "prediction": prediction} for n, prediction in enumerate(said)]
    lines = (tmp_path / "run/submission" / f"{file}.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{n}\t{prediction}" for n, prediction in enumerate(said))]


def test_mnlis_two_files_are_predicted_one_by_one(tmp_path, load):
    write_tsv(tmp_path, "mnli", test=3)
    assert len(load("mnli", "test")) == 6
    registry.register("config", OmegaConf.create({"evaluation": {"predict": True}}))
    with pytest.raises(UserError, match=r"predict with dataset_config.glue.task=mnli_matched"):
        load("mnli", "test")


def test_the_toys_can_be_learnt():
    for texts, target in rows(glue.TASKS["rte"], 6, 0):
        assert texts[1].startswith("same") == (target == 1)
