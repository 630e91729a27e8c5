import gzip
import json

import pytest

from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.published import Row, read_pmd_records

URL = "http://host/1.jpg"


def read(part, path, text):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else json.dumps(text))
    return list(PARTS[part].reader(path))


def test_coco(tmp_path):
    published = {
        "images": [{"id": 7, "file_name": "7.jpg", "coco_url": URL}, {"id": 8, "file_name": "8.jpg", "coco_url": URL}],
        "annotations": [{"image_id": 7, "caption": "one\n"}, {"image_id": 7, "caption": "two"}],
    }
    assert read("coco", tmp_path / "a.json", published) == [
        Row(("one", "two"), URL, ("7.jpg",)),
        Row(dropped="no text"),
    ]
    karpathy = {
        "images": [
            {"filename": "1.jpg", "split": split, "sentences": [{"raw": "a"}]} for split in ("restval", "val", "test")
        ]
    }
    held_out = Row(dropped="held out (val or test)")
    assert read("coco", tmp_path / "b.json", karpathy) == [Row(("a",), "", ("1.jpg",)), held_out, held_out]


def test_sbu(tmp_path):
    expected = [Row(("a dog",), URL)]
    assert read("sbu", tmp_path / "a.json", {"image_urls": [URL], "captions": ["a dog"]}) == expected
    (tmp_path / "sbu_captions.txt").write_text("a dog\n")
    assert read("sbu", tmp_path / "sbu_urls.txt", URL + "\n") == expected


def test_localized_narratives_are_split_into_sentences(tmp_path):
    lines = [{"image_id": "42", "caption": "A cat. It sleeps!  Is it old?"}, {"image_id": "0af", "caption": ""}]
    text = "\n".join(json.dumps({"dataset_id": "x", **line}) for line in lines)
    assert read("localized_narratives", tmp_path / "a.jsonl", text) == [
        Row(("A cat.", "It sleeps!", "Is it old?"), "", ("42", "000000000042")),
        Row(dropped="no text"),
    ]


def test_conceptual_captions(tmp_path):
    expected = [Row(("a dog",), URL), Row(dropped="malformed line")]
    assert read("conceptual_captions", tmp_path / "a.tsv", f"a dog\t{URL}\nbroken\n") == expected
    assert read("cc12m", tmp_path / "b.tsv", f"{URL}\ta dog\nbroken\n") == expected


def test_visual_genome_is_read_piece_by_piece(tmp_path):
    images = [{"id": n, "regions": [{"phrase": f"thing {n} ], " + "é" * 3000}, {"phrase": ""}]} for n in range(900)]
    rows = read("visual_genome", tmp_path / "a.json", images)  # larger than a chunk
    assert [row.names for row in rows] == [(f"{n}.jpg",) for n in range(900)]
    assert {len(row.captions) for row in rows} == {1}
    assert rows[899].captions[0].startswith("thing 899 ], é")
    with pytest.raises(ValueError, match="cut short"):
        read("visual_genome", tmp_path / "b.json", json.dumps(images)[:-5])


def test_wit(tmp_path):
    head = "language\timage_url\tcaption_reference_description\tcaption_attribution_description\t"
    text = head + f"caption_alt_text_description\nen\t{URL}\t\tEnglish: a dog\talt\nde\t{URL}\tein Hund\t\t\n"
    assert read("wit", tmp_path / "a.tsv.gz", text) == [Row(("English: a dog",), URL), Row(dropped="not English")]


def test_redcaps(tmp_path):
    annotations = [{"image_id": "abc", "author": "x", "url": URL, "raw_caption": "A DOG", "caption": "a dog"}]
    assert read("redcaps", tmp_path / "a.json", {"info": {}, "annotations": annotations}) == [
        Row(("a dog",), URL, ("abc.jpg",))
    ]


@pytest.mark.parametrize("columns", [23, 25])
def test_yfcc100m(tmp_path, columns):
    def line(title, description, marker="0"):
        fields = ["x"] * 23
        fields[0], fields[6], fields[7], fields[14], fields[22] = "77", title, description, URL, marker
        return "\t".join(fields if columns == 23 else ["0", "77", "hash", *fields[1:]]) + "\n"

    text = line("Birthday+party+for+Anna", "") + line("a", "b") + line("", "The+old+church", "1") + "short\n"
    assert read("yfcc100m", tmp_path / "a", text) == [
        Row(("Birthday party for Anna",), URL, ("77",)),
        Row(dropped="too few words"),
        Row(dropped="video"),
        Row(dropped="malformed line"),
    ]


def test_records_as_facebook_pmd_has_them(tmp_path):
    records = [
        {"image_url": URL, "text": "a dog", "source": "coco", "meta": "{}"},
        {"image_url": URL, "texts": ["first", "second"], "source": "yfcc100m", "meta": "{}"},
        {"image_url": URL, "text": None, "source": "coco", "meta": "{}"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    expected = [Row(("a dog",), URL), Row(("first",), URL), Row(dropped="no text")]
    assert list(read_pmd_records(tmp_path / "a.jsonl")) == expected
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist(records[:1]), tmp_path / "a.parquet")
    assert list(read_pmd_records(tmp_path / "a.parquet")) == expected[:1]
