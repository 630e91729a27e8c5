"""Texts of the report: names of the losses, and formatting of percentages, counts and times."""

from collections.abc import Mapping

SPACE = "\u00a0"  # no line break between a number and its unit
NO_VALUE = "\u2013"  # shown for a missing value

# name of the loss -> title and description (FLAVA paper, section 3; flava_dino: DINO, section 3.1)
LOSSES = {
    "flava_global_contrastive": (
        "Global contrastive",
        "Match each image with its caption and each caption with its image within the batch. A larger batch has more "
        "negatives and a higher loss.",
    ),
    "flava_mmm_image": (
        "Masked multimodal modeling: image",
        "Predict the visual codebook token of each masked patch from the image and its caption.",
    ),
    "flava_mmm_text": (
        "Masked multimodal modeling: text",
        "Predict each masked token of the caption from the caption and its image.",
    ),
    "flava_itm": (
        "Image-text matching",
        "Classify whether a caption matches its image.",
    ),
    "flava_mim": (
        "Masked image modeling",
        "Predict the visual codebook token of each masked patch from the image.",
    ),
    "flava_mlm": (
        "Masked language modeling",
        "Predict each masked token from the text.",
    ),
    "flava_dino": (
        "Self-distillation",
        "Predict the teacher's output for a global crop from another crop of the image.",
    ),
}

# kind of example -> inputs of the model
EXAMPLE_KINDS = {"mim": "image only", "mlm": "text only", "mmm": "image and text"}


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage: 0.964 -> "96.4 %"."""
    return NO_VALUE if fraction is None else f"{100 * fraction:.{digits}f}{SPACE}%"


def format_samples(samples: Mapping[str, tuple[int, int]]) -> str:
    """Format the numbers of evaluated samples: {"pmd": (998, 1000)} -> "998 of 1,000 samples of pmd"."""
    return ", ".join(
        f"{format_count(evaluated)} of {format_count(total)} samples of {name}"
        for name, (evaluated, total) in samples.items()
    )


def format_count(value: float | None) -> str:
    """Format a count: 76800 -> "76,800"."""
    return NO_VALUE if value is None else f"{value:,.0f}"


def format_short(value: float | None) -> str:
    """Format a large count with a suffix from 100,000 on: 3200000 -> "3.2 M"."""
    if value is None:
        return NO_VALUE
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e5, "K")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if unit == 'K' else size):.3g}{SPACE}{unit}"
    return format_count(value)


def flops_unit(per_second: float) -> tuple[float, str]:
    """Return the scale and the name of the unit for a number of FLOP/s: 3.2e13 -> (1e12, "TFLOP/s")."""
    units = ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"))
    return next(((size, unit) for size, unit in units if per_second >= size), (1e9, "GFLOP/s"))


def format_loss(value: float | None) -> str:
    """Format a loss with three significant digits: 3.47, 0.421, 12.6."""
    return NO_VALUE if value is None else f"{value:#.3g}".rstrip(".")


def format_setting(value: float | None) -> str:
    """Format a hyperparameter: 0.001, 1e-05."""
    return NO_VALUE if value is None else f"{value:.3g}"


def format_duration(seconds: float | None) -> str:
    """Format a duration: 214 -> "3 min 34 s"."""
    if seconds is None:
        return NO_VALUE
    total = round(seconds)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 60:
        return f"{seconds:.1f}{SPACE}s" if seconds < 10 else f"{total}{SPACE}s"
    if minutes < 60:
        return f"{minutes}{SPACE}min{SPACE}{total % 60:02d}{SPACE}s"
    if hours < 48:
        return f"{hours}{SPACE}h{SPACE}{minutes % 60:02d}{SPACE}min"
    return f"{days}{SPACE}d{SPACE}{hours % 24}{SPACE}h"


def join_words(words: list[str]) -> str:
    """Join words: ["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
