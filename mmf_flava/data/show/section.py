"""One dataset of the page: its figures, its charts and its cards, in words."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.mixture import Mixture
from mmf_flava.data.pmd import PMDDataset
from mmf_flava.data.shards import ShardReader
from mmf_flava.data.show import charts
from mmf_flava.data.show.built import Built, read_built
from mmf_flava.data.show.charts import Bars, Histogram, Scatter
from mmf_flava.data.show.samples import Card, label_name
from mmf_flava.data.show.statistics import Bad, Statistics
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.text_corpus import TextCorpusDataset

MOST_NAMED = 30  # labels with a bar and a name each
MOST_BAD = 20
Fact = tuple[str, str]


@dataclass(frozen=True)
class Figure:
    """A chart, and a sentence on it."""

    title: str
    says: str
    chart: Histogram | Bars | Scatter


@dataclass(frozen=True)
class Section:
    """One dataset as template.html shows it."""

    name: str
    unit: str  # what there are
    size: int
    looked_at: int
    bad_records: int
    tiles: list[tuple[str, str, str]]  # label, figure, note
    facts: list[Fact]
    cards: list[Card]
    trouble: str | None  # why there are fewer cards than asked for
    figures: list[Figure]
    bad: list[Bad]  # the first MOST_BAD
    reasons: Bars | None
    built: list[tuple[Built, Bars | None]]


def count(value: float) -> str:
    """1234.0 -> "1,234"."""
    return f"{value:,.0f}"


def make_section(
    dataset: StreamDataset, paths: Sequence[str | Path], cards: list[Card], trouble: str | None, found: Statistics
) -> Section:
    """Puts together what is known of one split of a dataset, whose YAML lists ``paths``."""
    reasons = Counter(bad.reason for bad in found.bad)
    return Section(
        name=dataset.name,
        unit="blocks of text" if isinstance(dataset, TextCorpusDataset) else "records",
        size=len(dataset),
        looked_at=found.looked_at,
        bad_records=len(found.bad),
        tiles=_tiles(dataset, found),
        facts=_facts(dataset, paths, found),
        cards=cards,
        trouble=trouble,
        figures=_figures(dataset, found),
        bad=found.bad[:MOST_BAD],
        reasons=charts.bars(dict(reasons.most_common())) if reasons else None,
        built=[(built, charts.bars(built.dropped) if built.dropped else None) for built in read_built(paths)],
    )


def _tiles(dataset: StreamDataset, found: Statistics) -> list[tuple[str, str, str]]:
    unit = "Blocks of text" if isinstance(dataset, TextCorpusDataset) else "Records"
    tiles = [(unit, f"{len(dataset):,}", f"{found.looked_at:,} looked at")]
    if isinstance(dataset, ImageStreamDataset):
        note = "cannot be used; the next record stands in" if found.bad else "all that were looked at can be used"
        tiles.append(("Bad records", f"{len(found.bad):,}", note))
    for label, share, note in (
        ("Masked patches", found.masked_patches, "{:.1f} of {:.0f} a sample"),
        ("Masked tokens", found.masked_tokens, "{:.1f} of {:.1f} a sample"),
    ):
        if share.value is not None:
            each = (share.part / found.samples, share.whole / found.samples)
            tiles.append((label, percent(share.value), note.format(*each)))
    if isinstance(dataset, PMDDataset) and dataset.mismatch_probability and found.samples:
        asked = f"asked for: {percent(dataset.mismatch_probability, 0)}"
        tiles.append(("Mismatched pairs", percent(found.mismatched.value), asked))
    return tiles


def _order(dataset: StreamDataset) -> str:
    if not dataset.training:
        return "as in the files"
    if isinstance(dataset.order, Mixture):
        return f"parts mixed by weight, {dataset.order.size:,} samples in the first epoch"
    return f"shuffled in blocks of {dataset.order.block_size:,}"


def _facts(dataset: StreamDataset, paths: Sequence[str | Path], found: Statistics) -> list[Fact]:
    facts = [("Paths", "\n".join(map(str, paths))), ("Seed", str(dataset.seed)), ("Order", _order(dataset))]
    if isinstance(dataset, ImageStreamDataset):
        facts += _image_facts(dataset)
    if isinstance(dataset, TextCorpusDataset):
        tokens, documents = sum(map(len, dataset.files)), sum(file.meta["documents"] for file in dataset.files)
        facts.append(("Text", f"{tokens:,} tokens of {documents:,} documents"))
    if hasattr(dataset, "text_processor"):
        processor = dataset.text_processor
        how = f"{'whole words' if processor.whole_word else 'single tokens'}, {processor.replace}"
        facts += [
            ("Vocabulary", f"{processor.vocab_size:,} tokens"),
            ("Longest text", f"{processor.max_length} tokens with [CLS] and [SEP]"),
            ("Masking of text", f"{percent(processor.mask_probability, 0)} of the tokens, {how}"),
            ("Unknown tokens", percent(found.unknown.value, 2)),
        ]
    return [(label, value) for label, value in facts if value]


def _image_facts(dataset: ImageStreamDataset) -> list[Fact]:
    processor = dataset.image_processor
    side, (rows, columns) = processor.image_size, processor.grid
    low, high = processor.crop_scale
    readers = getattr(dataset.records, "readers", [dataset.records])
    sizes = [size for reader in readers if isinstance(reader, ShardReader) for _, size in reader.shard_sizes()]
    crops = f"{100 * low:.0f} to {percent(high, 0)} of the area" if dataset.training else "the whole picture, squashed"
    codebook = processor.codebook_size
    facts = [
        ("Shards", f"{len(sizes):,}, {charts.size_in_bytes(sum(sizes))}" if sizes else ""),
        ("Encoder's view", f"{side} x {side} pixels, {rows} x {columns} patches"),
        ("Codebook's view", f"{codebook} x {codebook} pixels" if codebook else ""),
        ("Crops", crops),
        ("Fixed views", str(dataset.views) if dataset.training and dataset.views else ""),
        ("Masking of patches", f"up to {processor.target}, in blocks of {processor.min_block} or more"),
    ]
    if dataset.codes is not None:
        book = dataset.codes.header["codebook"]
        facts.append(("Cached codes", f"{dataset.codes.path}, {book['type']}, {dataset.codes.vocab_size:,} entries"))
    return facts


def _figures(dataset: StreamDataset, found: Statistics) -> list[Figure]:
    figures = []
    if found.sizes:
        side, total = dataset.image_processor.image_size, sum(found.sizes.values())
        below = percent(sum(number for size, number in found.sizes.items() if min(size) < side) / total)
        figures += [
            Figure(
                "Image sizes",
                f"{below} have a side below the encoder's {side} pixels (dotted; the diagonal is square).",
                charts.scatter(found.sizes, side),
            ),
            Figure("Width to height", "", charts.aspects(found.sizes)),
            Figure("Formats and modes", "", charts.bars(dict(found.formats.most_common()))),
            Figure(
                "Bytes a record",
                _middle(found.record_bytes, charts.size_in_bytes),
                charts.octaves(found.record_bytes, charts.size_in_bytes),
            ),
        ]
    if found.words:
        longest = dataset.text_processor.max_length
        cut = sum(length > longest for length in found.tokens) / len(found.tokens)
        figures += [
            Figure("Words a caption", _middle(found.words), charts.histogram(found.words)),
            Figure(
                "Tokens a caption",
                f"{_middle(found.tokens)} {percent(cut)} are cut at {longest}.",
                charts.histogram(found.tokens, longest, f"cut at {longest}"),
            ),
            Figure("Captions an image", _middle(found.captions), charts.histogram(found.captions)),
        ]
    if found.labels:
        figures.append(_labels(dataset, found.labels))
    if found.documents:
        words = f"{_middle(found.documents)} Blocks cross from one document into the next."
        figures.append(Figure("Tokens a document", words, charts.octaves(found.documents, count)))
    return figures


def _labels(dataset: StreamDataset, labels: Counter[int]) -> Figure:
    says = f"{len(labels):,} different ones."
    if len(labels) > MOST_NAMED:
        return Figure("Labels", says, charts.histogram(list(labels.elements())))
    names = {label_name(dataset, label): labels[label] for label in sorted(labels)}
    return Figure("Labels", says, charts.bars(names))


def _middle(values: list[int], wording: Callable[[Any], str] = count) -> str:
    low, middle, high = (wording(value) for value in (min(values), np.median(values), max(values)))
    return f"All {low}." if low == high else f"Half have {middle} or less; {low} to {high}."


def percent(share: float | None, digits: int = 1) -> str:
    """0.5 -> "50.0 %"; nothing where there is no share."""
    return "" if share is None else f"{100 * share:.{digits}f} %"
