"""Text corpora: text files, JSON Lines and JSON arrays."""

import json
from pathlib import Path

from mmf_flava.data.prepare.documents import documents
from mmf_flava.errors import UserError
from tests.faults.file_format import Delivered, Format

ROWS = 12


class TextCorpus(Format):
    """The files of a corpus. A changed file is refused, or its untouched JSON lines are delivered."""

    name, targets = "text corpus", ("a.txt", "b.jsonl", "c.json")

    def make(self, folder: Path, seed: int) -> None:
        texts = [f"text {seed} {number} Käfer <b>and</b> &amp;\n" for number in range(ROWS)]
        rows = [{"title": "x", "text": text, "url": "http://x"} for text in texts]
        (folder / "a.txt").write_text("\n".join(texts), encoding="utf-8")
        (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "c.json").write_text(json.dumps(rows, indent=1))

    def read(self, folder: Path) -> Delivered:
        delivered: Delivered = {}
        for target in self.targets:
            try:
                delivered[target] = list(documents([folder / target]))
            except UserError as error:
                assert len(str(error)) < 2000
        return delivered

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for other in set(self.targets) - {target}:
            assert delivered[other] == valid[other], "an untouched file was changed"
        if target == "b.jsonl" and target in delivered:
            original = dict(zip(before.splitlines(), valid[target], strict=True))
            for line in after.split(b"\n"):
                assert line not in original or original[line] in delivered[target], f"{line!r} was lost"
