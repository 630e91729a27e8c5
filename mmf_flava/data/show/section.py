"""Section of the HTML page for one dataset: counts, settings, charts and sample cards."""

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
from mmf_flava.data.show.charts import BarChart, Histogram, Scatter
from mmf_flava.data.show.pmd_manifest import PmdManifest, read_manifests
from mmf_flava.data.show.samples import SampleCard, label_name
from mmf_flava.data.show.statistics import InvalidRecord, Statistics
from mmf_flava.data.stream import StreamDataset
from mmf_flava.data.text_corpus import TextCorpusDataset
from mmf_flava.errors import hide_address

MAX_NAMED_LABELS = 30  # more labels are shown as a histogram without names
MAX_INVALID = 20  # maximum number of listed bad records
Setting = tuple[str, str]  # name, value


@dataclass(frozen=True)
class Plot:
    """A chart with a title and a one-sentence summary."""

    title: str
    summary: str
    chart: Histogram | BarChart | Scatter


@dataclass(frozen=True)
class Section:
    """Content of a dataset's page section, rendered by template.html."""

    name: str
    unit: str  # "records" or "blocks of text"
    size: int
    examined: int
    bad_records: int
    tiles: list[tuple[str, str, str]]  # label, value, note
    settings: list[Setting]
    cards: list[SampleCard]
    error: str | None  # error message, if fewer cards than requested were created
    plots: list[Plot]
    bad: list[InvalidRecord]  # the first MAX_INVALID bad records
    reasons: BarChart | None
    manifests: list[tuple[PmdManifest, BarChart | None]]


def format_count(value: float) -> str:
    """Format a number with thousands separators: 1234.0 -> "1,234"."""
    return f"{value:,.0f}"


def make_section(
    dataset: StreamDataset,
    paths: Sequence[str | Path],
    cards: list[SampleCard],
    error: str | None,
    statistics: Statistics,
) -> Section:
    """Return the page section of one split of a dataset; ``paths`` are the split's paths in the config."""
    reasons = Counter(bad.reason for bad in statistics.bad)
    return Section(
        name=dataset.name,
        unit="blocks of text" if isinstance(dataset, TextCorpusDataset) else "records",
        size=len(dataset),
        examined=statistics.examined,
        bad_records=len(statistics.bad),
        tiles=_tiles(dataset, statistics),
        settings=_settings(dataset, paths, statistics),
        cards=cards,
        error=error,
        plots=_plots(dataset, statistics),
        bad=statistics.bad[:MAX_INVALID],
        reasons=charts.build_bar_chart(dict(reasons.most_common())) if reasons else None,
        manifests=[
            (manifest, charts.build_bar_chart(manifest.dropped) if manifest.dropped else None)
            for manifest in read_manifests(paths)
        ],
    )


def _tiles(dataset: StreamDataset, statistics: Statistics) -> list[tuple[str, str, str]]:
    unit = "Blocks of text" if isinstance(dataset, TextCorpusDataset) else "Records"
    tiles = [(unit, f"{len(dataset):,}", f"{statistics.examined:,} examined")]
    if isinstance(dataset, ImageStreamDataset) or statistics.bad:
        note = "replaced by the next valid record" if statistics.bad else "all examined records are valid"
        tiles.append(("Bad records", f"{len(statistics.bad):,}", note))
    for label, ratio, note in (
        ("Masked patches", statistics.masked_patches, "{:.1f} of {:.0f} per sample"),
        ("Masked tokens", statistics.masked_tokens, "{:.1f} of {:.1f} per sample"),
    ):
        if ratio.value is not None:
            means = (ratio.numerator / statistics.samples, ratio.denominator / statistics.samples)
            tiles.append((label, format_percent(ratio.value), note.format(*means)))
    if isinstance(dataset, PMDDataset) and dataset.mismatch_probability and statistics.samples:
        configured = f"configured: {format_percent(dataset.mismatch_probability, 0)}"
        tiles.append(("Mismatched pairs", format_percent(statistics.mismatched.value), configured))
    return tiles


def _order(dataset: StreamDataset) -> str:
    if not dataset.training:
        return "file order"
    if isinstance(dataset.order, Mixture):
        return f"weighted mixture, {dataset.order.size:,} samples in the first epoch"
    return f"shuffled, {len(dataset.order.units):,} shards or sources in {dataset.order.lanes:,} lanes"


def _settings(dataset: StreamDataset, paths: Sequence[str | Path], statistics: Statistics) -> list[Setting]:
    settings = [("Paths", "\n".join(map(hide_address, paths))), ("Seed", str(dataset.seed)), ("Order", _order(dataset))]
    if isinstance(dataset, ImageStreamDataset):
        settings += _image_settings(dataset)
    if isinstance(dataset, TextCorpusDataset):
        tokens, documents = sum(map(len, dataset.files)), sum(file.meta["documents"] for file in dataset.files)
        settings.append(("Text", f"{tokens:,} tokens in {documents:,} documents"))
    if (processor := getattr(dataset, "text_processor", None)) is not None:
        method = f"{'whole words' if processor.whole_word else 'single tokens'}, {processor.replace}"
        settings += [
            ("Vocabulary", f"{processor.vocab_size:,} tokens"),
            ("Maximum text length", f"{processor.max_length} tokens with [CLS] and [SEP]"),
            ("Text masking", f"{format_percent(processor.mask_probability, 0)} of the tokens, {method}"),
            ("Unknown tokens", format_percent(statistics.unknown.value, 2)),
        ]
    return [(label, value) for label, value in settings if value]


def _image_settings(dataset: ImageStreamDataset) -> list[Setting]:
    readers = getattr(dataset.records, "readers", [dataset.records])
    sizes = [size for reader in readers if isinstance(reader, ShardReader) for _, size in reader.shard_sizes()]
    shards = ("Shards", f"{len(sizes):,}, {charts.format_bytes(sum(sizes))}" if sizes else "")
    is_multicrop = hasattr(dataset.image_processor, "num_local")
    return [shards, *(_multicrop_settings(dataset.image_processor) if is_multicrop else _mask_settings(dataset))]


def _multicrop_settings(processor: Any) -> list[Setting]:
    return [
        (f"{name} crops", f"{number} of {side} x {side} pixels, {_area(scale)}" if number else "none")
        for name, number, side, scale in (
            ("Global", 2, processor.image_size, processor.global_scale),
            ("Local", processor.num_local, processor.local_size, processor.local_scale),
        )
    ]


def _area(scale: Sequence[float]) -> str:
    return f"{100 * scale[0]:.0f} to {format_percent(scale[1], 0)} of the area"


def _mask_settings(dataset: ImageStreamDataset) -> list[Setting]:
    processor = dataset.image_processor
    side, (rows, columns) = processor.image_size, processor.grid
    codebook = processor.codebook_size
    masking = f"up to {processor.target}, in blocks of at least {processor.min_block}" if processor.mask else "none"
    settings = [
        ("Encoder input", f"{side} x {side} pixels, {rows} x {columns} patches"),
        ("Codebook input", f"{codebook} x {codebook} pixels" if codebook else ""),
        ("Crops", _area(processor.crop_scale) if dataset.training else "none: the whole image is resized"),
        ("Fixed crops per image", str(dataset.views) if dataset.training and dataset.views else ""),
        ("Patch masking", masking),
    ]
    if dataset.codes is not None:
        kind = dataset.codes.header["codebook"]["type"]
        settings.append(("Cached codes", f"{dataset.codes.folder}, {kind}, {dataset.codes.vocab_size:,} entries"))
    return settings


def _plots(dataset: StreamDataset, statistics: Statistics) -> list[Plot]:
    plots = []
    if statistics.sizes:
        side, total = dataset.image_processor.image_size, sum(statistics.sizes.values())
        smaller = sum(number for size, number in statistics.sizes.items() if min(size) < side)
        plots += [
            Plot(
                "Image sizes",
                f"{format_percent(smaller / total)} are smaller than the encoder's {side} pixels (dotted lines; the "
                "diagonal marks square images).",
                charts.build_scatter(statistics.sizes, side),
            ),
            Plot("Aspect ratio (width to height)", "", charts.build_aspect_chart(statistics.sizes)),
            Plot("Formats and modes", "", charts.build_bar_chart(dict(statistics.formats.most_common()))),
            Plot(
                "Bytes per record",
                _summarise(statistics.record_bytes, charts.format_bytes),
                charts.build_log2_histogram(statistics.record_bytes, charts.format_bytes),
            ),
        ]
    if statistics.words:
        longest = dataset.text_processor.max_length
        truncated = sum(length > longest for length in statistics.tokens) / len(statistics.tokens)
        plots += [
            Plot("Words per caption", _summarise(statistics.words), charts.build_histogram(statistics.words)),
            Plot(
                "Tokens per caption",
                f"{_summarise(statistics.tokens)} {format_percent(truncated)} are truncated at {longest}.",
                charts.build_histogram(statistics.tokens, longest, f"truncated at {longest}"),
            ),
            Plot("Captions per image", _summarise(statistics.captions), charts.build_histogram(statistics.captions)),
        ]
    if statistics.labels:
        plots.append(_label_plot(dataset, statistics.labels))
    if statistics.documents:
        summary = f"{_summarise(statistics.documents)} Blocks cross document boundaries."
        histogram = charts.build_log2_histogram(statistics.documents, format_count)
        plots.append(Plot("Tokens per document", summary, histogram))
    return plots


def _label_plot(dataset: StreamDataset, labels: Counter[int]) -> Plot:
    summary = f"{len(labels):,} distinct labels."
    if len(labels) > MAX_NAMED_LABELS:
        return Plot("Labels", summary, charts.build_histogram(list(labels.elements())))
    names = {label_name(dataset, label): labels[label] for label in sorted(labels)}
    return Plot("Labels", summary, charts.build_bar_chart(names))


def _summarise(values: list[int], format_value: Callable[[Any], str] = format_count) -> str:
    low, median, high = (format_value(value) for value in (min(values), np.median(values), max(values)))
    return f"All {low}." if low == high else f"Median {median}, range {low} to {high}."


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage: 0.5 -> "50.0 %", None -> ""."""
    return "" if fraction is None else f"{100 * fraction:.{digits}f} %"
