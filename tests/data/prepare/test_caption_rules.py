import sys

import pytest

from mmf_flava.data.prepare.caption_rules import clean, count_words, load_english_detector, yfcc_caption
from mmf_flava.errors import UserError

GOOD, TITLE = "Old+wooden+church+in+the+mountains", "Birthday+party+for+Anna"
GERMAN = "Die+alte+Kirche+steht+auf+dem+Berg"


@pytest.mark.parametrize(
    ("description", "title", "expected"),
    [
        (GOOD, TITLE, ("Old wooden church in the mountains", "")),  # the description comes first
        (GOOD, GERMAN, ("Old wooden church in the mountains", "")),
        ("", TITLE, ("Birthday party for Anna", "")),
        (GERMAN, TITLE, ("Birthday party for Anna", "")),
        ("Old+church", TITLE, ("Birthday party for Anna", "")),  # two words are too few
        ("The+old+church", "", ("The old church", "")),  # three are enough
        ("Old+church", "IMG_2041", (None, "too few words")),
        (GERMAN, GERMAN, (None, "not English")),
        (GERMAN, "IMG_2041", (None, "not English")),
        ("", "", (None, "no text")),
        ("%F0%9F%98%80+%F0%9F%98%80+%F0%9F%98%80+%F0%9F%98%80", "", (None, "too few words")),  # emoji only
        ("-+the+-+church+-+.", "", (None, "too few words")),  # punctuation marks are not words
        ("Cats+%26amp%3B+dogs+in+the+garden", "", ("Cats & dogs in the garden", "")),  # %26amp; = &amp; = &
        ("The+old%0Achurch%0D%0Aby+the++lake", "", ("The old church by the lake", "")),
        ("%E5%A4%95%E7%84%BC%E3%81%91+%E3%81%A8+%E6%B5%B7", TITLE, ("Birthday party for Anna", "")),
        ("%00%FF+%ED%A0%80+%zz", TITLE, ("Birthday party for Anna", "")),  # invalid UTF-8
    ],
)
def test_yfcc_caption(description, title, expected):
    assert yfcc_caption(description, title, load_english_detector()) == expected


def test_clean_and_count_words():
    assert clean(" a\x00b\ud800 &lt;c&gt;\n d ") == "a b <c> d"
    assert clean(None) == clean(float("nan")) == ""
    assert count_words("— don't stop, 2 cats 😀 _") == 4


def test_missing_pycld2_error_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycld2", None)
    with pytest.raises(UserError, match=r"mmf_flava\[data\]"):
        load_english_detector.__wrapped__()
