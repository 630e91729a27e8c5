import io
import json
import sys

import pytest
from PIL import Image

from mmf_flava.data.annotations import parse_label
from mmf_flava.data.prepare import imagenet, source_files
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.imagenet import parquet_files, prepare_imagenet
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError

from .process_kills import assert_survives_kills, read_files, run_two_concurrently

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white\nshark"]


def image(kind, grey):
    file = io.BytesIO()
    Image.new("L", (8, 8), grey).save(file, kind)
    return file.getvalue()


def write(path, rows, names=NAMES, columns=("image", "label"), group=4):
    """Write a file in the format of `datasets`: image struct, int64 labels, features in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = arrow.array([row[0] for row in rows], arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
    table = arrow.table([images, arrow.array([row[1] for row in rows], arrow.int64())], list(columns))
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=group)
    return path


@pytest.fixture
def hub(tmp_path):
    """Two train files of 13 and 10 rows and a validation file. Row 2 is a PNG, rows 3 to 7 are invalid."""
    rows = [({"bytes": image("JPEG", 10 * n), "path": f"n{n}.JPEG"}, n % 3) for n in range(23)]
    rows[2] = ({"bytes": image("PNG", 20), "path": "n2.JPEG"}, 2)
    rows[3] = (None, 0)
    rows[4] = ({"bytes": None, "path": "n4.JPEG"}, 0)
    rows[5] = ({"bytes": b"", "path": "n5.JPEG"}, 0)
    rows[6] = ({"bytes": b"<html>", "path": "n6.JPEG"}, 0)
    rows[7] = (rows[8][0], 3)
    rows[9], rows[10] = (rows[9][0], -1), (rows[10][0], None)
    write(tmp_path / "hub/data/train-00000-of-00002.parquet", rows[:13])
    write(tmp_path / "hub/data/train-00001-of-00002.parquet", rows[13:])
    write(tmp_path / "hub/data/validation-00000-of-00001.parquet", rows[20:])
    return tmp_path / "hub", rows


def command(src, *more):
    return ["imagenet", "--src", *map(str, src), "--quiet", "--shard", "4", *more]


def test_shards_classes_and_manifest(hub, tmp_path, capsys):
    src, rows = hub
    assert main([*command([src], "--split", "train"), "--out", str(tmp_path / "out")]) == 0
    assert "18 images, 16 with labels, 3 classes. Dropped: 1 empty image, 2 no image, 1 not an image, 1 unknown" in (
        capsys.readouterr().out
    )
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["kind"], manifest["classes"], manifest["input"]["split"]) == ("imagenet", 3, "train")
    assert manifest["counts"] == {"rows": 23, "images": 18, "labels": 16}
    assert manifest["dropped"] == {"empty image": 1, "no image": 2, "not an image": 1, "unknown label": 1}
    assert [(shard["name"], shard["records"]) for shard in manifest["shards"]] == [
        *(("00000.tar", 3), ("00002.tar", 4), ("00003.tar", 4), ("00004.tar", 4), ("00005.tar", 3))
    ], "a shard has the records of four rows, and all rows of the second were dropped"
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == [*NAMES[:2], "great white shark"]
    records = open_records(tmp_path / "out")
    kept = [n for n in range(23) if not 3 <= n <= 7]
    assert [records[n].key for n in range(18)] == [f"{n:09d}" for n in kept]
    assert [parse_label(records[n]) for n in range(18)] == [-1 if n in (9, 10) else n % 3 for n in kept]
    assert records[2].fields == {"png": rows[2][0]["bytes"], "cls": b"2"}
    assert all(records[n].fields["jpg"] == rows[kept[n]][0]["bytes"] for n in range(18) if n != 2)
    assert prepare_imagenet(tmp_path / "out", [src], "train", 4, progress=False) == manifest


@pytest.mark.parametrize("first", [0, 1, 4, 6, 12, 13, 14, 22, 23])
def test_reading_can_start_at_any_row(hub, first, monkeypatch):
    src, rows = hub
    monkeypatch.setattr(imagenet, "BATCH", 3)
    tables = [imagenet._open(path) for path in parquet_files([src], "train")]
    read = list(imagenet._rows(tables, first))
    assert [row["label"] for row in read] == [label for _, label in rows[first:]]
    assert len(list(source_files.read_parquet(tables[0].path, first=first))) == max(0, 13 - first)


def test_image_format_is_detected_from_the_content(tmp_path):
    kinds = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
    rows = [({"bytes": image(kind, 0), "path": "x.JPEG"}, 0) for kind in kinds]
    path = write(tmp_path / "images/0000.parquet", rows, names=None)
    manifest = prepare_imagenet(tmp_path / "out", [path], progress=False)
    assert (manifest["classes"], manifest["counts"]["labels"]) == (0, 6)
    assert not (tmp_path / "out/classes.txt").exists()
    records = open_records(tmp_path / "out")
    assert [next(iter(records[n].fields.keys() - {"cls"})) for n in range(6)] == list(kinds.values())


def test_dataset_reads_prepared_shards(hub, tmp_path, config, load):
    prepare_imagenet(tmp_path / "out", [hub[0]], "train", 4, progress=False)
    config.dataset_config.imagenet.splits.train = [str(tmp_path / "out")]
    dataset = load("imagenet")
    assert sorted(dataset[n].targets for n in range(18)) == [-1] * 2 + [0] * 5 + [1] * 5 + [2] * 6


@pytest.mark.parametrize("seed", range(2))
def test_killed_process_is_resumed_with_the_same_result(hub, tmp_path, seed):
    assert_survives_kills(command([hub[0]], "--split", "train"), tmp_path / "out", seed)


def test_interrupted_process_is_resumed_with_the_tasks_without_a_result(hub, tmp_path, monkeypatch):
    starts, original = [], imagenet._rows

    def rows(tables, first):
        starts.append(first)
        for number, row in enumerate(original(tables, first), start=first):
            if number == 16 and len(starts) == 1:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(imagenet, "_rows", rows)
    with pytest.raises(KeyboardInterrupt):
        prepare_imagenet(tmp_path / "out", [hub[0]], "train", 4, progress=False)
    prepare_imagenet(tmp_path / "out", [hub[0]], "train", 4, progress=False)
    assert starts == [0, 16]


def test_concurrent_processes_write_the_same_files_as_one(hub, tmp_path):
    run_two_concurrently(command([hub[0]], "--split", "train"), tmp_path / "out")
    prepare_imagenet(tmp_path / "alone", [hub[0]], "train", 4, progress=False)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "alone")


def test_progress_bar_has_a_total(hub, tmp_path, capfd):
    prepare_imagenet(tmp_path / "out", [hub[0]], "train", 4)
    assert "23/23" in capfd.readouterr().err


def test_error_messages(hub, tmp_path, monkeypatch):
    src, rows = hub
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"several splits.*train, validation with --split"):
        prepare_imagenet(out, [src])
    with pytest.raises(UserError, match=r"no split 'tset' found.*train, validation"):
        prepare_imagenet(out, [src], "tset")
    with pytest.raises(UserError, match="nowhere: no parquet files found"):
        prepare_imagenet(out, [tmp_path / "nowhere"])
    other = write(tmp_path / "odd/a.parquet", rows, columns=("img", "label"))
    with pytest.raises(UserError, match=r"a\.parquet: expected the columns image.*got img \(struct"):
        prepare_imagenet(out, [other])
    train = src / "data/train-00000-of-00002.parquet"
    other = write(tmp_path / "odd/train-0-of-1.parquet", rows, names=["other"])
    with pytest.raises(
        UserError, match=r"odd/train-0-of-1\.parquet and .*train-00000-of-00002.* have different class names"
    ):
        prepare_imagenet(out, [train, other], "train")
    with pytest.raises(UserError, match="--shard is 0"):
        prepare_imagenet(out, [train], shard=0)
    assert not out.exists()
    prepare_imagenet(out, [train], progress=False)
    with pytest.raises(UserError, match="a different input"):
        prepare_imagenet(out, [src], "train", progress=False)
    train.write_bytes(train.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated"):
        prepare_imagenet(tmp_path / "new", [train], progress=False)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"mmf_flava\[data\]"):
        prepare_imagenet(tmp_path / "new", [train], progress=False)


def test_upper_case_suffixes(tmp_path):
    write(tmp_path / "hub/TRAIN-00000-of-00001.PARQUET", [({"bytes": image("PNG", 0), "path": "a.png"}, 0)])
    (tmp_path / "hub/._TRAIN-00000-of-00001.PARQUET").write_bytes(b"\x00\x05\x16\x07")
    assert [path.name for path in parquet_files([tmp_path / "hub"], "TRAIN")] == ["TRAIN-00000-of-00001.PARQUET"]


def test_class_names_with_surrogates_can_be_written(hub, tmp_path):
    src = write(tmp_path / "odd.parquet", hub[1][8:9], names=["a \ud83d", "b", "c"])
    prepare_imagenet(tmp_path / "out", [src], progress=False)
    assert (tmp_path / "out" / "classes.txt").read_text() == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"a": 1}'),
        ("manifest.json", '{"input": {}, "counts": {}, "dropped": null, "shards": []}'),
        (".work/input.json", '{"a": 1}'),
    ],
)
def test_damaged_progress_is_described(hub, tmp_path, name, content):
    (tmp_path / "out" / ".work").mkdir(parents=True)
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} is damaged \(its (input|dropped) are missing"):
        prepare_imagenet(tmp_path / "out", [hub[0]], "train", progress=False)


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
@pytest.mark.parametrize("is_file", [True, False])
def test_archives_of_imagenet_are_unpacked_first(tmp_path, name, is_file):
    (tmp_path / name).write_bytes(b"\0" * 1024)
    split = "train" if "train" in name else "val"
    with pytest.raises(UserError, match=rf"{name}: .*ImageNet\('FOLDER', '{split}'\).*reads FOLDER/{split} directly"):
        parquet_files([tmp_path / name if is_file else tmp_path], None)


def test_class_folders_need_no_preparation(tmp_path):
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "n01440764_10026.JPEG").write_bytes(image("JPEG", 1))
    with pytest.raises(UserError, match=r"image files need no preparation\. Set dataset_config\.imagenet\.splits"):
        parquet_files([tmp_path], None)


def test_images_that_are_none_are_an_error(tmp_path):
    write(tmp_path / "train-00000-of-00001.parquet", [({"bytes": b"<html>", "path": None}, 0)] * 3)
    with pytest.raises(UserError, match=r"none of the 3 rows gives a record \(3 not an image\).*starts with b'<html>'"):
        prepare_imagenet(tmp_path / "out", [tmp_path], progress=False)
    assert not list((tmp_path / "out").iterdir())
