import sys

import pytest

from mmf_flava.data.prepare.caption_rules import (
    clean,
    count_words,
    english_part,
    load_english_detector,
    yfcc_caption,
)
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <b>red</b> c<i>a</i>r<br/>on<BR>a road", "a red car on a road"),
        ("<a href=\"http://x?y=1&z\" target=_blank>my site</a> <p class='x'>Hi</p><p>Du</p>", "my site Hi Du"),
        ("&lt;b&gt;R&amp;amp;B&lt;/b&gt; &quot;x&quot;&nbsp;&eacute; <!-- no -->", 'R&B "x" é'),
        ("<usr> and <PERSON> <3 2 < 3 > 1 <b c> <bob>", "<usr> and <PERSON> <3 2 < 3 > 1 <b c> <bob>"),
    ],
)
def test_html_is_removed(text, expected):
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("English: a dog", "a dog"),
        ("British English: a dog (Deutsch)", "a dog (Deutsch)"),
        ("Deutsch: ein Hund English: a dog on grass. Français : un chien", "a dog on grass."),
        ("Русский: собака", ""),
        ("Books in English: a history", "Books in English: a history"),
        ("a dog", "a dog"),
        ("", ""),
    ],
)
def test_english_part(text, expected):
    assert english_part(text) == expected


def test_missing_pycld2_error_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycld2", None)
    with pytest.raises(UserError, match=r"mmf_flava\[data\]"):
        load_english_detector.__wrapped__()
