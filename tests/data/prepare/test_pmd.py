import json
import os

import pytest

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.prepare import pmd as pmd_module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.pmd import PmdOptions, prepare_pmd
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError

from .process_kills import assert_survives_kills

ROWS = 40


@pytest.fixture
def corpus(tmp_path):
    """40 rows of CC12M and two img2dataset shards. Row 5 has no caption, 6 is malformed, every seventh has no image."""
    lines = [f"http://host/{n}\tcaption number {n}" for n in range(ROWS)]
    lines[5], lines[6] = "http://host/5\t ", "nothing"
    (tmp_path / "cc12m.tsv").write_text("\n".join(lines) + "\n")
    for shard in range(2):
        with ShardWriter(tmp_path / "images" / f"{shard:05d}.tar") as writer:
            for n in range(shard, ROWS, 2):
                if n % 7:
                    metadata = json.dumps({"url": f"http://host/{n}", "key": f"{n:09d}", "caption": "not this"})
                    writer.write(f"{n:09d}", {"jpg": b"pixels %d" % n, "txt": b"no", "json": metadata.encode()})
    return tmp_path


def options(corpus, **kwargs):
    return PmdOptions("cc12m", corpus / "cc12m.tsv", corpus / "images", shard=4, **kwargs)


def test_shards_and_manifest(corpus):
    manifest = prepare_pmd(corpus / "out", options(corpus), progress=False)
    assert manifest["counts"] == {"rows": 40, "images": 32, "pairs": 32}
    assert manifest["dropped"] == {"malformed line": 1, "no image": 6, "no text": 1}
    assert manifest["mean_caption_words"] == 3
    assert manifest["paper"] == {"pairs_millions": 11.0, "mean_caption_words": 17.3}
    assert [shard["records"] for shard in manifest["shards"]] == [3, 1, 4, 3, 4, 3, 4, 3, 3, 4], "of four rows each"
    assert sorted(path.name for path in (corpus / "out").iterdir() if path.suffix != ".index") == [
        *[f"{n:05d}.tar" for n in range(10)],
        "manifest.json",
    ]
    records = open_records(corpus / "out")
    assert records[0].fields["jpg"] == b"pixels 1"
    assert parse_annotation(records[0]) == (["caption number 1"], -1)
    assert json.loads(records[31].fields["json"]) == {
        "captions": ["caption number 39"],
        "source": "cc12m",
        "url": "http://host/39",
    }
    assert prepare_pmd(corpus / "out", options(corpus), progress=False) == manifest


def test_image_files_match_by_name(corpus):
    (corpus / "files/a").mkdir(parents=True)
    (corpus / "files/a/7.png").write_bytes(b"seven")
    (corpus / "files/0af.jpg").write_bytes(b"hex")
    lines = [{"image_id": "0af", "caption": "A cat. It sleeps."}, {"image_id": "7.png", "caption": "Two."}]
    (corpus / "ln.jsonl").write_text("\n".join(map(json.dumps, lines)))
    narratives = PmdOptions("localized_narratives", corpus / "ln.jsonl", corpus / "files")
    assert prepare_pmd(corpus / "out", narratives, progress=False)["counts"] == {"rows": 2, "images": 2, "pairs": 3}
    records = open_records(corpus / "out")
    assert (records[0].fields["jpg"], records[1].fields["png"]) == (b"hex", b"seven")


@pytest.mark.parametrize("seed", range(2))
def test_killed_process_is_resumed_with_the_same_result(corpus, seed):
    arguments = ["pmd", "--part", "cc12m", "--src", str(corpus / "cc12m.tsv"), "--images", str(corpus / "images")]
    assert_survives_kills([*arguments, "--quiet", "--shard", "4"], corpus / "out", seed)


def test_interruption_after_any_write_is_resumed(corpus, monkeypatch):
    """Raise an exception instead of a kill, at each write in turn."""
    expected = prepare_pmd(corpus / "expected", options(corpus), progress=False)
    step, original = 0, os.replace

    def failing(*arguments):
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise KeyboardInterrupt
        original(*arguments)

    while True:
        remaining = step
        monkeypatch.setattr(os, "replace", failing)
        try:
            manifest = prepare_pmd(corpus / f"out{step}", options(corpus), progress=False)
            break
        except KeyboardInterrupt:
            monkeypatch.setattr(os, "replace", original)
            assert prepare_pmd(corpus / f"out{step}", options(corpus), progress=False) == expected
            step += 1
    assert manifest == expected
    assert step > 2 * len(expected["shards"])


def test_error_messages(corpus, capsys):
    prepare_pmd(corpus / "out", options(corpus), progress=False)
    (corpus / "cc12m.tsv").write_text("http://host/1\tother\n")
    with pytest.raises(UserError, match="a different input"):
        prepare_pmd(corpus / "out", options(corpus), progress=False)
    (corpus / "wrong.json").write_text("[]")
    arguments = ["pmd", "--part", "redcaps", "--images", str(corpus / "images"), "--quiet"]
    assert main([*arguments, "--src", str(corpus / "wrong.json"), "--out", str(corpus / "out2")]) == 2
    assert "format of redcaps" in capsys.readouterr().err
    (corpus / "none").mkdir()
    assert main([*arguments, "--src", str(corpus / "none"), "--out", str(corpus / "out3")]) == 2
    assert "no annotations of redcaps" in capsys.readouterr().err
    with pytest.raises(UserError, match="no images found"):
        prepare_pmd(corpus / "out4", PmdOptions("cc12m", corpus / "cc12m.tsv", corpus / "none"), progress=False)
    assert pmd_module.annotation_files(options(corpus)).read == [corpus / "cc12m.tsv"]


def test_annotation_files_with_upper_case_suffixes_are_found(corpus):
    (corpus / "source").mkdir()
    (corpus / "cc12m.tsv").rename(corpus / "source" / "CC12M.TSV")
    (corpus / "source" / "._CC12M.TSV").write_bytes(b"\x00\x05\x16\x07")
    selection = pmd_module.annotation_files(PmdOptions("cc12m", corpus / "source", corpus / "images"))
    assert selection.read == [corpus / "source" / "CC12M.TSV"]
