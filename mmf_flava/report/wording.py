"""Words and figures as a reader wants them: the losses' names, percentages, counts, times."""

SPACE = "\u00a0"  # a figure and its unit stay on one line
NOTHING = "\u2013"  # stands where a run has no such figure

# name of the loss: its full name, and what it asks of the model (FLAVA, section 3)
LOSSES = {
    "flava_global_contrastive": (
        "Global contrastive",
        "Find the caption of each image, and the image of each caption, in the batch.",
    ),
    "flava_mmm_image": (
        "Masked multimodal modeling: image",
        "Name the codebook entry of each hidden patch, with the caption in view.",
    ),
    "flava_mmm_text": (
        "Masked multimodal modeling: text",
        "Name each hidden word of the caption, with the image in view.",
    ),
    "flava_itm": (
        "Image-text matching",
        "Tell whether a caption belongs to its image or was swapped in from another.",
    ),
    "flava_mim": (
        "Masked image modeling",
        "Name the codebook entry of each hidden patch from the rest of the image alone.",
    ),
    "flava_mlm": (
        "Masked language modeling",
        "Name each hidden word from the rest of the sentence alone.",
    ),
}

# kind of an example: what the model had in view
KINDS = {"mim": "image alone", "mlm": "text alone", "mmm": "image and text together"}


def percent(share: float | None, digits: int = 1) -> str:
    """0.964 -> "96.4 %"."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}{SPACE}%"


def count(value: float | None) -> str:
    """76800 -> "76,800"."""
    return NOTHING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """3200000 -> "3.2 M"; below a hundred thousand the figure is written out."""
    if value is None:
        return NOTHING
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e5, "K")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if unit == 'K' else size):.3g}{SPACE}{unit}"
    return count(value)


def operations(per_second: float) -> tuple[float, str]:
    """The unit in which a speed is told: 3.2e13 -> (1e12, "TFLOP/s")."""
    units = ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"))
    return next(((size, unit) for size, unit in units if per_second >= size), (1e9, "GFLOP/s"))


def loss(value: float | None) -> str:
    """Three digits that count: 3.47, 0.421, 12.6."""
    return NOTHING if value is None else f"{value:#.3g}".rstrip(".")


def plain(value: float | None) -> str:
    """A setting as one would type it: 0.001, 1e-05."""
    return NOTHING if value is None else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """214 -> "3 min 34 s"."""
    if seconds is None:
        return NOTHING
    total = round(seconds)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{total}{SPACE}s"
    if minutes < 60:
        return f"{minutes}{SPACE}min{SPACE}{total % 60:02d}{SPACE}s"
    if hours < 48:
        return f"{hours}{SPACE}h{SPACE}{minutes % 60:02d}{SPACE}min"
    return f"{days}{SPACE}d{SPACE}{hours % 24}{SPACE}h"


def listing(words: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
