"""The HTML page about the data, compared with hand-made data and with the training samples."""

import io
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import ExifTags, Image

import mmf_flava.plugin  # noqa: F401  registers
from mmf_flava.data.code_writer import CodeWriter
from mmf_flava.data.codes import build_header
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.show import charts
from mmf_flava.data.show.__main__ import main
from mmf_flava.data.show.statistics import evenly_spaced
from tests.conftest import DEMO

SCRIPT = "<script>alert('a caption')</script>"
VOID = {"meta", "link", "br", "img"}
SIZES = [f"model_config.flava.image_encoder.{key}={size}" for key, size in (("image_size", 24), ("patch_size", 6))]


class Page(HTMLParser):
    """Parsed HTML. ``elements``: [tag, attributes, text with nested text] in order; ``open``: unclosed elements."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def find(self, tag, kind=None):
        return [e for e in self.elements if e[0] == tag and (not kind or kind in e[1].get("class", "").split())]

    def texts(self, tag, kind=None):
        return [element[2].strip() for element in self.find(tag, kind)]


def cards(html):
    """Return each card, parsed separately."""
    return [Page(card) for card in re.findall(r'<article class="card">.*?</article>', html, re.DOTALL)]


def plots(html):
    """Return title -> (summary, [(label, count) of each bar]) of the plots."""
    parsed = {}
    for plot in map(Page, re.findall(r'<figure class="panel">.*?</figure>', html, re.DOTALL)):
        parsed[plot.texts("h4")[0]] = (plot.texts("p")[0], table_rows(plot))
    return parsed


def table_rows(page):
    return list(zip(page.texts("th"), page.texts("td")[1::2], strict=True))


def encode_image(width, height, mode="RGB", kind="PNG", orientation=1):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 60).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def mmf_registry():
    before = registry.get("config", default=None, no_warning=True)
    yield
    registry.unregister("config")
    if before is not None:
        registry.register("config", before)


@pytest.fixture
def recipe(demo, tmp_path):
    """A YAML file with only a dataset_config, for a shard of five records; the fourth is not an image."""
    with ShardWriter(tmp_path / "pairs/00000.tar") as shard:
        for number, (extension, image, captions) in enumerate(
            [
                ("png", encode_image(30, 30), [SCRIPT]),
                ("png", encode_image(40, 20, "L"), ["one", "one two"]),
                ("jpg", encode_image(60, 40, kind="JPEG", orientation=6), ["one two three"]),
                ("jpg", b"<html>gone</html>", ["this page is gone"]),
                ("png", encode_image(20, 80), ["the number " * 20]),
            ]
        ):
            metadata = {"captions": captions, "label": number}
            shard.write(f"record-{number}", {extension: image, "json": json.dumps(metadata).encode()})
    image = {"image_size": 24, "patch_size": 6, "codebook_size": 24, "mask": {"target": 6, "min_block": 2}}
    pmd = {
        "data_dir": str(tmp_path),
        "splits": {"train": ["pairs"]},
        "mismatch_probability": 0.5,
        "processors": {
            "image_processor": {"params": image},
            "text_processor": {"params": {"tokenizer": str(demo / "tokenizer"), "max_length": 24}},
        },
    }
    path = tmp_path / "own.yaml"
    OmegaConf.save({"dataset_config": {"pmd": pmd}}, path)
    return path


def show(recipe, *options):
    """Return the page about ``recipe`` as HTML."""
    out = recipe.with_name("page.html")
    assert main([str(recipe), "--out", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


def dataset_of(recipe, *overrides):
    return open_dataset(read_recipe(str(recipe), ["model=flava", "dataset=pmd", *SIZES, *overrides]), "pmd", "train")


def test_command_shows_all_datasets_of_the_demo(demo, tmp_path):
    (tmp_path / "flava_demo").symlink_to(demo)
    command = [sys.executable, "-m", "mmf_flava.data.show", DEMO, f"env.data_dir={tmp_path}"]
    command += ["--samples", "3", "--statistics", "20", "--start", "7"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    last = process.stdout.strip().splitlines()[-1]
    assert last.startswith("show_demo.html: train: pmd 1,300 records, imagenet 1,300 records, ccnews_bookcorpus ")
    assert last.endswith("0 of 60 examined records are bad.")
    html = (tmp_path / "show_demo.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    assert page.texts("h2") == ["pmd", "imagenet", "ccnews_bookcorpus"]
    parsed = cards(html)
    assert [card.texts("b")[0] for card in parsed] == ["7", "8", "9"] * 3
    assert [len(card.find("svg")) for card in parsed] == [3] * 6 + [0] * 3
    assert [len(card.find("p", "text")) for card in parsed] == [1] * 3 + [0] * 3 + [1] * 3
    assert all("label" in card.texts("span", "label")[0] for card in parsed[:6])
    assert not page.find("script")
    urls = [value for _, attributes, _ in page.elements for key, value in attributes.items() if key in ("src", "href")]
    assert urls and all(url.startswith(("data:", "#")) for url in urls)


def test_statistics_match_the_records(recipe):
    html = show(recipe)
    page = Page(html)
    tiles = dict(zip(page.texts("p", "label"), page.texts("p", "value"), strict=True))
    assert (tiles["Records"], tiles["Bad records"]) == ("5", "1")
    parsed = plots(html)
    assert parsed["Formats and modes"][1] == [("PNG RGB", "2"), ("PNG L", "1"), ("JPEG RGB", "1")]
    aspects = dict(parsed["Aspect ratio (width to height)"][1])
    assert {name: count for name, count in aspects.items() if count != "0"} == {
        "narrower than 1:3": "1", "1:2 to 3:4": "1", "square": "1", "4:3 to 2:1": "1"
    }  # fmt: skip
    assert parsed["Labels"][1] == [(label, "1") for label in "0124"]
    assert parsed["Image sizes"][0].startswith("50.0 % are smaller than the encoder's 24 pixels")
    assert {"40 x 20: 1", "40 x 60: 1", "20 x 80: 1"} <= set(page.texts("title"))  # the JPEG is rotated by Exif
    assert parsed["Captions per image"][0] == "Median 1, range 1 to 2."
    assert parsed["Words per caption"][0] == "Median 2, range 1 to 40."
    assert "20.0 % are truncated at 24." in parsed["Tokens per caption"][0]  # one of five captions
    assert page.texts("table", "list")[0].startswith("3not an imagerecord-3: ")
    assert "Of all 5 records." in page.texts("p", "intro")


def test_masks_and_captions_match_the_samples(recipe):
    html = show(recipe)
    dataset = dataset_of(recipe)
    parsed = cards(html)
    assert len(parsed) == 5  # one epoch
    maskings = Counter()
    for n, card in enumerate(parsed):
        sample = dataset[n]
        assert card.texts("code")[0] == sample["sample_id"]
        rects = [attributes for _, attributes, _ in card.find("rect", "masked")]
        patches = sorted(int(float(at["y"])) // 6 * 4 + int(float(at["x"])) // 6 for at in rects)
        assert patches == np.flatnonzero(sample["image_patch_mask"].numpy()).tolist()
        masked = sample["lm_label_ids"] >= 0
        id_to_token = dataset.text_processor.tokenizer.id_to_token
        assert card.texts("rt") == [id_to_token(int(token)) for token in sample["input_ids"][masked]]
        inputs = [ruby.removesuffix(rt) for ruby, rt in zip(card.texts("ruby"), card.texts("rt"), strict=True)]
        assert inputs == [id_to_token(int(token)) for token in sample["input_ids_masked"][masked]]
        mismatch = card.find("div", "mismatch")
        assert bool(mismatch) == (not sample["is_correct"])
        assert not mismatch or card.texts("li") == sample["captions"]
        maskings.update(element[1]["class"].split()[1] for element in card.find("ruby"))
        assert ("not an image" in " ".join(card.texts("p", "aside"))) == (dataset.order.index(n) == 3)
    assert maskings["mask"] and {bool(card.find("div", "mismatch")) for card in parsed} == {True, False}


def test_codebook_view_matches_the_image(recipe):
    dataset = dataset_of(recipe)
    sample = dataset[0]
    pixels = dataset.image_processor.pixels(sample["image"])
    # here the codebook's view has the same crop and size, but another resampling filter
    codebook_pixels = sample["image_for_codebook"].permute(1, 2, 0).numpy() * 255
    assert pixels.shape == (24, 24, 3) and pixels.std() > 10
    assert np.abs(pixels - codebook_pixels).mean() < 5


def test_captions_are_escaped(recipe):
    html = show(recipe)
    assert "<script" not in html and "&lt;script&gt;" in html


def test_cached_codes_are_shown(recipe, tmp_path):
    dataset = dataset_of(recipe)
    geometry = dataset.image_processor.codebook_geometry(True)
    codebook = {"type": "kmeans", "sha256": "00", "vocab_size": 90, "dtype": "fp32"}
    header = build_header(5, 1, 16, records_sha256(dataset.records), geometry, codebook)
    with CodeWriter(tmp_path / "codes" / "ours", "pmd-train", header) as writer:
        for record, codes in enumerate(np.arange(80, dtype=np.uint16).reshape(5, 1, 16)):
            writer.write(record, codes)
        writer.finish()
    html = show(recipe, "dataset_config.pmd.codes=ours")
    for card in cards(html):
        record = int(card.texts("code")[0].removeprefix("record-"))
        assert card.texts("title") == [str(code) for code in range(16 * record, 16 * record + 16)]
    assert "kmeans, 90 entries" in html


def test_manifest_of_prepared_data_is_shown(recipe, tmp_path):
    manifest = {
        "kind": "pmd",
        "input": {"part": "sbu"},
        "licence": "see the project page",
        "paper": {"pairs_millions": 1.0, "mean_caption_words": 12.1},
        "counts": {"rows": 12, "images": 5, "pairs": 6},
        "mean_caption_words": 3.25,
        "dropped": {"no image": 5, "no text": 2},
    }
    path = tmp_path / "pairs" / "manifest.json"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    panel = Page(re.search(r'<div class="panel manifest">.*?</div>', show(recipe), re.DOTALL).group())
    assert "6 pairs of 5 images, from 12 rows" in panel.texts("p")[0]
    assert table_rows(panel) == [("no image", "5"), ("no text", "2")]
    path.write_text('{"kind": "pmd"}', encoding="utf-8")
    assert main([str(recipe)]) == 2


def test_page_is_written_if_all_records_are_bad(recipe, tmp_path):
    with ShardWriter(tmp_path / "pairs/00000.tar") as shard:
        for number in range(30):
            shard.write(f"record-{number}", {"jpg": b"", "txt": b"a caption"})
    html = show(recipe)
    page = Page(html)
    assert not cards(html) and any("30 consecutive records" in text for text in page.texts("p", "missing"))
    assert dict(zip(page.texts("p", "label"), page.texts("p", "value"), strict=True))["Bad records"] == "30"
    assert html.count("the image is empty (0 bytes)") == 20 + 1 and "and 10 more" in html, "a list, and the error"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "pmdd"], "no dataset 'pmdd'"),
        (["--split", "val"], "lists no data for the split val of pmd"),
        (["--samples", "0"], "--samples: must be an integer"),
        (["--start", "-1"], "--start: must be an integer"),
        (["--out", "/proc/none/page.html"], "cannot be written"),
        (["dataset_config.pmd.data_dir=/nowhere"], "has no records: the path does not exist"),
    ],
)
def test_errors_are_one_line_messages(recipe, capsys, monkeypatch, options, words):
    monkeypatch.chdir(recipe.parent)
    assert main([str(recipe), *options]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("mmf_flava: ") and words in message
    assert not (recipe.parent / "show_own.html").exists()


def test_evenly_spaced():
    assert evenly_spaced(3, 10) == [0, 1, 2]
    assert evenly_spaced(1000, 4) == [0, 250, 500, 750]


def test_histograms_count_every_value():
    few = charts.build_histogram([3, 3, 5], 4, "truncated")
    assert [(bar.label, bar.count) for bar in few.bars] == [("3", 2), ("4", 0), ("5", 1)]
    assert few.mark == charts.AxisMark(2 / 3, "truncated") and charts.build_histogram([3, 5], 5).mark is None
    many = charts.build_histogram(list(range(7, 107)))
    assert [bar.count for bar in many.bars] == [3, *[5] * 19, 2] and many.bars[0].title == "5 to 9: 3"
    log2 = charts.build_log2_histogram([1, 1023, 1024, 5000], charts.format_bytes)
    assert sum(bar.count for bar in log2.bars) == 4 and log2.bars[-1].title == "4 KB to 8 KB: 1"
    assert charts.format_bytes(1000) == "1000 B" and charts.format_bytes(3.5 * 2**30) == "3.5 GB"


def test_scatter_contains_the_encoder_size_and_every_image_size():
    chart = charts.build_scatter({(100, 50): 2, (101, 50): 1, (1600, 50): 1}, 224)
    assert [point.title for point in chart.points] == ["about 100 x 50: 3", "1600 x 50: 1"]
    assert all(0 < position < 1 for point in chart.points for position in (point.x, point.y)) and 0 < chart.side < 1
    assert sorted(point.radius for point in chart.points) == [pytest.approx(3**-0.5), 1.0]


def test_crops_for_dino_are_shown(demo, tmp_path):
    """Images of pairs without captions; the page needs no model, tokenizer or other keys."""
    with ShardWriter(tmp_path / "images/00000.tar") as shard:
        for number in range(3):
            shard.write(f"record-{number}", {"png": encode_image(40, 30)})
    crops = {"type": "flava_multicrop", "params": {"global_size": 24, "local_size": 12, "num_local": 3}}
    section = {"data_dir": str(tmp_path), "splits": {"train": ["images"], "val": ["images"]}}
    section["processors"] = {"image_processor": crops}
    for name in ("pmd", "imagenet"):
        path = tmp_path / f"{name}.yaml"
        OmegaConf.save({"dataset_config": {name: section}}, path)
        for split in ("train", "val"):
            html = show(path, "--samples", "2", "--split", split)
            for card in cards(html):
                assert [svg[1]["aria-label"] for svg in card.find("svg")] == [f"crop {n}" for n in range(1, 6)]
                assert [svg[1]["viewbox"] for svg in card.find("svg")] == ["0 0 24 24"] * 2 + ["0 0 12 12"] * 3
            assert len(cards(html)) == 2
            assert "2 of 24 x 24 pixels, 25 to 100 % of the area" in html
            assert "3 of 12 x 12 pixels, 5 to 25 % of the area" in html
            assert "all examined records are valid" in html
            assert "Mismatched" not in html
