"""HTML report of a run, or comparison of several runs, created from the files of the run folders.

Use ``python -m mmf_flava.report RUN_DIR [RUN_DIR ...]`` or :func:`write_report`. This package imports neither torch nor
MMF, so a report can be created on any machine from a copied run folder, even while the run is in progress.
"""

from collections.abc import Sequence
from pathlib import Path

from mmf_flava.files.html_page import write_page

__all__ = ["write_report"]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a self-contained HTML page and return its path.

    Args:
        run_dirs: run folders, each with at least one of ``metrics.jsonl``, ``evaluation.json``, ``summary.json`` and
            ``examples/examples.json``.
        out: path of the page. Default: ``report.html`` in the run folder; for several runs ``comparison.html`` in the
            first folder, so that the report of that run is not overwritten.

    Raises:
        UserError: ``run_dirs`` is empty, a folder does not exist or has no results, or the page cannot be written.
    """
    # imported here because matplotlib is slow to import
    from mmf_flava.report.page import render
    from mmf_flava.report.run import read_runs

    runs = read_runs([Path(folder) for folder in run_dirs])
    default = runs[0].folder / ("report.html" if len(runs) == 1 else "comparison.html")
    target = default if out is None else Path(out)
    write_page(target, render(runs))
    return target
