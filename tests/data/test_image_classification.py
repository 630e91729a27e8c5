"""image_classification on published datasets, class folders, shards and lists, also with MMF's collator."""

import json
from functools import partial

import pytest
import torch
from mmf.common.batch_collator import BatchCollator
from torchvision import datasets

from mmf_flava.data import class_labels, image_classification, processors  # noqa: F401 (they register)
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.errors import UserError
from tests.data.image_sets.published import WRITERS, save
from tests.data.labelled_images import NAME, load_labelled
from tests.evaluation.toys import ToyModel, extractor


@pytest.fixture
def load(tmp_path, demo):
    """``load(split, key=value, ...)`` through the registered builder, at an image size of 24 x 24 pixels."""
    return partial(load_labelled, tmp_path, demo)


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
