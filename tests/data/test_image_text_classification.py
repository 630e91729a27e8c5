"""The user's own data: samples of each task, classes, inputs, predictions, and the config keys set by the data."""

import pytest
import torch

from mmf_flava.data import own_data
from mmf_flava.data.collate import collate
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from tests.data.own_toys import keys, write_csv, write_image, write_own

PREDICT = {"run_type": "test", "evaluation": {"predict": True}}
MODEL = "flava_classification"


def section(dataset):
    return dataset.run.model_config[MODEL]


def test_images_and_titles_with_labels_by_name(tmp_path, own):
    write_own(tmp_path, ["b", "a", " c "] * 20)
    train, val, test = (own(split) for split in ("train", "val", "test"))
    assert train.size + val.size + test.size == 60
    assert train.classes == ["a", "b", "c"] == val.classes
    sample = train[0]
    assert (sample.image.shape, sample.input_ids.shape) == ((3, 8, 8), (8,))
    assert sample.text.startswith("a ")
    number = int(sample.sample_id.removesuffix(".png"))
    assert int(sample.targets) == (1, 0, 2)[number % 3]
    assert (section(train).num_labels, section(train).losses) == (3, [{"type": "cross_entropy"}])
    assert list(train.run.evaluation.metrics) == ["accuracy", "macro_f1"]
    batch = next(iter(build_evaluation_loader(test, 4)))
    assert (batch.image.shape[1:], batch.targets.dtype) == ((3, 8, 8), torch.int64)


def test_numbers_are_class_names_in_numeric_order(tmp_path, own):
    write_own(tmp_path, [1, 10, 2] * 10)
    train = own("train")
    assert train.classes == ["1", "2", "10"]
    by_key = dict(zip(keys(train), train.targets, strict=True))
    assert all(target == (0, 2, 1)[int(key.removesuffix(".png")) % 3] for key, target in by_key.items())
    assert section(train).num_labels == 3


def test_listed_classes_may_be_given_by_number(tmp_path, own):
    write_own(tmp_path, [0, 1] * 15)
    train = own("train", classes=["no", "yes"])
    assert train.classes == ["no", "yes"]
    assert {*train.targets} == {0, 1}


def test_multi_label(tmp_path, own):
    write_own(tmp_path, ["red, old", "old", "['red', 'new']", "[]", ""] * 8)
    train = own("train", task="multi_label")
    assert train.classes == ["new", "old", "red"]
    by_key = dict(zip(keys(train), train.targets, strict=True))
    expected = ([1, 2], [1], [0, 2], [])
    for key, targets in by_key.items():
        number = int(key.removesuffix(".png")) % 5
        assert number < 4 and sorted(targets) == expected[number]  # records without a label are left out
    index = next(n for n, target in enumerate(train.targets) if sorted(target) == [1, 2])
    assert train.read_record(index)["targets"].tolist() == [0, 1, 1]
    assert section(train).losses == [{"type": "logit_bce"}]
    predicted = {"sample_id": ["x"], "scores": torch.tensor([[9.0, -9.0, 0.1]])}
    assert train.format_for_prediction(predicted) == [
        {
            "id": "x",
            "prediction": "new,red",
            "probability_new": 0.9999,
            "probability_old": 0.0001,
            "probability_red": 0.525,
        }
    ]


def test_regression_is_trained_on_standardised_values(tmp_path, own):
    write_own(tmp_path, [str(1000 + n) for n in range(40)])
    train = own("train", task="regression")
    mean, deviation = train.target_scale
    key = keys(train)[0]
    assert train.targets[0] * deviation + mean == pytest.approx(1000 + int(key.removesuffix(".png")))
    assert torch.tensor(train.targets).std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert (section(train).num_labels, section(train).losses) == (1, [{"type": "mse"}])
    row = train.format_for_prediction({"sample_id": ["x"], "scores": torch.tensor([[0.0]])})
    assert row == [{"id": "x", "prediction": pytest.approx(mean, rel=1e-5)}]


def test_texts_only_and_images_only(tmp_path, own):
    rows = [(f"a {'red' if n % 2 else 'blue'} box {n}", n % 2) for n in range(40)]
    write_csv(tmp_path / "texts.csv", ["text", "label"], rows)
    texts = own("train", data_dir=str(tmp_path / "texts.csv"))
    assert texts.classifier_inputs == ("text",)
    assert "image" not in texts[0] and texts[0].text.startswith("a ")
    for n in range(40):
        write_image(tmp_path / "folders" / ("cat" if n % 2 else "dog") / f"{n}.png", n)
    images = own("train", data_dir=str(tmp_path / "folders"))
    assert (images.classifier_inputs, images.classes) == (("image",), ["cat", "dog"])
    assert "input_ids" not in images[0]
    write_own(tmp_path, ["a", "b"] * 10)
    assert own("train", processors={"image_processor": None}).classifier_inputs == ("text",)


def test_several_captions_are_a_text_pair(tmp_path, own):
    rows = [(f"a box {n}", "a cup", n % 2) for n in range(20)]
    write_csv(tmp_path / "my.csv", ["premise", "hypothesis", "label"], rows)
    sample = own("train", columns={"caption": ["premise", "hypothesis"]})[0]
    assert sample.segment_ids.sum() > 0


def test_an_image_without_a_title_has_an_empty_text(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 20)
    text = (tmp_path / "my.csv").read_text().replace("a red box", "")
    (tmp_path / "my.csv").write_text(text)
    train = own("train")
    samples = [train.read_record(n) for n in range(train.size)]
    assert {sample["text"] for sample in samples} == {"", "a green box", "a blue box"}
    assert collate(samples, "x", "train").input_ids.shape[0] == train.size


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a"] * 20, {}, r"my\.csv: all labels are 'a'\. A classifier needs two classes"),
        ([""] * 20, {}, r"my\.csv: no record has a label"),
        (["a", "b"] * 10, {"task": "regression"}, r"no label is valid for .*task=regression; the label of .* a number"),
        (["a", "b"] * 10, {"classes": ["a"]}, r"unknown classes: b \(\d+ records\)\. The classes are a"),
        (["a", "b"] * 10, {"class_weights": {"c": 2.0}}, r"class_weights: unknown class c\. The classes are a, b"),
        (["a", "b"] * 10, {"processors": {"image_processor": None, "text_processor": None}}, "both null"),
        (["a", "b"] * 10, {"val_share": 0.5, "test_share": 0.5}, "1 together, so no records remain"),
    ],
)
def test_invalid_labels_raise(tmp_path, own, labels, options, message):
    write_own(tmp_path, labels)
    with pytest.raises(UserError, match=message):
        own("train", **options)


def test_num_labels_must_be_the_number_of_classes(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 10)
    with pytest.raises(UserError, match=r"num_labels is 3, but there are 2 classes: a, b\. Set it to 2"):
        own("train", run={"model_config": {MODEL: {"num_labels": 3}}})


def test_class_weights_set_the_loss(tmp_path, own):
    write_own(tmp_path, ["a", "a", "a", "b"] * 10)
    train = own("train", class_weights="balanced")
    (loss,) = section(train).losses
    counts = [train.targets.count(0), train.targets.count(1)]
    assert loss.type == "flava_weighted_cross_entropy"
    assert loss.params.factors == [pytest.approx(len(train.targets) / (2 * count)) for count in counts]
    assert section(own("train", class_weights={"b": 3})).losses[0].params.factors == [1, 3]
    several = own("train", task="multi_label", class_weights="balanced")
    assert section(several).losses[0].params.factors == [pytest.approx(c / d) for c, d in (counts[::-1], counts)]
    with pytest.raises(UserError, match="class_weights has no effect on the losses"):
        own("train", class_weights="balanced", run={"model_config": {MODEL: {"losses": [{"type": "cross_entropy"}]}}})


def test_counts_and_suspicious_classes_are_logged(tmp_path, own, monkeypatch):
    messages = []
    monkeypatch.setattr(own_data.mmf_api, "log", messages.append)
    write_own(tmp_path, [*["Dog", "cat"] * 20, "dog", ""])
    train = own("train", val_share=0.2, test_share=0)
    own("val", val_share=0.2, test_share=0)
    text = "\n".join(messages)
    assert "'Dog' and 'dog' are different classes" in text
    assert f"train: {train.size} records: Dog {train.targets.count(0)}, cat {train.targets.count(1)}, dog" in text
    assert "have no label and are left out: 41.png" in text
    assert "val: no record of dog." in text or "train: no record of dog." in text


def test_predictions_of_an_unlabelled_file_use_the_classes_of_the_checkpoint(tmp_path, own, monkeypatch):
    saved = SavedProcessors("run", classes=("zebra", "a, b"), classifier_inputs=("image", "text"))
    monkeypatch.setattr(own_data, "stored_classifier", lambda: saved)
    monkeypatch.setattr(own_data, "stored_classes", lambda: saved.classes)
    rows = [("7", write_image(tmp_path / f"{n}.png", n), "a cup") for n in range(3)]
    write_csv(tmp_path / "new.csv", ["id", "image", "title"], rows)
    for options in ({"splits": {"test": "new.csv"}}, {"data_dir": str(tmp_path / "new.csv")}):
        test = own("test", run=PREDICT, **options)
        batch = next(iter(build_evaluation_loader(test, 3)))
        assert batch.sample_id == ["7", "7", "7"] and "targets" not in batch
        rows = test.format_for_prediction({"sample_id": batch.sample_id, "scores": torch.tensor([[0.0, 9.0]] * 3)})
        assert rows[0] == {"id": "7", "prediction": "a, b", "probability_zebra": 0.0001, "probability_a, b": 0.9999}
        assert own("val", run=PREDICT, **options) is None  # it is not read
    assert section(test).num_labels == 2
    write_csv(tmp_path / "texts.csv", ["title"], [("a cup",)])
    with pytest.raises(UserError, match=r"texts\.csv.*no column for the image was recognised"):
        own("test", run=PREDICT, data_dir=str(tmp_path / "texts.csv"))


def test_fingerprint_depends_on_labels_and_split(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 20)
    first = own("train").fingerprint()
    assert own("train").fingerprint() == first != own("train", val_share=0.3).fingerprint()
    write_own(tmp_path, ["b", "a"] * 20)
    assert own("train", run={"x": 1}).fingerprint() != first
