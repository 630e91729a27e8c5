"""Jinja templates of HTML pages, and the style sheet of the report."""

from pathlib import Path

import jinja2
from markupsafe import Markup

STYLE = Path(__file__).with_name("report.css")


def load_template(folder: Path, **functions: object) -> jinja2.Template:
    """Return ``template.html`` in ``folder``. It escapes all content, and an unknown name is an error.

    Args:
        functions: what the template can use in addition to the arguments of ``render``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals |= functions
    return environment.get_template("template.html")


def read_styles(*files: Path) -> Markup:
    """Return the content of style sheets, to be embedded in a page."""
    return Markup("\n".join(file.read_text(encoding="utf-8") for file in files))
