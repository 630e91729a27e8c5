"""Rendering of the HTML page of ``mmf_flava.data.show`` with template.html and show.css."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from mmf_flava import __version__
from mmf_flava.data.show.section import Section

HERE = Path(__file__).parent


def render_page(recipe: str, split: str, sections: Sequence[Section], missing: Sequence[str]) -> str:
    """Return the page as HTML. All text from the data is escaped.

    Args:
        missing: names of the recipe's datasets that have no data for this split.
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
        missing=missing,
        version=__version__,
    )
