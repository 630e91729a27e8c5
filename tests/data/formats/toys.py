"""Toy data of a user: small images whose pixels differ, with ids, captions and labels; and what a reader delivers."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmf_flava.data.annotations import parse_annotation, to_captions
from mmf_flava.data.record import IMAGE_EXTENSIONS, Record, Records

NAMES = ("cat", "dog", "owl")


class Pet(NamedTuple):
    """One toy record."""

    id: str
    image: bytes
    caption: str
    label: str


def make_pets(count: int = 8, kind: str = "PNG") -> list[Pet]:
    """Return toy records. Ids have dots, captions have commas, quotes and letters that are not ASCII."""
    pets = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(256, size=(6, 5, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        label = NAMES[number % 3]
        pets.append(Pet(f"pet.{number}", file.getvalue(), f'a "grüner", {label} no. {number}', label))
    return pets


def pixel_hash(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def image_of(record: Record) -> bytes:
    return next(data for extension, data in record.fields.items() if extension in IMAGE_EXTENSIONS)


def annotation(record: Record) -> dict[str, Any]:
    return json.loads(record.fields["json"])


def delivered(records: Records) -> list[tuple[str, str, list[str], Any]]:
    """Return the key, the hash of the pixels, the captions and the label of every record."""
    found = []
    for number in range(len(records)):
        record = records.read(number)
        found.append((record.key, pixel_hash(image_of(record)), captions_of(record), annotation(record).get("label")))
    return found


def captions_of(record: Record) -> list[str]:
    return parse_annotation(record)[0] if "txt" in record.fields else to_captions(annotation(record))


def expected(pets: list[Pet]) -> list[tuple[str, str, list[str], Any]]:
    return [(pet.id, pixel_hash(pet.image), [pet.caption], pet.label) for pet in pets]


def write_images(pets: list[Pet], folder: Path) -> list[str]:
    """Write the images into ``folder`` and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for pet in pets:
        (folder / f"{pet.id}.png").write_bytes(pet.image)
    return [f"{pet.id}.png" for pet in pets]
