"""Sections in, one HTML page out; template.html and show.css decide how it looks."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from mmf_flava import __version__
from mmf_flava.data.show.section import Section

HERE = Path(__file__).parent


def render(recipe: str, split: str, sections: Sequence[Section], left_out: Sequence[str]) -> str:
    """The whole page as HTML; everything that came out of the data is escaped.

    Args:
        left_out: datasets of the recipe that have nothing for this split.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.tests["kind"] = lambda chart, name: type(chart).__name__ == name
    return environment.get_template("template.html").render(
        css=Markup((HERE / "show.css").read_text(encoding="utf-8")),
        recipe=recipe,
        split=split,
        sections=sections,
        left_out=left_out,
        version=__version__,
    )
