"""image_classification on published datasets, class folders, shards and lists, also with MMF's collator."""

import json

import pytest
import torch
from mmf.common.batch_collator import BatchCollator
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torchvision import datasets

from mmf_flava.data import class_labels, image_classification, processors  # noqa: F401 (they register)
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.data.shards import ShardWriter
from mmf_flava.errors import UserError
from tests.data.conftest import DATASETS
from tests.data.image_sets.published import WRITERS, save
from tests.evaluation.toys import ToyModel, extractor

NAME = "image_classification"


@pytest.fixture
def load(tmp_path, demo):
    """``load(split, key=value, ...)`` through the registered builder, at an image size of 24 x 24 pixels."""

    def load(split="test", **section):
        defaults = OmegaConf.load(DATASETS / f"{NAME}.yaml")
        overrides = {
            "data_dir": str(tmp_path),
            "processors": {
                "image_processor": {"params": {"image_size": 24, "patch_size": 6}},
                "text_processor": {"params": {"tokenizer": str(demo / "tokenizer")}},
            },
        }
        datasets_section = {"dataset_config": {NAME: {**overrides, **section}}}
        config = OmegaConf.merge(defaults, datasets_section).dataset_config[NAME]
        for key in ("image_processor", "text_processor"):
            registry.unregister(f"{NAME}_{key}")
        builder = registry.get_builder_class(NAME)()
        builder.build_dataset(config, split)
        return builder.load_dataset(config, split)

    return load


def batches(dataset, size=2):
    return list(build_evaluation_loader(dataset, size))


def test_published_dataset_yields_each_image_once_in_order(tmp_path, load):
    WRITERS["DTD"](tmp_path)
    dataset = load(source="DTD", splits={"test": ["train", "val"]})
    assert dataset.classes == ["banded", "zigzagged"]
    first, second = batches(dataset, 3)
    assert {"image_patch_mask", "image_for_codebook", "image_codes"}.isdisjoint(first)
    assert (first.image.shape, first.image.dtype) == ((3, 3, 24, 24), torch.float32)
    assert torch.cat([first.targets, second.targets]).tolist() == [1, 0, 1, 0]
    assert [*first.sample_id, *second.sample_id] == [
        f"dtd/dtd/images/{name}/{number}.jpg" for number in (1, 2) for name in ("zigzagged", "banded")
    ]
    assert dataset.image_processor.pixels(second.image[0]).mean() == pytest.approx(10, abs=2)


def test_samples_work_with_mmf_collator(tmp_path, load):
    WRITERS["DTD"](tmp_path)
    dataset = load("train", source="DTD", splits={"train": ["train"]}, augment=True)
    batch = BatchCollator(dataset.dataset_name, dataset.dataset_type)([dataset[n] for n in range(len(dataset))])
    assert batch.image.shape == (2, 3, 24, 24)
    assert sorted(batch.targets.tolist()) == [0, 1]
    assert (batch.dataset_name, batch.dataset_type) == (NAME, "train")


def test_train_split_equals_evaluation_unless_augmented(tmp_path, load):
    for number in range(40):
        save(tmp_path / "train" / f"{number % 4}" / f"{number:02d}.png", number % 4)
    for name in ("train/0/00.png", "train/0/04.png"):  # not uniform, so that crops differ
        (tmp_path / name).write_bytes((tmp_path / "train/3/03.png").read_bytes())
    splits = {"train": ["train"]}
    plain, augmented = load("train", splits=splits), load("train", splits=splits, augment=True)
    order = [[dataset[n].sample_id for n in range(40)] for dataset in (plain, augmented)]
    assert order[0] == sorted(order[0])
    assert order[1] != order[0]
    assert sorted(order[1]) == order[0]
    assert [plain[n + 40].sample_id for n in range(40)] == order[0]
    assert [augmented[n + 40].sample_id for n in range(40)] != order[1]


def test_augmented_samples_are_crops(tmp_path, load):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    datasets.FakeData(1, (3, 64, 64))[0][0].save(tmp_path / "train" / "cat" / "1.png")
    splits = {"train": ["train"]}
    plain, augmented = load("train", splits=splits), load("train", splits=splits, augment=True)
    assert plain[0].image.equal(plain[1].image)
    assert not augmented[0].image.equal(augmented[1].image)


def test_reads_folders_shards_and_lists(tmp_path, load, demo):
    for label, name in enumerate(("cat", "dog")):
        save(tmp_path / "folder" / name / "1.png", label)
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "folder/dog/1.png", "label": 1, "id": "x"}) + "\n")
    folder = load(splits={"test": ["folder"]})
    assert folder.classes == ["cat", "dog"]
    assert batches(folder)[0].targets.tolist() == [0, 1]
    both = load(splits={"test": ["folder", "list.jsonl"]}, image_dir=str(tmp_path))
    assert both.classes is None
    assert [name for batch in batches(both) for name in batch.sample_id] == ["cat/1.png", "dog/1.png", "x"]
    shards = load(data_dir=str(demo), splits={"test": ["pairs/test"]})
    assert (len(shards), shards.classes) == (360, None)
    assert {int(shards[n].targets) for n in range(40)} == set(range(10))


def test_classes_of_a_table_are_those_of_its_column(tmp_path, load):
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    (tmp_path / "pets.csv").write_text("photo,kind,class\n0.png,dog,1\n1.png,cat,2\n2.png,dog,3\n")
    data = load(splits={"test": ["pets.csv"]}, columns={"label": "kind"})
    assert data.classes == ["cat", "dog"]
    assert [label for batch in batches(data) for label in batch.targets.tolist()] == [1, 0, 1]


def test_bad_image_is_replaced_or_left_out_and_reported(tmp_path, load):
    for label, name in enumerate(("cat", "dog")):
        save(tmp_path / "test" / name / "1.png", label)
    (tmp_path / "test" / "cat" / "1.png").write_bytes(b"<html>")
    data = load(splits={"test": ["test"]})
    assert [int(data[n].targets) for n in range(2)] == [1, 1]
    assert [[entry["sample_id"] for entry in data[n].replaced] for n in range(2)] == [["cat/1.png"], []]
    (batch,) = batches(data)
    assert batch.targets.tolist() == [1]
    assert [entry and entry["sample_id"] for entry in batch.left_out] == ["cat/1.png", None]


def test_missing_dataset_raises_one_line_error(tmp_path, load):
    with pytest.raises(UserError) as error:
        load(source="Food101", splits={"test": ["test"]})
    text = str(error.value)
    assert text.startswith(f"dataset_config.image_classification.data_dir: Food101 (test) was not found in {tmp_path}")
    assert text.endswith("or set download: true.")
    with pytest.raises(UserError, match=r"splits\.test: .*none has no records"):
        load(splits={"test": ["none"]})
    with pytest.raises(UserError, match=r"image_classification\.source: .* Did you mean 'Food101'"):
        load(source="Food11", splits={"test": ["test"]})


def test_unlisted_split_is_none_or_raises_for_training(tmp_path, load):
    assert load("val", source="Food101", splits={"test": ["test"]}) is None
    with pytest.raises(UserError, match=r"splits\.train: no paths are listed"):
        load("train", source="Food101", splits={"test": ["test"]})


def test_download_happens_before_loading(tmp_path, load, monkeypatch):
    monkeypatch.setattr(datasets.Food101, "_download", lambda self: WRITERS["Food101"](tmp_path))
    assert load(source="Food101", splits={"test": ["test"]}, download=True)[0].targets == 1


def test_paths_with_different_classes_raise(tmp_path, load):
    save(tmp_path / "one" / "cat" / "1.png", 0)
    save(tmp_path / "two" / "dog" / "1.png", 0)
    with pytest.raises(UserError, match="different classes"):
        load(splits={"test": ["one", "two"]})


def test_path_weights_raise(tmp_path, load):
    save(tmp_path / "one" / "cat" / "1.png", 0)
    with pytest.raises(UserError, match="weights are only supported for pretraining"):
        load("train", splits={"train": {"one": 1.0}})


def test_embeddings_are_cached_for_a_second_run(tmp_path, load):
    WRITERS["DTD"](tmp_path)
    model, feature_extractor = ToyModel(), extractor(folder=tmp_path / "embeddings")
    for _ in range(2):
        dataset = load(source="DTD", splits={"test": ["train", "val"]})
        features = feature_extractor.extract(model, dataset, "encoder")
        assert features.targets.tolist() == [1, 0, 1, 0]
        assert model.images == 4


def test_fingerprint_depends_on_images_and_labels(tmp_path, load):
    def write(*labels):
        lines = [
            json.dumps({"image": f"folder/{name}/1.png", "label": n}) for name, n in zip("ab", labels, strict=True)
        ]
        (tmp_path / "list.jsonl").write_text("\n".join(lines))

    for label, name in enumerate("ab"):
        save(tmp_path / "folder" / name / "1.png", label)
    write(0, 1)
    fingerprints = [load(splits={"test": [name]}).fingerprint() for name in ("folder", "list.jsonl", "folder")]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    write(1, 0)
    assert load(splits={"test": ["list.jsonl"]}).fingerprint() != fingerprints[1]
    save(tmp_path / "folder" / "a" / "1.png", 2)
    other_image = load(splits={"test": ["folder"]}).fingerprint()
    (tmp_path / "folder" / "classes.txt").write_text("b\na\n")
    assert len({fingerprints[0], other_image, load(splits={"test": ["folder"]}).fingerprint()}) == 3


def test_fingerprint_of_published_dataset_depends_on_labels(tmp_path, load):
    WRITERS["UCF101"](tmp_path)
    dataset = load(source="UCF101", splits={"test": ["test01"]})
    first = dataset.fingerprint()
    dataset.records.labels[0] += 1
    assert dataset.fingerprint() != first


def test_fingerprint_of_shards_does_not_read_shards(load, demo):
    dataset = load(data_dir=str(demo), splits={"test": ["pairs/test"]})
    first = dataset.fingerprint()
    dataset.records.read = None
    assert dataset.fingerprint() == first


def write_folders(root, *names, images=1):
    for name in names:
        for number in range(images):
            save(root / name / f"{number}.png", number)


def write_list(path, *labels):
    """Write a list of images of one folder; a label of ... is omitted."""
    save(path.parent / "1.png", 0)
    rows = [{"image": "1.png", "id": n} | ({} if label is ... else {"label": label}) for n, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def finetuning():
    """``finetuning(num_labels)`` makes a classification model MMF's current configuration."""
    current = registry.get("config", default=None, no_warning=True)

    def register(num_labels):
        section = {
            "model": "flava_classification",
            "model_config": {"flava_classification": {"num_labels": num_labels}},
        }
        registry.register("config", OmegaConf.create(section))

    yield register
    registry.register("config", current)


def targets(dataset):
    return [int(dataset[n].targets) for n in range(len(dataset))]


def test_all_splits_have_the_numbers_of_the_training_classes(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog", "eel", "fox")
    write_folders(tmp_path / "val", "cat", "eel", "fox")
    splits = {"train": ["train"], "val": ["val"], "test": ["val"]}
    for split in ("val", "test"):
        dataset = load(split, splits=splits)
        assert dataset.classes == ["cat", "dog", "eel", "fox"]
        assert targets(dataset) == [0, 2, 3]
    assert targets(load("train", splits=splits)) == [0, 1, 2, 3]
    assert targets(load("test", splits={"test": ["val"]})) == [0, 1, 2], "the only split numbers itself"
    (tmp_path / "train" / "classes.txt").write_text("fox\ncat\ndog\neel\n")
    assert targets(load("val", splits=splits)) == [1, 3, 0]


def test_classes_may_be_listed(tmp_path, load):
    write_folders(tmp_path / "val", "cat", "fox")
    (tmp_path / "names.txt").write_text("fox\r\ndog\ncat\n")
    for classes in ("names.txt", ["fox", "dog", "cat"]):
        dataset = load("val", splits={"train": ["nowhere"], "val": ["val"]}, classes=classes)
        assert (dataset.classes, targets(dataset)) == (["fox", "dog", "cat"], [2, 0])
    for classes, words in (("none.txt", "failed to read"), (["a", "a"], "listed more than once: a"), ([], "no class")):
        with pytest.raises(UserError, match=rf"image_classification\.classes: .*{words}"):
            load("val", splits={"val": ["val"]}, classes=classes)


def test_folder_that_training_lacks_raises(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog")
    write_folders(tmp_path / "val", "cat", "cow")
    with pytest.raises(UserError, match=r"splits\.val: .*/val: the folders cow are not among the 2 classes"):
        load("val", splits={"train": ["train"], "val": ["val"]})


def test_hidden_folders_are_no_classes(tmp_path, load, finetuning):
    write_folders(tmp_path / "train", "cat", "dog", ".ipynb_checkpoints", "__MACOSX")
    finetuning(2)
    dataset = load("train", splits={"train": ["train"]})
    assert (dataset.classes, targets(dataset)) == (["cat", "dog"], [0, 1])
    finetuning(1)
    with pytest.raises(UserError, match=r"num_labels is 1, but there are 2 classes: cat, dog\. Set it to 2"):
        load("train", splits={"train": ["train"]})


def test_partly_labelled_lists_raise(tmp_path, load):
    write_list(tmp_path / "a.jsonl", ..., 1, 2, None, 0)
    for split in ("train", "val"):
        with pytest.raises(
            UserError, match=rf"splits\.{split}: .*a\.jsonl: 2 of 5 entries have no label: line 1, line 4"
        ):
            load(split, splits={split: ["a.jsonl"]})
    write_list(tmp_path / "a.jsonl", ..., ...)
    assert targets(load("test", splits={"test": ["a.jsonl"]})) == [-1, -1], "an unlabelled test split can be predicted"
    with pytest.raises(UserError, match="2 of 2 entries have no label"):
        load("train", splits={"train": ["a.jsonl"]})


def test_labels_beyond_the_classes_raise(tmp_path, load, finetuning):
    write_list(tmp_path / "a.jsonl", 0, 1, 7, 2)
    finetuning(3)
    with pytest.raises(
        UserError, match=r"1 of 4 entries have a label that is not in 0\.\.2 \(3 classes\): line 3 \(label 7\)"
    ):
        load("train", splits={"train": ["a.jsonl"]})


@pytest.mark.parametrize("label", [True, 2.5, float("inf"), -3, 2**63, [1]])
def test_invalid_labels_raise(tmp_path, load, label):
    write_list(tmp_path / "a.jsonl", 0, label, 1)
    with pytest.raises(UserError, match=r"a\.jsonl: 1 of 3 entries have an invalid label: line 2 \(label"):
        load("val", splits={"val": ["a.jsonl"]})


def test_labels_may_be_class_names(tmp_path, load):
    write_list(tmp_path / "train.jsonl", "dog", "cat", "10", "9")
    write_list(tmp_path / "val.jsonl", "10", "dog")
    splits = {"train": ["train.jsonl"], "val": ["val.jsonl"]}
    assert load("train", splits=splits).classes == ["10", "9", "cat", "dog"]
    assert targets(load("train", splits=splits)) == [3, 2, 0, 1]
    assert targets(load("val", splits=splits)) == [0, 3]
    write_list(tmp_path / "val.jsonl", "cow")
    with pytest.raises(UserError, match=r"val\.jsonl: 1 of 1 entries have an invalid label: line 1"):
        load("val", splits=splits)


def test_unlabelled_images_beside_class_folders_raise(tmp_path, load):
    write_folders(tmp_path / "train", "cat", "dog", ".")
    with pytest.raises(UserError, match=r"train: 1 of 3 entries have no label: 0\.png"):
        load("train", splits={"train": ["train"]})


def test_bad_labels_in_shards_cost_their_records(tmp_path, load, finetuning):
    save(tmp_path / "1.png", 0)
    image = (tmp_path / "1.png").read_bytes()
    with ShardWriter(tmp_path / "a.tar") as shard:
        for number, label in enumerate((b"0", b"5", b"dog", None, b"1")):
            shard.write(str(number), {"png": image} | ({} if label is None else {"cls": label}))
    finetuning(2)
    for split in ("train", "val"):
        dataset = load(split, splits={split: ["a.tar"]})
        assert targets(dataset) == [0, 1, 1, 1, 1]
        reasons = [entry["reason"] for entry in dataset[1]["replaced"]]
        assert reasons == ["unknown label", "unreadable label", "no label"]


def test_folders_beside_training_shards_need_all_classes(tmp_path, load, finetuning):
    save(tmp_path / "1.png", 0)
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("1", {"png": (tmp_path / "1.png").read_bytes(), "cls": b"2"})
    write_folders(tmp_path / "val", "cat", "eel")
    finetuning(3)
    with pytest.raises(UserError, match="2 class folders are unknown: the train split has class numbers without names"):
        load("val", splits={"train": ["a.tar"], "val": ["val"]})
    assert targets(load("val", splits={"train": ["a.tar"], "val": ["val"]}, classes=["cat", "dog", "eel"])) == [0, 2]


def test_labels_are_numbered_as_in_the_classifier_of_the_run(tmp_path, load, monkeypatch):
    """The test split lacks a class, and there is no train split."""
    for name in ("zebra", "cat"):
        save(tmp_path / "test" / name / "1.png", 1)
    monkeypatch.setattr(class_labels, "stored_classes", lambda: ("zebra", "dog", "cat"))
    (batch,) = batches(dataset := load(splits={"test": ["test"]}))
    assert (batch.targets.tolist(), dataset.classes) == ([2, 0], ["zebra", "dog", "cat"])
    report = {"sample_id": ["a", "b"], "scores": torch.tensor([[0.0, 9.0, 0.0], [50.0, 0.0, 0.0]])}
    assert dataset.format_for_prediction(report) == [
        {"id": "a", "prediction": "dog", "confidence": 0.9998},
        {"id": "b", "prediction": "zebra", "confidence": 1.0},
    ]
    with pytest.warns(UserWarning, match=r"classes of the dataset \(cat, zebra, cow\) differ from the classes that"):
        assert load(splits={"test": ["test"]}, classes=["cat", "zebra", "cow"]).classes == ["cat", "zebra", "cow"]


def test_predictions_are_numbers_without_class_names(tmp_path, load):
    save(tmp_path / "test" / "1.png", 1)
    dataset = load(splits={"test": ["test"]})
    report = {"sample_id": ["a"], "scores": torch.tensor([[0.0, 9.0, 0.0]])}
    assert dataset.format_for_prediction(report) == [{"id": "a", "prediction": 1, "confidence": 0.9998}]
