"""``mmf_flava.search``: queries by text and image, the page, both formats of indexes, and images that are missing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmf_flava.embed import main as embed
from mmf_flava.evaluation.embedder import Embedder
from mmf_flava.evaluation.embedding_index import open_index
from mmf_flava.search.__main__ import main
from mmf_flava.search.nearest import find_nearest
from tests.evaluation.test_embedder import photos, weights  # noqa: F401

CAPTION = "word1 <script>alert(1)</script> & word2"


@pytest.fixture(scope="module")
def source(photos, tmp_path_factory):  # noqa: F811
    """A folder with three images, a bad image and a list of their captions."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(3):
        shutil.copy(photos / f"{number}.png", folder / f"{number} <&.png")
    (folder / "bad.png").write_bytes(b"none")
    rows = [{"image": "bad.png", "caption": "word1"}]
    rows += [{"image": f"{n} <&.png", "caption": f"{CAPTION}{n}"} for n in range(3)]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module", params=["index.parquet", "index"])
def index(request, weights, source, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("index") / request.param
    assert embed([str(source / "list.jsonl"), "--weights", str(weights), "--out", str(out), "--workers", "0"]) == 0
    return out


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_text_and_an_image_find_images(index, weights, source, tmp_path, capsys):  # noqa: F811
    image = source / "1 <&.png"
    assert run(index, "word1 <b>", image, "--out", tmp_path / "found.html", "--count", 2) == 0
    assert f"{image}: 1.000 1 <&.png" in capsys.readouterr().out
    page = (tmp_path / "found.html").read_text()
    embedder = Embedder(weights)
    expected = embedder.images(sorted(source.glob("?*<&.png"))) @ embedder.texts("word1 <b>")[0]
    scores = [float(score) for score in re.findall(r"<b>(-?[\d.]+)</b>", page)]
    assert len(scores) == 4 and scores[:2] == pytest.approx(sorted(expected)[::-1][:2], abs=1e-3)
    assert page.count('src="data:image/jpeg;base64,') == 5  # the query, and two images of each query
    assert "1 &lt;&amp;.png" in page and "word1 &lt;b&gt;" in page and "<script>" not in page
    assert "http" not in page and "cannot be shown" not in page


def test_images_that_are_missing_or_others_are_named(index, source, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    (moved / "2 <&.png").unlink()
    out = tmp_path / "found.html"
    assert run(index, "word1", "--source", moved / "list.jsonl", "--out", out) == 0
    page = out.read_text()
    assert page.count("image not found") == 1 and "1 of 3 images cannot be shown: vanished (1)." in page
    lines = (moved / "list.jsonl").read_text().splitlines(keepends=True)
    (moved / "list.jsonl").write_text("".join(lines[1:]))
    assert run(index, "word1", "--source", moved / "list.jsonl", "--out", out) == 0
    assert out.read_text().count("image not found") == 3 and "another record at this place" in out.read_text()
    assert run(index, "word1", "--source", tmp_path / "nowhere", "--out", out) == 0
    assert "2 &lt;&amp;.png" in out.read_text() and "nowhere" in capsys.readouterr().err


def test_texts_are_searched_in_an_index_of_texts(weights, tmp_path, capsys):  # noqa: F811
    (tmp_path / "texts.txt").write_text("word1 word2\nword3\n")
    index = tmp_path / "texts.parquet"
    assert embed([str(tmp_path / "texts.txt"), "--weights", str(weights), "--out", str(index)]) == 0
    assert run(index, "word3", "--out", tmp_path / "found.html") == 0
    assert "word3: 1.000 line 2" in capsys.readouterr().out
    assert "<img" not in (tmp_path / "found.html").read_text()
    assert run(index, "word3", "--what", "image", "--out", tmp_path / "found.html") == 2
    assert "has no image embeddings, only text" in capsys.readouterr().err


def test_images_of_a_table_are_found_by_its_columns(weights, source, tmp_path, capsys):  # noqa: F811
    table, index = source / "table.csv", tmp_path / "index"
    table.write_text("a,b\n2 <&.png,word1 word2\n")
    assert embed([str(table), "--weights", str(weights), "--out", str(index), "--columns", "image=a", "caption=b"]) == 0
    assert run(index, "word1", "--out", tmp_path / "found.html") == 0
    page = (tmp_path / "found.html").read_text()
    assert "word1 word2" in page and "<img" in page and "cannot be shown" not in page
    table.unlink()
    arguments = [str(source), "--weights", str(weights), "--out", str(tmp_path / "x"), "--columns", "picture=a"]
    assert embed(arguments) == 2
    assert "'picture' is not a key of --columns." in capsys.readouterr().err


def test_the_index_names_weights_and_source_but_no_secrets(index, weights, source):  # noqa: F811
    origin = open_index(index).origin
    assert (origin["weights"], origin["source"]) == (str(Path(weights)), str(source / "list.jsonl"))


@pytest.mark.parametrize("count", [1, 3, 50])
def test_nearest_rows_are_those_of_all_scores(count):
    """In blocks of unequal sizes; equal scores are in order of rows, and values that are not finite are not found."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, (40, 5)).astype(np.float32)
    rows[7], rows[30] = np.nan, rows[2]
    queries = rng.integers(-3, 4, (6, 5)).astype(np.float32)
    found = list(find_nearest(queries, lambda: np.split(rows, [1, 17, 20]), count))
    scores = queries @ rows.T
    for query, neighbours in enumerate(found):
        ordered = sorted((row for row in range(40) if row != 7), key=lambda row: (-scores[query, row], row))
        assert [n.score for n in neighbours] == [scores[query, row] for row in ordered[:count]]
        assert [n.row for n in neighbours] == sorted([n.row for n in neighbours], key=lambda r: (-scores[query, r], r))


@pytest.mark.parametrize(
    "content, message",
    [(None, "does not exist"), (b"none", "not an index of embeddings"), ("weights", "Set --weights")],
)
def test_errors_name_the_index(content, message, photos, tmp_path, capsys):  # noqa: F811
    index = tmp_path / "index"
    if content == "weights":
        index.mkdir()
        np.save(index / "image.npy", np.zeros((2, 4), np.float32))
        (index / "ids.txt").write_text("a\nb\n")
    elif content:
        index.write_bytes(content)
    assert run(index, "word1", "--out", tmp_path / "found.html") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "found.html").exists()


def test_a_query_that_is_not_an_image_and_other_weights_are_errors(index, source, weights, tmp_path, capsys):  # noqa: F811
    assert run(index, source / "bad.png", "--out", tmp_path / "found.html") == 2
    assert "bad.png: not an image" in capsys.readouterr().err
    assert run(index, tmp_path / "no.jpg", "--out", tmp_path / "found.html") == 2
    assert "no.jpg: failed to read the file" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    np.save(narrow / "image.npy", np.zeros((2, 5), np.float32))
    (narrow / "ids.txt").write_text("a\nb\n")
    assert run(narrow, tmp_path / "a.png", "--weights", weights, "--out", tmp_path / "found.html") == 2
    assert "have 5 values, but those of the weights 24" in capsys.readouterr().err
