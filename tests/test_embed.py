"""The command line that writes vectors: folders, lists and texts; Parquet and .npy; what cannot be read."""

import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from mmf_flava.embed import main
from tests.evaluation.test_embedder import photos, weights  # noqa: F401


@pytest.fixture
def listed(photos, tmp_path):  # noqa: F811
    """A list of the three photos with captions, one without, and one that is no picture."""
    (photos / "broken.png").write_bytes(b"no picture")
    rows = [{"image": f"{n}.png", "caption": f"word{n} word{n + 1}"} for n in range(3)]
    rows += [{"image": "0.png", "id": "silent"}, {"image": "broken.png", "caption": "word9"}]
    path = photos / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield path
    path.unlink()
    (photos / "broken.png").unlink()


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_folder_of_photos_to_parquet(weights, photos, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "new" / "photos.parquet"
    assert run(photos, "--weights", weights, "--out", out, "--workers", 0) == 0
    assert f"Wrote {out}: vectors of 3 items." in capsys.readouterr().out
    table = parquet.read_table(out).to_pydict()
    assert table["id"] == ["0.png", "1.png", "2.png"]
    assert list(table) == ["id", "image_vector"]
    assert np.allclose(np.linalg.norm(table["image_vector"], axis=1), 1)


def test_a_list_gives_all_kinds_and_names_what_it_leaves_out(weights, listed, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "vectors"
    assert run(listed, "--weights", weights, "--out", out, "--workers", 1, "--batch-size", 2) == 0
    assert (out / "ids.txt").read_text().split() == ["0.png", "1.png", "2.png"]
    shapes = {path.stem: np.load(path).shape for path in out.glob("*.npy")}
    assert shapes == {"image": (3, 24), "text": (3, 24), "multimodal": (3, 32)}
    errors = capsys.readouterr().err
    assert "left out: silent: no caption" in errors and "left out: broken.png: not an image" in errors


def test_texts_by_line(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "queries.txt").write_text("word1 word2\n\n  word3\n")
    out = tmp_path / "queries.parquet"
    assert run(tmp_path / "queries.txt", "--weights", weights, "--out", out) == 0
    table = parquet.read_table(out).to_pydict()
    assert (table["id"], table["text"]) == (["line 1", "line 3"], ["word1 word2", "word3"])


def test_mistakes_are_named_and_cost_nothing(weights, photos, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "photos.parquet"
    out.write_text("kept")
    assert run(photos, "--weights", weights, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "kept"
    assert run(tmp_path / "nowhere", "--weights", weights, "--out", tmp_path / "x.parquet") == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "q.txt").write_text("word1\n")
    assert run(tmp_path / "q.txt", "--weights", weights, "--out", tmp_path / "x", "--what", "image") == 2
    assert "has texts only" in capsys.readouterr().err
    bad = tmp_path / "bad"
    bad.mkdir()
    Image.new("RGB", (4, 4)).save(bad / "a.png")
    (bad / "a.png").write_bytes(b"none")
    assert run(bad, "--weights", weights, "--out", tmp_path / "x.parquet", "--workers", 0) == 2
    assert "none of its 1 items can be used" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "photos.parquet", "q.txt"]
