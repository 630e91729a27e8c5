"""The origin of a file of embeddings: where its items and its weights are, and the options that it was written with."""

from pathlib import Path
from typing import Any

from mmf_flava import __version__
from mmf_flava.errors import hide_address

OPTIONS = ("tokenizer", "max_length", "mean", "std")  # of ``Embedder``


def describe_origin(options: Any) -> dict[str, Any]:
    """Return the origin of embeddings as plain data: ``source``, ``columns``, ``weights`` and ``OPTIONS``.

    Paths are absolute, so that they are found from any folder. Addresses contain no credentials.

    Args:
        options: the parsed arguments of ``mmf_flava.embed``.
    """
    places = {name: _locate(getattr(options, name)) for name in ("weights", "tokenizer")}
    source = options.source if "://" in options.source else str(Path(options.source).expanduser().absolute())
    given = {name: getattr(options, name) for name in OPTIONS}
    return {**given, **places, "source": hide_address(source), "columns": options.columns, "version": __version__}


def _locate(place: str | None) -> str | None:
    """Return the absolute path of an existing file or folder; other names, such as a model ID, remain as they are."""
    if place is None or not (path := Path(place).expanduser()).exists():
        return None if place is None else hide_address(place)
    return str(path.absolute())
