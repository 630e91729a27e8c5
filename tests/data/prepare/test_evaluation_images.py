"""Images of evaluation sets do not get into pretraining data."""

import io
import json
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data.prepare.evaluation_images import HELD_OUT, read_evaluation_images
from mmf_flava.data.prepare.pmd import PmdOptions, prepare_pmd
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError

COCO = {1: "test", 2: "val", 3: "restval", 4: "train"}  # id -> Karpathy's split
FLICKR = {1007129816: "test", 1000092795: "train"}


def jpeg(number):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 8, 3), number % 251, np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Split files of Karpathy, and images under all names of the publishers."""
    splits = {
        "dataset_coco.json": [
            {"filepath": "val2014", "filename": f"COCO_val2014_{number:012d}.jpg", "cocoid": number, "split": split}
            for number, split in COCO.items()
        ],
        "dataset_flickr30k.json": [{"filename": f"{number}.jpg", "split": split} for number, split in FLICKR.items()],
    }
    (tmp_path / "splits").mkdir()
    for name, images in splits.items():
        images = [{"sentids": [0], "imgid": 0, "sentences": [{"raw": "a caption"}], **image} for image in images]
        (tmp_path / "splits" / name).write_text(json.dumps({"images": images, "dataset": name[8:-5]}))
    (tmp_path / "images").mkdir()
    for number in COCO:
        (tmp_path / f"images/{number:012d}.jpg").write_bytes(jpeg(number))
        (tmp_path / f"images/{100 + number}.jpg").write_bytes(jpeg(number))
    for number in FLICKR:
        (tmp_path / f"images/{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "src").mkdir()
    return tmp_path


def write_coco(src):
    """The annotations of 2014, with their release of val."""
    for split, numbers in {"train2014": [4], "val2014": [1, 2, 3]}.items():
        images = [
            {
                "file_name": f"COCO_{split}_{number:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/{split}/COCO_{split}_{number:012d}.jpg",
                "flickr_url": f"http://farm4.staticflickr.com/3153/{number}_164f0c0b83_z.jpg",
                "id": number,
            }
            for number in numbers
        ]
        captions = [{"image_id": number, "id": number, "caption": "a caption"} for number in numbers]
        data = {"info": {}, "images": images, "licenses": [], "annotations": captions}
        (src / f"captions_{split}.json").write_text(json.dumps(data))


def write_visual_genome(src):
    regions = [{"phrase": f"thing {n}", "x": 4 * n, "y": 0, "width": 4, "height": 4} for n in range(2)]
    images = [{"id": 100 + number, "regions": regions} for number in COCO]
    (src / "region_descriptions.json").write_text(json.dumps(images))
    data = [{"image_id": 100 + number, "width": 8, "height": 4, "coco_id": number, "flickr_id": 7} for number in COCO]
    data[2]["coco_id"] = None
    (src / "image_data.json").write_text(json.dumps(data))


def write_narratives(src):
    for name, dataset, numbers in (("coco", "mscoco_train2017", COCO), ("flickr30k", "Flick30k_train", FLICKR)):
        lines = [{"dataset_id": dataset, "image_id": str(number), "caption": "One. Two."} for number in numbers]
        (src / f"{name}_train_localized_narratives.jsonl").write_text("\n".join(map(json.dumps, lines)))


WRITERS = {"coco": write_coco, "visual_genome": write_visual_genome, "localized_narratives": write_narratives}


def prepare(folder, part, *exclude, src="src", **options):
    exclude = tuple(path if path == "none" else folder / "splits" / path for path in exclude)
    options = PmdOptions(part, folder / src, folder / "images", exclude=exclude, **options)
    return prepare_pmd(folder / "out", options, progress=False)


@pytest.mark.parametrize(
    ("part", "rows", "kept"), [("coco", 4, 2), ("visual_genome", 4, 2), ("localized_narratives", 6, 3)]
)
def test_evaluation_images_are_left_out(folder, part, rows, kept):
    WRITERS[part](folder / "src")
    manifest = prepare(folder, part, "dataset_coco.json", "dataset_flickr30k.json")
    assert (manifest["counts"]["rows"], manifest["counts"]["images"]) == (rows, kept)
    assert manifest["dropped"] == {HELD_OUT: rows - kept}
    assert [text.split()[0] for text in manifest["input"]["exclude"]] == ["dataset_coco.json", "dataset_flickr30k.json"]
    found = {next(iter(record.fields.values())) for record in map(open_records(folder / "out").read, range(kept))}
    assert found.isdisjoint({jpeg(1), jpeg(2), jpeg(1007129816)})


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("coco", r"COCO, .*Add --exclude dataset_coco\.json \(from https://.*zip\), or --exclude none"),
        ("visual_genome", r"COCO, .*Add --exclude dataset_coco\.json "),
        ("localized_narratives", r"COCO and Flickr30K, .*Add --exclude dataset_coco\.json dataset_flickr30k\.json "),
    ],
)
def test_missing_split_files_ask_for_a_word(folder, part, missing):
    WRITERS[part](folder / "src")
    with pytest.raises(UserError, match=missing):
        prepare(folder, part)
    assert not (folder / "out/manifest.json").exists()
    manifest = prepare(folder, part, "none")
    assert manifest["dropped"] == {}
    assert manifest["input"]["exclude"] == ["none"]
    # Without the split file, COCO's own validation images are not known to be training images.
    assert manifest["counts"]["images"] == {"coco": 1, "visual_genome": 4, "localized_narratives": 6}[part]


def test_one_of_two_split_files_is_missing(folder):
    write_narratives(folder / "src")
    with pytest.raises(UserError, match=r"images of Flickr30K, .*--exclude dataset_flickr30k\.json"):
        prepare(folder, "localized_narratives", "dataset_coco.json")
    # The name of a file does not say what it contains, and neither does its first row.
    lines = (folder / "src/flickr30k_train_localized_narratives.jsonl").read_text()
    openimages = json.dumps({"dataset_id": "open_images_train", "image_id": "0af", "caption": "A bird."})
    (folder / "all.jsonl").write_text(f"{openimages}\n{lines}")
    with pytest.raises(UserError, match=r"images of Flickr30K"):
        prepare(folder, "localized_narratives", "dataset_coco.json", src="all.jsonl")


def test_split_files_beside_the_annotations_are_used(folder):
    write_visual_genome(folder / "src")
    (folder / "splits/dataset_coco.json").rename(folder / "src/dataset_coco.json")
    assert prepare(folder, "visual_genome")["dropped"] == {HELD_OUT: 2}


def test_karpathys_file_contains_the_captions_and_the_splits(folder):
    manifest = prepare(folder, "coco", src="splits/dataset_coco.json")
    assert manifest["dropped"] == {HELD_OUT: 2}
    assert manifest["counts"]["images"] == 2


def test_regions_are_cropped_and_counted(folder):
    write_visual_genome(folder / "src")
    manifest = prepare(folder, "visual_genome", "dataset_coco.json", regions="crop")
    assert manifest["counts"] == {"rows": 8, "images": 4, "pairs": 4}
    assert manifest["dropped"] == {HELD_OUT: 4}
    assert Image.open(io.BytesIO(open_records(folder / "out").read(1).fields["jpg"])).size == (4, 4)
    with pytest.raises(UserError, match="--regions crop: only published Visual Genome"):
        prepare(folder, "coco", regions="crop")


def test_visual_genome_needs_its_list_of_images(folder):
    write_visual_genome(folder / "src")
    (folder / "src/image_data.json").unlink()
    with pytest.raises(UserError, match=r"image_data\.json: no such file\. .* or add --exclude none"):
        prepare(folder, "visual_genome", "dataset_coco.json")


def test_split_files_in_the_published_archive(folder):
    with ZipFile(folder / "caption_datasets.zip", "w") as archive:
        for path in (folder / "splits").iterdir():
            archive.write(path, path.name)
    images = read_evaluation_images([folder / "caption_datasets.zip"])
    assert images.ids == {"coco:1", "coco:2", "flickr:1007129816"}
    assert images.sets == {"coco", "flickr30k"}


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"images": [{"filename": "1.jpg", "split": "train"}]}', None])
def test_other_files_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"a\.json: not a split file of Karpathy \(.*\)\. Set --exclude to dataset_coco"
    ):
        read_evaluation_images([tmp_path / "a.json"])
