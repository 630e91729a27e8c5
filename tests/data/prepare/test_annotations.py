import gzip
import json

import pytest

from mmf_flava.data.prepare.annotations import Annotation, read_pmd_records
from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.source_files import read_parquet

URL = "http://host/1.jpg"


def read(part, path, text):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text if isinstance(text, str) else json.dumps(text))
    return list(PARTS[part].reader(path))


def test_coco(tmp_path):
    annotations = {
        "images": [{"id": 7, "file_name": "7.jpg", "coco_url": URL}, {"id": 8, "file_name": "8.jpg", "coco_url": URL}],
        "annotations": [{"image_id": 7, "caption": "one\n"}, {"image_id": 7, "caption": "two"}],
    }
    assert read("coco", tmp_path / "a.json", annotations) == [
        Annotation(("one", "two"), URL, ("7.jpg",)),
        Annotation(dropped="no text"),
    ]
    karpathy = {
        "images": [
            {"filename": "1.jpg", "split": split, "sentences": [{"raw": "a"}]} for split in ("restval", "val", "test")
        ]
    }
    held_out = Annotation(dropped="held out (val or test)")
    assert read("coco", tmp_path / "b.json", karpathy) == [Annotation(("a",), "", ("1.jpg",)), held_out, held_out]


def test_sbu(tmp_path):
    expected = [Annotation(("a dog",), URL)]
    assert read("sbu", tmp_path / "a.json", {"image_urls": [URL], "captions": ["a dog"]}) == expected
    (tmp_path / "sbu_captions.txt").write_text("a dog\n")
    assert read("sbu", tmp_path / "sbu_urls.txt", URL + "\n") == expected


def test_localized_narratives_are_split_into_sentences(tmp_path):
    lines = [{"image_id": "42", "caption": "A cat. It sleeps!  Is it old?"}, {"image_id": "0af", "caption": ""}]
    text = "\n".join(json.dumps({"dataset_id": "x", **line}) for line in lines)
    assert read("localized_narratives", tmp_path / "a.jsonl", text) == [
        Annotation(("A cat.", "It sleeps!", "Is it old?"), "", ("42", "000000000042")),
        Annotation(dropped="no text"),
    ]


def test_conceptual_captions(tmp_path):
    expected = [Annotation(("a dog",), URL), Annotation(dropped="malformed line")]
    assert read("conceptual_captions", tmp_path / "a.tsv", f"a dog\t{URL}\nbroken\n") == expected
    assert read("cc12m", tmp_path / "b.tsv", f"{URL}\ta dog\nbroken\n") == expected


def test_visual_genome_is_read_in_chunks(tmp_path):
    images = [{"id": n, "regions": [{"phrase": f"thing {n} ], " + "é" * 3000}, {"phrase": ""}]} for n in range(900)]
    annotations = read("visual_genome", tmp_path / "a.json", images)  # larger than a chunk
    assert [annotation.names for annotation in annotations] == [(f"{n}.jpg",) for n in range(900)]
    assert {len(annotation.captions) for annotation in annotations} == {1}
    assert annotations[899].captions[0].startswith("thing 899 ], é")
    with pytest.raises(ValueError, match="truncated"):
        read("visual_genome", tmp_path / "b.json", json.dumps(images)[:-5])


def test_wit(tmp_path):
    head = "language\timage_url\tcaption_reference_description\tcaption_attribution_description\t"
    text = head + f"caption_alt_text_description\nen\t{URL}\t\tEnglish: a dog\talt\nde\t{URL}\tein Hund\t\t\n"
    assert read("wit", tmp_path / "a.tsv.gz", text) == [
        Annotation(("English: a dog",), URL),
        Annotation(dropped="not English"),
    ]


def test_redcaps(tmp_path):
    annotations = [{"image_id": "abc", "author": "x", "url": URL, "raw_caption": "A DOG", "caption": "a dog"}]
    assert read("redcaps", tmp_path / "a.json", {"info": {}, "annotations": annotations}) == [
        Annotation(("a dog",), URL, ("abc.jpg",))
    ]


@pytest.mark.parametrize("columns", [23, 25])
def test_yfcc100m(tmp_path, columns):
    def line(title, description, marker="0"):
        fields = ["x"] * 23
        fields[0], fields[6], fields[7], fields[14], fields[22] = "77", title, description, URL, marker
        return "\t".join(fields if columns == 23 else ["0", "77", "hash", *fields[1:]]) + "\n"

    text = line("Birthday+party+for+Anna", "") + line("a", "b") + line("", "The+old+church", "1") + "short\n"
    assert read("yfcc100m", tmp_path / "a", text) == [
        Annotation(("Birthday party for Anna",), URL, ("77",)),
        Annotation(dropped="too few words"),
        Annotation(dropped="video"),
        Annotation(dropped="malformed line"),
    ]


def test_facebook_pmd_records(tmp_path):
    records = [
        {"image_url": URL, "text": "a dog", "source": "coco", "meta": "{}"},
        {"image_url": URL, "texts": ["first", "second"], "source": "yfcc100m", "meta": "{}"},
        {"image_url": URL, "text": None, "source": "coco", "meta": "{}"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    expected = [Annotation(("a dog",), URL), Annotation(("first",), URL), Annotation(dropped="no text")]
    assert list(read_pmd_records(tmp_path / "a.jsonl")) == expected
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist(records[:1]), tmp_path / "a.parquet")
    assert list(read_pmd_records(tmp_path / "a.parquet")) == expected[:1]


def test_a_text_in_place_of_a_list_is_one_caption(tmp_path):
    rows = [{"texts": "a red box"}, {"texts": ["a", "b"]}, {"texts": None, "text": "b"}, {"texts": 3}, {"texts": [""]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"image_url": URL, **row}) + "\n" for row in rows))
    assert list(read_pmd_records(tmp_path / "a.jsonl")) == [
        Annotation(("a red box",), URL),
        Annotation(("a",), URL),
        Annotation(("b",), URL),
        Annotation(dropped="unreadable caption"),
        Annotation(dropped="no text"),
    ]


def test_redcaps_caption_may_be_a_list(tmp_path):
    items = [{"image_id": "1", "url": URL, "caption": caption} for caption in ("a", ["a", "b"], None)]
    found = read("redcaps", tmp_path / "a.json", {"annotations": items})
    assert [annotation.captions for annotation in found] == [("a",), ("a", "b"), ()]


def test_parquet_pages_are_verified(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    table = arrow.table({"text": ["a kettle on a stove"] * 3 + ["a red door"]})
    write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    assert [row["text"] for row in read_parquet(path)][3] == "a red door"
    path.write_bytes(path.read_bytes().replace(b"a red door", b"a bed door"))
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        list(read_parquet(path))
