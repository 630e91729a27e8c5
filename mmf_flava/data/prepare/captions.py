"""Captions of the scanned digits in the demo data, generated from the digit and from measurements of the scan.

Shapes: N = number of scans, H, W = height and width of a scan in pixels (8, 8).
"""

from dataclasses import dataclass

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTIONS_PER_SCAN = 5

# Every scan has a caption from FULL, which has all measurements, and captions from four random TEMPLATES.
FULL = "{a_weight} handwritten {digit} {lean} and {width}"
TEMPLATES = (
    "this scan shows the digit {digit}",
    "a handwritten {digit}",
    "someone wrote the number {digit}",
    "a small grey scan of the digit {digit}",
    "the numeral {digit}, written by hand",
    "this is the number {digit}",
)


@dataclass(frozen=True)
class ScanMoments:
    """Image moments of N scans, (N,) float each.

    ink: sum of the pixels.
    lean: shift of the digit to the right per row upwards, in pixels.
    width: horizontal standard deviation of the ink, in pixels.
    """

    ink: np.ndarray
    lean: np.ndarray
    width: np.ndarray


def compute_moments(scans_NHW: np.ndarray) -> ScanMoments:
    """Compute the image moments of grey scans (larger values = more ink)."""
    scans = np.asarray(scans_NHW, dtype=np.float64)
    rows, columns = np.mgrid[: scans.shape[1], : scans.shape[2]]
    ink = scans.sum((1, 2))
    x = (scans * columns).sum((1, 2)) / ink
    y = (scans * rows).sum((1, 2)) / ink
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    across, down = (scans * dx * dx).sum((1, 2)) / ink, (scans * dy * dy).sum((1, 2)) / ink
    lean = -(scans * dx * dy).sum((1, 2)) / ink / down
    return ScanMoments(ink=ink, lean=lean, width=np.sqrt(across))


class Captioner:
    """Generator of captions. Terciles of the train scans define which digits are light, bold, narrow or wide."""

    LEAN = 0.08  # columns per row; digits with a smaller lean count as upright

    def __init__(self, train_scans_NHW: np.ndarray):
        train = compute_moments(train_scans_NHW)
        self._terciles = {name: np.quantile(getattr(train, name), [1 / 3, 2 / 3]) for name in ("ink", "width")}

    def captions(self, scans_NHW: np.ndarray, labels_N: np.ndarray, seed: int = 0) -> list[list[str]]:
        """Return five different captions for each scan of a digit; ``seed`` determines the caption templates."""
        moments = compute_moments(scans_NHW)
        rng = np.random.default_rng(seed)
        result = []
        for n, label in enumerate(labels_N):
            words = self._words(moments, n, DIGITS[int(label)])
            chosen = rng.choice(len(TEMPLATES), CAPTIONS_PER_SCAN - 1, replace=False)
            result.append([FULL.format(**words), *[TEMPLATES[choice].format(**words) for choice in sorted(chosen)]])
        return result

    def _words(self, moments: ScanMoments, n: int, digit: str) -> dict[str, str]:
        weight = ("light", "medium", "bold")[self._tercile("ink", moments.ink[n])]
        width = ("narrow", "of middling width", "wide")[self._tercile("width", moments.width[n])]
        lean = moments.lean[n]
        direction = "standing upright" if abs(lean) < self.LEAN else f"leaning to the {'right' if lean > 0 else 'left'}"
        return {
            "digit": digit,
            "a_weight": f"a {weight}",
            "width": width,
            "lean": direction,
        }

    def _tercile(self, name: str, value: float) -> int:
        return int(np.searchsorted(self._terciles[name], value))
