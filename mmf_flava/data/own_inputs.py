"""What a classifier of the user's own data gets as input: images, texts or both."""

from collections.abc import Iterable

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.formats.image_paths import image_exists
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Records, record_boundary
from mmf_flava.data.records import split_readers
from mmf_flava.errors import UserError

INPUTS = ("image", "text")
ROLES = {"image": "image", "text": "caption"}  # input -> key of ``columns``
SAMPLED = 64  # records of a shard in which images and texts are looked for


def find_inputs(records: Records, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return which of the wanted inputs (image, text) any of the records has.

    Raises:
        UserError: several columns of a list may have the texts.
    """
    return tuple(kind for kind in INPUTS if kind in wanted and any(_has(one, kind) for one in split_readers(records)))


def require_inputs(records: Records, source: str, needed: Iterable[str], why: str) -> None:
    """Raise UserError if no record has one of the needed inputs.

    Args:
        source: where the records are from.
        why: why the inputs are needed, for the message.
    """
    needed = tuple(needed)
    missing = [kind for kind in needed if kind not in find_inputs(records, needed)]
    for kind in missing:
        for reader in split_readers(records):
            if isinstance(reader, ImageList):
                reader.require(ROLES[kind])
        names = " and ".join(f"{kind}s" for kind in needed)
        raise UserError(f"{source} has no {kind}s, but {why} {names}. Add them, or name their column by columns.")


def vanished_images(records: Records) -> list[bool]:
    """Return for each record whether it is a row of a table with an image file that does not exist."""
    flags: list[bool] = []
    for reader in split_readers(records):
        if isinstance(reader, ImageList):
            root = reader.images
            flags += [image is not None and not image_exists(root, image) for image in reader.values("image")]
        else:
            flags += [False] * len(reader)
    return flags


def _has(reader: Records, kind: str) -> bool:
    if isinstance(reader, ImageList):
        if reader.columns.is_ambiguous(ROLES[kind]):
            reader.require(ROLES[kind])
        return any(reader.values("image" if kind == "image" else "captions"))
    if isinstance(reader, ImageFolder):
        return kind == "image" or reader.beside.total() > 0
    return any(_record_has(reader, index, kind) for index in range(min(len(reader), SAMPLED)))


def _record_has(reader: Records, index: int, kind: str) -> bool:
    try:
        with record_boundary(f"record {index}"):
            record = reader.read(index)
            if kind == "image":
                return not {*record.fields}.isdisjoint(IMAGE_EXTENSIONS)
            captions, _ = parse_annotation(record)
            return bool(captions)
    except BadRecord:
        return False
