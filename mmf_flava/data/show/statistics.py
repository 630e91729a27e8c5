"""What a dataset's records are like, measured on a sample that is spread evenly over them."""

import io
from collections import Counter
from dataclasses import dataclass, field

from PIL import ExifTags, Image
from tqdm import tqdm

from mmf_flava.data import pictures
from mmf_flava.data.prepare.caption_rules import count_words
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.imagenet import class_number
from mmf_flava.data.masking import IGNORED
from mmf_flava.data.pmd import PMDDataset, describe
from mmf_flava.data.processors import FlavaTextProcessor
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Record
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.text_corpus import TextCorpusDataset
from mmf_flava.errors import UserError

SIDEWAYS = (5, 6, 7, 8)  # Exif orientations under which width and height change places


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used."""

    number: int  # among the dataset's records
    reason: str
    message: str


@dataclass
class Share:
    """A share that is counted piece by piece."""

    part: int = 0
    whole: int = 0

    def add(self, part: int, whole: int) -> None:
        self.part += part
        self.whole += whole

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None


@dataclass
class Statistics:
    """Of ``looked_at`` records; lists hold one entry a record or a caption, in no order that matters."""

    looked_at: int = 0
    samples: int = 0  # of the stream, over which the shares of what is masked or mismatched are taken
    bad: list[Bad] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) as stored, upright
    formats: Counter[str] = field(default_factory=Counter)
    record_bytes: list[int] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    captions: list[int] = field(default_factory=list)  # of an image
    words: list[int] = field(default_factory=list)  # of a caption
    tokens: list[int] = field(default_factory=list)  # of a caption with [CLS] and [SEP], before any cut
    documents: list[int] = field(default_factory=list)  # tokens of a document of a text corpus
    unknown: Share = field(default_factory=Share)  # tokens that are [UNK]
    masked_patches: Share = field(default_factory=Share)
    masked_tokens: Share = field(default_factory=Share)
    mismatched: Share = field(default_factory=Share)


def spread(size: int, limit: int) -> list[int]:
    """At most ``limit`` numbers of 0..size-1, evenly spread, the same at every call."""
    count = min(size, limit)
    return [step * size // count for step in range(count)]


def measure(dataset: StreamDataset, limit: int, progress: bool = True) -> Statistics:
    """Statistics of at most ``limit`` records, and of as many samples of the first epoch of the stream."""
    found = Statistics()
    stuck = False  # among nothing but bad records
    for number in tqdm(spread(dataset.size, limit), desc=dataset.name, unit="record", disable=not progress):
        found.looked_at += 1
        if isinstance(dataset, ImageStreamDataset) and (bad := examine(dataset, number, found)):
            found.bad.append(bad)
        if not stuck:
            try:
                _add_sample(found, dataset, number * len(dataset) // dataset.size)
            except UserError:
                stuck = True
    if isinstance(dataset, TextCorpusDataset):
        for file in dataset.files:
            starts = spread(len(file.documents) - 1, limit)
            found.documents += [int(file.documents[start + 1] - file.documents[start]) for start in starts]
    return found


def examine(dataset: ImageStreamDataset, number: int, found: Statistics) -> Bad | None:
    """Adds what one record holds to ``found``, or returns why it cannot be used."""
    try:
        _add_record(found, dataset, number)
    except BadRecord as error:
        return Bad(number, error.reason, error.message)
    return None


def _add_record(found: Statistics, dataset: ImageStreamDataset, number: int) -> None:
    record = dataset.records.read(number)
    pictures.decode(record, dataset.image_processor.decode_size)
    captions, label = describe(record) if isinstance(dataset, PMDDataset) else ([], class_number(record))
    if dataset.codes is not None:
        dataset.codes.read(number, 0)
    _add_header(found, record)
    found.record_bytes.append(sum(map(len, record.parts.values())))
    if label >= 0:
        found.labels[label] += 1
    if captions:
        found.captions.append(len(captions))
        _add_captions(found, captions, dataset.text_processor)


def _add_header(found: Statistics, record: Record) -> None:
    data = next(record.parts[extension] for extension in IMAGE_EXTENSIONS if extension in record.parts)
    with Image.open(io.BytesIO(data)) as picture:
        sideways = picture.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        found.sizes[picture.size[::-1] if sideways else picture.size] += 1
        found.formats[f"{picture.format} {picture.mode}"] += 1


def _add_captions(found: Statistics, captions: list[str], processor: FlavaTextProcessor) -> None:
    found.words += map(count_words, captions)
    for encoding in processor.tokenizer.encode_batch(captions, add_special_tokens=False):
        found.tokens.append(len(encoding.ids) + 2)
        found.unknown.add(encoding.ids.count(processor.special.unk), len(encoding.ids))


def _add_sample(found: Statistics, dataset: StreamDataset, number: int) -> None:
    """Adds what the stream's sample ``number`` hides; UserError where no usable record is found."""
    sample = dataset[number]
    found.samples += 1
    if "image_patch_mask" in sample:
        mask = sample["image_patch_mask"]
        found.masked_patches.add(int(mask.sum()), len(mask))
    if "lm_label_ids" in sample:
        labels = sample["lm_label_ids"]
        found.masked_tokens.add(int((labels != IGNORED).sum()), len(labels) - 2)  # [CLS] and [SEP] are never masked
    if "is_correct" in sample:
        found.mismatched.add(1 - sample["is_correct"], 1)
    if isinstance(dataset, TextCorpusDataset):
        ids = sample["input_ids"]
        found.unknown.add(int((ids == dataset.text_processor.special.unk).sum()), len(ids) - 2)
