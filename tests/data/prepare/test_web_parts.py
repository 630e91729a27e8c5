"""SBU, Conceptual Captions, Conceptual 12M, WIT and RedCaps, in the published form."""

import gzip
import json

import pytest

from mmf_flava.data.prepare.annotations import Annotation, malformed_line
from mmf_flava.data.prepare.web_parts import read_cc3m, read_cc12m, read_redcaps, read_sbu, read_wit
from mmf_flava.errors import UserError

from .lazy import evaluated

URL = "http://host/1.jpg"
SBU_URL = "http://static.flickr.com/2723/4385058960_b0f291553e.jpg"
WIT_COLUMNS = [
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
]


def test_sbu_files(tmp_path):
    """``sbu-captions-all.json``, and the two text files that torchvision unpacks."""
    (tmp_path / "sbu-captions-all.json").write_text(
        json.dumps({"image_urls": [SBU_URL], "captions": ["a dog &amp; a cat"], "user_ids": ["47889917@N08"]})
    )
    (tmp_path / "SBU_captioned_photo_dataset_urls.txt").write_text(f"{SBU_URL}\r\n")
    (tmp_path / "SBU_captioned_photo_dataset_captions.txt").write_text("a dog &amp; a cat\r\n")
    names = ("2723_4385058960_b0f291553e.jpg", "4385058960_b0f291553e.jpg")  # the second one is torchvision's
    expected = [Annotation(("a dog & a cat",), SBU_URL, names, ids=frozenset({"flickr:4385058960"}))]
    for path in tmp_path.iterdir():
        assert evaluated(read_sbu(path)) == expected, path
    (tmp_path / "SBU_captioned_photo_dataset_captions.txt").unlink()
    with pytest.raises(UserError, match="NAME_captions"):
        evaluated(read_sbu(tmp_path / "SBU_captioned_photo_dataset_urls.txt"))


def test_conceptual_captions(tmp_path):
    expected = [Annotation(("a dog",), URL), malformed_line(1, "2")]
    (tmp_path / "a.tsv").write_text(f"a dog\t{URL}\nbroken\n")
    assert evaluated(read_cc3m(tmp_path / "a.tsv")) == expected
    (tmp_path / "b.tsv").write_text(f"{URL}\ta dog\nbroken\n")
    assert evaluated(read_cc12m(tmp_path / "b.tsv")) == expected


@pytest.mark.parametrize("header", ["caption\turl", "TEXT\tURL"])
def test_header_for_img2dataset_is_not_a_caption(tmp_path, header):
    (tmp_path / "a.tsv").write_text(f"{header}\n<PERSON> and a dog\t{URL}\n")
    for read in (read_cc3m, read_cc12m):
        assert evaluated(read(tmp_path / "a.tsv")) == [Annotation(("<PERSON> and a dog",), URL)]


def read_wit_rows(path, *rows):
    lines = ["\t".join(str(row.get(column, "")) for column in WIT_COLUMNS) for row in rows]
    path.write_bytes(gzip.compress("\n".join(["\t".join(WIT_COLUMNS), *lines, ""]).encode()))
    return evaluated(read_wit(path))


@pytest.mark.parametrize(
    ("reference", "attribution", "passes", "alt", "caption"),
    [
        ("A dog", "English: not this", "true", "", "A dog"),
        ("", "English: Half Dome from Glacier Point", "true", "alt", "Half Dome from Glacier Point"),
        ("", "English: Half Dome Deutsch: Der Half Dome", "true", "alt", "Half Dome"),
        ("", "Deutsch: Der Half Dome English: Half Dome", "true", "alt", "Half Dome"),
        ("", "Deutsch: Der Half Dome", "false", "alt text", "alt text"),
        ("", "Der Half Dome", "False", "", None),
        ("", "Deutsch: Der Half Dome", "true", "", None),  # the label contradicts the column
        ('"A ""quoted"" dog"', "", "false", "", 'A "quoted" dog'),
    ],
)
def test_wit(tmp_path, reference, attribution, passes, alt, caption):
    url = "https://upload.wikimedia.org/wikipedia/commons/5/5a/Half%20Dome.jpg"
    row = {
        "language": "en",
        "image_url": url,
        "caption_reference_description": reference,
        "caption_attribution_description": attribution,
        "caption_alt_text_description": alt,
        "attribution_passes_lang_id": passes,
    }
    found, german = read_wit_rows(tmp_path / "wit_v1.train.all-00000-of-00010.tsv.gz", row, {**row, "language": "de"})
    assert german.dropped == "not English"
    if caption is None:
        assert found.dropped == "no text"
    else:
        assert found == Annotation((caption,), url, ("Half%20Dome.jpg", "Half Dome.jpg"))


def test_redcaps(tmp_path):
    annotation = {
        "image_id": "bpzj7r",
        "author": "djasz1",
        "url": "https://i.redd.it/ho0wntksivy41.jpg",
        "raw_caption": "Found on a friend's property (4032x3024)",
        "caption": "found on a friend's property by <usr>",
        "subreddit": 3,
        "score": 72,
        "created_utc": 1537286400,
        "permalink": "/r/airplants/comments/bpzj7r/found/",
        "crosspost_parents": None,
    }
    captions = ("a", ["a", "b"], None)
    items = [annotation, *({"image_id": "1", "url": URL, "caption": caption} for caption in captions)]
    (tmp_path / "airplants_2019.json").write_text(json.dumps({"info": {}, "annotations": items}))
    first, *others = evaluated(read_redcaps(tmp_path / "airplants_2019.json"))
    names = ("bpzj7r.jpg", "ho0wntksivy41.jpg")
    assert first == Annotation(("found on a friend's property by <usr>",), annotation["url"], names)
    assert [other.captions for other in others] == [("a",), ("a", "b"), ()]
