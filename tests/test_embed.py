"""``mmf_flava.embed``: folders, lists and texts as sources, Parquet and .npy as output, and unreadable items."""

import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.embed import main
from tests.evaluation.test_embedder import photos, weights  # noqa: F401


@pytest.fixture
def image_list(photos, tmp_path):  # noqa: F811
    """A list of three images with captions, one without a caption, and an invalid image."""
    (photos / "broken.png").write_bytes(b"not an image")
    rows = [{"image": f"{n}.png", "caption": f"word{n} word{n + 1}"} for n in range(3)]
    rows += [{"image": "0.png", "id": "uncaptioned"}, {"image": "broken.png", "caption": "word9"}]
    path = photos / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield path
    path.unlink()
    (photos / "broken.png").unlink()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_folder_of_images_to_parquet(weights, photos, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "new" / "photos.parquet"
    assert run(photos, "--weights", weights, "--out", out, "--workers", 0) == 0
    assert f"Wrote {out}: embeddings of 3 items." in capsys.readouterr().out
    table = parquet.read_table(out).to_pydict()
    assert table["id"] == ["0.png", "1.png", "2.png"]
    assert list(table) == ["id", "record", "image_vector"]
    assert np.allclose(np.linalg.norm(table["image_vector"], axis=1), 1)


def test_list_gives_all_kinds_and_reports_skipped_items(weights, image_list, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "embeddings"
    assert run(image_list, "--weights", weights, "--out", out, "--workers", 1, "--batch-size", 2) == 0
    assert (out / "ids.txt").read_text().split() == ["0.png", "1.png", "2.png"]
    shapes = {path.stem: np.load(path).shape for path in out.glob("*.npy")}
    assert shapes == {"image": (3, 24), "text": (3, 24), "multimodal": (3, 32)}
    errors = capsys.readouterr().err
    assert "skipped: uncaptioned: no caption" in errors and "skipped: broken.png: not an image" in errors


def test_text_file_has_one_text_per_line(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "queries.txt").write_text("word1 word2\n\n  word3\n")
    out = tmp_path / "queries.parquet"
    assert run(tmp_path / "queries.txt", "--weights", weights, "--out", out) == 0
    table = parquet.read_table(out).to_pydict()
    assert (table["id"], table["text"]) == (["line 1", "line 3"], ["word1 word2", "word3"])


def test_user_errors_leave_existing_files_unchanged(weights, photos, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "photos.parquet"
    out.write_text("kept")
    assert run(photos, "--weights", weights, "--out", out) == 2
    assert "already exists" in capsys.readouterr().err and out.read_text() == "kept"
    assert run(tmp_path / "nowhere", "--weights", weights, "--out", tmp_path / "x.parquet") == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "q.txt").write_text("word1\n")
    assert run(tmp_path / "q.txt", "--weights", weights, "--out", tmp_path / "x", "--what", "image") == 2
    assert "contains only texts" in capsys.readouterr().err
    bad = tmp_path / "bad"
    bad.mkdir()
    Image.new("RGB", (4, 4)).save(bad / "a.png")
    (bad / "a.png").write_bytes(b"none")
    assert run(bad, "--weights", weights, "--out", tmp_path / "x.parquet", "--workers", 0) == 2
    assert "all 1 items were skipped" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "photos.parquet", "q.txt"]


def test_names_that_are_not_utf8_become_printable_ids(weights, photos, tmp_path, capsys):  # noqa: F811
    """In folders and shards; also the names of items that are skipped."""
    folder, shard = tmp_path / "latin1", tmp_path / "a.tar"
    folder.mkdir()
    image = (photos / "0.png").read_bytes()
    with ShardWriter(shard) as writer:
        for number, name in enumerate(("caf\udce9", "two\nlines", "bad\udce9")):
            data = image if number < 2 else b"not an image"
            (folder / f"{name}.PNG").write_bytes(data)
            writer.write(name, {"png": data})
    for source, ending in ((folder, ".PNG"), (shard, "")):
        names = [rf"caf\xe9{ending}", rf"two\x0alines{ending}"]
        out = tmp_path / f"{source.name} embeddings"
        assert run(source, "--weights", weights, "--out", out, "--what", "image", "--workers", 0) == 0
        assert sorted((out / "ids.txt").read_text("utf-8").splitlines()) == names
        out = tmp_path / f"{source.name}.PARQUET"
        assert run(source, "--weights", weights, "--out", out, "--what", "image", "--workers", 0) == 0
        assert sorted(parquet.read_table(out).to_pydict()["id"]) == names
        assert rf"skipped: bad\xe9{ending}: not an image" in capsys.readouterr().err
