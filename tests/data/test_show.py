"""The page about the data, against data made by hand and against the samples that training gets."""

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
from mmf_flava.data.codes import CodeWriter, make_header
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.shards import ShardWriter
from mmf_flava.data.show import charts
from mmf_flava.data.show.__main__ import main
from mmf_flava.data.show.statistics import spread
from tests.conftest import DEMO

SCRIPT = "<script>alert('a caption')</script>"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Elements in order, each (tag, attributes, own and inner text); says which tags are open at the end."""

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
    """Each card as a page by itself."""
    return [Page(card) for card in re.findall(r'<article class="card">.*?</article>', html, re.DOTALL)]


def figures(html):
    """title -> (text, [(name, count) of each named bar]) of each figure of the statistics."""
    found = {}
    for figure in map(Page, re.findall(r'<figure class="panel">.*?</figure>', html, re.DOTALL)):
        found[figure.texts("h4")[0]] = (figure.texts("p")[0], rows(figure))
    return found


def rows(page):
    return list(zip(page.texts("th"), page.texts("td")[1::2], strict=True))


def picture(width, height, mode="RGB", kind="PNG", orientation=1):
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
    """A dataset YAML alone, over a shard of five records of which the fourth is no image."""
    with ShardWriter(tmp_path / "pairs/00000.tar") as shard:
        for number, (extension, image, captions) in enumerate(
            [
                ("png", picture(30, 30), [SCRIPT]),
                ("png", picture(40, 20, "L"), ["one", "one two"]),
                ("jpg", picture(60, 40, kind="JPEG", orientation=6), ["one two three"]),
                ("jpg", b"<html>gone</html>", ["this page is gone"]),
                ("png", picture(20, 80), ["the number " * 20]),
            ]
        ):
            about = {"captions": captions, "label": number}
            shard.write(f"record-{number}", {extension: image, "json": json.dumps(about).encode()})
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
    """The HTML of the page about ``recipe``."""
    out = recipe.with_name("page.html")
    assert main([str(recipe), "--out", str(out), *options]) == 0
    return out.read_text(encoding="utf-8")


def dataset_of(recipe, *overrides):
    return open_dataset(read_recipe(str(recipe), ["model=flava", "dataset=pmd", *overrides]), "pmd", "train")


def test_the_command_shows_all_datasets_of_the_demo(demo, tmp_path):
    (tmp_path / "flava_demo").symlink_to(demo)
    command = [sys.executable, "-m", "mmf_flava.data.show", DEMO, f"env.data_dir={tmp_path}"]
    command += ["--samples", "3", "--statistics", "20", "--start", "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("show_demo.html: train: pmd 1,300 records, imagenet 1,300 records, ccnews_bookcorpus ")
    assert last.endswith("0 bad of 60 looked at.")
    html = (tmp_path / "show_demo.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    assert page.texts("h2") == ["pmd", "imagenet", "ccnews_bookcorpus"]
    shown = cards(html)
    assert [card.texts("b")[0] for card in shown] == ["7", "8", "9"] * 3
    assert [len(card.find("svg")) for card in shown] == [3] * 6 + [0] * 3
    assert [len(card.find("p", "text")) for card in shown] == [1] * 3 + [0] * 3 + [1] * 3
    assert all("label" in card.texts("span", "label")[0] for card in shown[:6])
    assert not page.find("script")
    addresses = [
        value for _, attributes, _ in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)


def test_the_figures_are_those_of_the_records(recipe):
    html = show(recipe)
    page = Page(html)
    tiles = dict(zip(page.texts("p", "label"), page.texts("p", "figure"), strict=True))
    assert (tiles["Records"], tiles["Bad records"]) == ("5", "1")
    found = figures(html)
    assert found["Formats and modes"][1] == [("PNG RGB", "2"), ("PNG L", "1"), ("JPEG RGB", "1")]
    widths = dict(found["Width to height"][1])
    assert {name: count for name, count in widths.items() if count != "0"} == {
        "narrower than 1:3": "1", "1:2 to 3:4": "1", "square": "1", "4:3 to 2:1": "1"
    }  # fmt: skip
    assert found["Labels"][1] == [(label, "1") for label in "0124"]
    assert found["Image sizes"][0].startswith("50.0 % have a side below the encoder's 24 pixels")
    assert {"40 x 20: 1", "40 x 60: 1", "20 x 80: 1"} <= set(page.texts("title"))  # the JPEG lies on its side
    assert found["Captions an image"][0] == "Half have 1 or less; 1 to 2."
    assert found["Words a caption"][0] == "Half have 2 or less; 1 to 40."
    assert "20.0 % are cut at 24." in found["Tokens a caption"][0]  # one of five captions
    assert page.texts("table", "list")[0].startswith("3not an imagerecord-3: ")
    assert "Of all 5 records." in page.texts("p", "intro")


def test_masks_and_captions_are_the_samples(recipe):
    html = show(recipe)
    dataset = dataset_of(recipe)
    shown = cards(html)
    assert len(shown) == 5  # one epoch
    fates = Counter()
    for n, card in enumerate(shown):
        sample = dataset[n]
        assert card.texts("code")[0] == sample["sample_id"]
        rects = [attributes for _, attributes, _ in card.find("rect", "masked")]
        patches = sorted(int(float(at["y"])) // 6 * 4 + int(float(at["x"])) // 6 for at in rects)
        assert patches == np.flatnonzero(sample["image_patch_mask"].numpy()).tolist()
        hidden = sample["lm_label_ids"] >= 0
        word = dataset.text_processor.tokenizer.id_to_token
        assert card.texts("rt") == [word(int(token)) for token in sample["input_ids"][hidden]]
        seen = [ruby.removesuffix(truth) for ruby, truth in zip(card.texts("ruby"), card.texts("rt"), strict=True)]
        assert seen == [word(int(token)) for token in sample["input_ids_masked"][hidden]]
        own = card.find("div", "mismatch")
        assert bool(own) == (not sample["is_correct"])
        assert not own or card.texts("li") == sample["captions"]
        fates.update(element[1]["class"].split()[1] for element in card.find("ruby"))
        assert ("not an image" in " ".join(card.texts("p", "aside"))) == (dataset.order.index(n) == 3)
    assert fates["mask"] and {bool(card.find("div", "mismatch")) for card in shown} == {True, False}


def test_the_views_are_the_pictures(recipe):
    dataset = dataset_of(recipe)
    sample = dataset[0]
    pixels = dataset.image_processor.pixels(sample["image"])
    # the codebook's view is the same box at the same size here, but for its other filter
    other = sample["image_for_codebook"].permute(1, 2, 0).numpy() * 255
    assert pixels.shape == (24, 24, 3) and pixels.std() > 10
    assert np.abs(pixels - other).mean() < 5


def test_captions_are_escaped(recipe):
    html = show(recipe)
    assert "<script" not in html and "&lt;script&gt;" in html


def test_cached_codes_are_shown(recipe, tmp_path):
    dataset = dataset_of(recipe)
    geometry = dataset.image_processor.codebook_geometry(True)
    book = {"type": "kmeans", "sha256": "00", "vocab_size": 90, "dtype": "fp32"}
    header = make_header(5, 1, 16, records_sha256(dataset.records), geometry, book)
    with CodeWriter(tmp_path / "codes" / "ours", "pmd-train", header) as writer:
        writer.write(np.arange(80, dtype=np.uint16).reshape(5, 1, 16))
        writer.finish()
    html = show(recipe, "dataset_config.pmd.codes=ours")
    for card in cards(html):
        record = int(card.texts("code")[0].removeprefix("record-"))
        assert card.texts("title") == [str(code) for code in range(16 * record, 16 * record + 16)]
    assert "kmeans, 90 entries" in html


def test_what_was_dropped_when_the_data_were_built(recipe, tmp_path):
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
    panel = Page(re.search(r'<div class="panel built">.*?</div>', show(recipe), re.DOTALL).group())
    assert "6 pairs of 5 images, from 12 rows" in panel.texts("p")[0]
    assert rows(panel) == [("no image", "5"), ("no text", "2")]
    path.write_text('{"kind": "pmd"}', encoding="utf-8")
    assert main([str(recipe)]) == 2


def test_data_of_which_nothing_can_be_used_are_shown_too(recipe, tmp_path):
    with ShardWriter(tmp_path / "pairs/00000.tar") as shard:
        for number in range(30):
            shard.write(f"record-{number}", {"jpg": b"", "txt": b"a caption"})
    html = show(recipe)
    page = Page(html)
    assert not cards(html) and any("30 records in a row" in text for text in page.texts("p", "missing"))
    assert dict(zip(page.texts("p", "label"), page.texts("p", "figure"), strict=True))["Bad records"] == "30"
    assert html.count("the image has no bytes") == 20 + 1 and "and 10 more" in html, "a list, and the sentence"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "pmdd"], "no dataset 'pmdd'"),
        (["--split", "val"], "lists no data for the split val of pmd"),
        (["--samples", "0"], "--samples is 0"),
        (["--start", "-1"], "--start is -1"),
        (["--out", "/proc/none/page.html"], "cannot be written"),
        (["dataset_config.pmd.data_dir=/nowhere"], "There are no records at /nowhere/pairs"),
    ],
)
def test_mistakes_end_in_one_sentence(recipe, capsys, monkeypatch, options, words):
    monkeypatch.chdir(recipe.parent)
    assert main([str(recipe), *options]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("mmf_flava: ") and words in message
    assert not (recipe.parent / "show_own.html").exists()


def test_records_are_spread_over_all_of_them():
    assert spread(3, 10) == [0, 1, 2]
    assert spread(1000, 4) == [0, 250, 500, 750]


def test_histograms_hold_every_value():
    few = charts.histogram([3, 3, 5], 4, "cut")
    assert [(bar.label, bar.count) for bar in few.bars] == [("3", 2), ("4", 0), ("5", 1)]
    assert few.mark == charts.Mark(2 / 3, "cut") and charts.histogram([3, 5], 5).mark is None
    many = charts.histogram(list(range(7, 107)))
    assert [bar.count for bar in many.bars] == [3, *[5] * 19, 2] and many.bars[0].title == "5 to 9: 3"
    doubled = charts.octaves([1, 1023, 1024, 5000], charts.size_in_bytes)
    assert sum(bar.count for bar in doubled.bars) == 4 and doubled.bars[-1].title == "4 KB to 8 KB: 1"
    assert charts.size_in_bytes(1000) == "1000 B" and charts.size_in_bytes(3.5 * 2**30) == "3.5 GB"


def test_the_encoders_side_and_every_size_are_in_the_scatter():
    chart = charts.scatter({(100, 50): 2, (101, 50): 1, (1600, 50): 1}, 224)
    assert [point.title for point in chart.points] == ["about 100 x 50: 3", "1600 x 50: 1"]
    assert all(0 < place < 1 for point in chart.points for place in (point.x, point.y)) and 0 < chart.side < 1
    assert sorted(point.radius for point in chart.points) == [pytest.approx(3**-0.5), 1.0]
