"""Files of a text corpus. Files beside the texts, such as lists of URLs, are left out."""

import logging
import re
from pathlib import Path

from mmf_flava.data.names import is_hidden
from mmf_flava.data.prepare.rows import file_boundary
from mmf_flava.data.prepare.source_files import COMPRESSED_SUFFIXES, open_bytes, open_text
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.text_file import is_binary

logger = logging.getLogger(__name__)

# suffix -> kind; a suffix of a compression may follow
KINDS = {
    ".txt": "txt",
    ".text": "txt",
    ".json": "json",
    ".jsonl": "json",
    ".jl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
SUFFIXES = tuple(KINDS)
# files beside the texts, by name without suffixes: documentation, and metadata of Hugging Face's datasets
SIDE_NAMES = re.compile(
    r"(read[ _-]?me|licen[cs]e|copying|notice|changelog|citation|authors|manifest|requirements|dataset_infos?|"
    r"dataset_dict|state|.*(md5|sha1|sha256)sums?)",
    re.IGNORECASE,
)
SAMPLE = 1 << 14  # characters by which a list is recognised
MIN_SHARE = 0.9  # of the lines
LISTS = {
    "a list of URLs": re.compile(r"(\S+\s+)?\w+://\S+(\s+\S+)?"),
    "a list of files": re.compile(r".*\w\.(txt|epub|html?|pdf|jsonl?|parquet|gz|zip|tar)"),
    "a list of checksums": re.compile(r"[0-9a-fA-F]{32,128}\s.*"),
}


def kind_of(path: Path) -> str:
    """Return ``txt``, ``json``, ``parquet`` or ``arrow`` by the suffix of a file, or an empty string."""
    name = path.name.lower()
    for compressed in COMPRESSED_SUFFIXES:
        name = name.removesuffix(compressed)
    return next((kind for suffix, kind in KINDS.items() if name.endswith(suffix)), "")


def text_files(src: Path) -> list[Path]:
    """Return the file ``src`` or the text files at any depth below it, sorted.

    Raises:
        UserError: there are none.
    """
    expected = f"Expected {', '.join(SUFFIXES)} files, also compressed ({', '.join(COMPRESSED_SUFFIXES)})."
    if src.is_file():
        if not kind_of(src):
            raise UserError(f"{src}: no text files found. {expected}")
        return [src]
    found = [
        path for path in sorted(src.rglob("*")) if kind_of(path) and not _is_hidden(path, src) and not path.is_dir()
    ]
    side = {path: reason for path in found if (reason := side_file(path))}
    if side:
        names = join_first([f"{path.relative_to(src)} ({reason})" for path, reason in side.items()])
        logger.warning("%s: %s left out, because they are not texts: %s", src, _count(len(side)), names)
    files = [path for path in found if path not in side]
    if not files:
        raise UserError(f"{src}: no text files found. {expected}")
    return files


def side_file(path: Path) -> str:
    """Return why a file is not a text of the corpus, or an empty string.

    Raises:
        UserError: the file cannot be read.
    """
    if SIDE_NAMES.fullmatch(path.name.partition(".")[0]):
        return "by its name"
    if kind_of(path) != "txt":
        return ""
    with file_boundary(lambda problem: UserError(f"{path} cannot be read ({problem}). Copy or download it again.")):
        with open_bytes(path) as file:
            if is_binary(file):
                return "a binary file"
        with open_text(path) as text:
            lines = [line.strip() for line in text.read(SAMPLE).split("\n") if line.strip()]
    lines = lines[:-1] if len(lines) > 1 else lines  # the last line may be cut
    matching = {name: sum(bool(pattern.fullmatch(line)) for line in lines) for name, pattern in LISTS.items()}
    return next((name for name, count in matching.items() if lines and count >= MIN_SHARE * len(lines)), "")


def _is_hidden(path: Path, root: Path) -> bool:
    return any(map(is_hidden, path.relative_to(root).parts))


def _count(number: int) -> str:
    return "1 file is" if number == 1 else f"{number:,} files are"
