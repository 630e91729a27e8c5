"""Statistics of a dataset, computed from evenly spaced records."""

import io
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from mmf_flava.data.annotations import parse_annotation, parse_label
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.masking import IGNORED
from mmf_flava.data.pmd import PMDDataset
from mmf_flava.data.prepare.caption_rules import count_words
from mmf_flava.data.processors import FlavaTextProcessor
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Record, record_boundary
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.text_corpus import TextCorpusDataset
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError

SIDEWAYS = (5, 6, 7, 8)  # Exif orientations that swap width and height


@dataclass(frozen=True)
class InvalidRecord:
    """A bad record: its index, the reason and the error message."""

    number: int  # index in the dataset's records
    reason: str
    message: str


@dataclass
class Ratio:
    """A ratio with an accumulated numerator and denominator."""

    numerator: int = 0
    denominator: int = 0

    def add(self, numerator: int, denominator: int) -> None:
        self.numerator += numerator
        self.denominator += denominator

    @property
    def value(self) -> float | None:
        return self.numerator / self.denominator if self.denominator else None


@dataclass
class Statistics:
    """Statistics of ``examined`` records. Lists have one value per record, caption or document."""

    examined: int = 0
    samples: int = 0  # number of samples in the ratios of masked and mismatched inputs
    bad: list[InvalidRecord] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) after Exif rotation
    formats: Counter[str] = field(default_factory=Counter)
    record_bytes: list[int] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    captions: list[int] = field(default_factory=list)  # captions per image
    words: list[int] = field(default_factory=list)  # words per caption
    tokens: list[int] = field(default_factory=list)  # tokens per caption with [CLS] and [SEP], before truncation
    documents: list[int] = field(default_factory=list)  # tokens per document of a text corpus
    unknown: Ratio = field(default_factory=Ratio)  # [UNK] tokens
    masked_patches: Ratio = field(default_factory=Ratio)
    masked_tokens: Ratio = field(default_factory=Ratio)
    mismatched: Ratio = field(default_factory=Ratio)


def evenly_spaced(size: int, limit: int) -> list[int]:
    """Return at most ``limit`` evenly spaced integers from 0 to size - 1."""
    count = min(size, limit)
    return [step * size // count for step in range(count)]


def compute_statistics(dataset: StreamDataset, limit: int, progress: bool = True) -> Statistics:
    """Compute statistics of at most ``limit`` records and as many samples of the first epoch, both evenly spaced."""
    statistics = Statistics()
    errors = UnexpectedErrors(f"dataset {dataset.name} ({dataset.dataset_type})", tqdm.write)
    samples_failed = False  # whether no valid record was found for a sample
    for number in tqdm(evenly_spaced(dataset.size, limit), desc=dataset.name, unit="record", disable=not progress):
        statistics.examined += 1
        try:
            add_record(dataset, number, statistics)
            errors.add_good()
        except BadRecord as error:
            statistics.bad.append(InvalidRecord(number, error.reason, error.message))
            errors.add_bad(error.failure)
        if not samples_failed:
            try:
                _add_sample(statistics, dataset, number * len(dataset) // dataset.size)
            except UserError:
                samples_failed = True
    if isinstance(dataset, TextCorpusDataset):
        for file in dataset.files:
            starts = evenly_spaced(file.meta["documents"], limit)
            statistics.documents += [int(np.diff(file.read_documents(start, 2))[0]) for start in starts]
    return statistics


def add_record(dataset: StreamDataset, number: int, statistics: Statistics) -> None:
    """Add a record to ``statistics``. Raise BadRecord if no sample can be made of it."""
    dataset.read_record(number)
    if isinstance(dataset, ImageStreamDataset):
        with record_boundary(f"record {number}"):
            _add_image_record(statistics, dataset, number)


def _add_image_record(statistics: Statistics, dataset: ImageStreamDataset, number: int) -> None:
    record = dataset.records.read(number)
    has_captions = isinstance(dataset, PMDDataset) and not dataset.images_only
    captions, label = parse_annotation(record) if has_captions else ([], parse_label(record))
    _add_header(statistics, record)
    statistics.record_bytes.append(sum(map(len, record.fields.values())))
    if label >= 0:
        statistics.labels[label] += 1
    if captions:
        statistics.captions.append(len(captions))
        _add_captions(statistics, captions, dataset.text_processor)


def _add_header(statistics: Statistics, record: Record) -> None:
    data = next(record.fields[extension] for extension in IMAGE_EXTENSIONS if extension in record.fields)
    with Image.open(io.BytesIO(data)) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        statistics.sizes[image.size[::-1] if sideways else image.size] += 1
        statistics.formats[f"{image.format} {image.mode}"] += 1


def _add_captions(statistics: Statistics, captions: list[str], processor: FlavaTextProcessor) -> None:
    statistics.words += map(count_words, captions)
    for encoding in processor.tokenizer.encode_batch(captions, add_special_tokens=False):
        statistics.tokens.append(len(encoding.ids) + 2)
        statistics.unknown.add(encoding.ids.count(processor.special.unk), len(encoding.ids))


def _add_sample(statistics: Statistics, dataset: StreamDataset, number: int) -> None:
    """Count the masked patches and tokens of sample ``number``. Raise UserError if no valid record is found."""
    sample = dataset[number]
    statistics.samples += 1
    if "image_patch_mask" in sample:
        mask = sample["image_patch_mask"]
        statistics.masked_patches.add(int(mask.sum()), len(mask))
    if "lm_label_ids" in sample:
        labels = sample["lm_label_ids"]
        statistics.masked_tokens.add(
            int((labels != IGNORED).sum()), len(labels) - 2
        )  # [CLS] and [SEP] are never masked
    if "is_correct" in sample:
        statistics.mismatched.add(1 - sample["is_correct"], 1)
    if isinstance(dataset, TextCorpusDataset):
        ids = sample["input_ids"]
        statistics.unknown.add(int((ids == dataset.text_processor.special.unk).sum()), len(ids) - 2)
