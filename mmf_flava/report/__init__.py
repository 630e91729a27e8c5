"""One page about one run, or about several side by side, made from the files of the run folder alone.

``python -m mmf_flava.report RUN_DIR [RUN_DIR ...]`` or :func:`write_report`. Neither torch nor MMF is needed, so a page
can be drawn on a laptop from a folder copied off a cluster, and while the run is still going on.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mmf_flava.errors import UserError

__all__ = ["write_report"]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes one self-contained HTML page and returns where it lies.

    Args:
        run_dirs: run folders, each with at least one of ``metrics.jsonl``, ``evaluation.json``, ``summary.json`` and
            ``examples/examples.json``.
        out: the page. By default ``report.html`` in the run folder; for several runs ``comparison.html`` in the first
            one, so that the page of that run alone stays.

    Raises:
        UserError: no folder was given, one does not exist or holds nothing to report, or the page cannot be written.
    """
    # matplotlib takes its time: whoever only imports the package does not wait for it
    from mmf_flava.report.page import render
    from mmf_flava.report.run import read_runs

    runs = read_runs([Path(folder) for folder in run_dirs])
    default = runs[0].folder / ("report.html" if len(runs) == 1 else "comparison.html")
    target = default if out is None else Path(out)
    page = render(runs)
    partial = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, target)  # a reader never meets half a page
    except OSError as error:
        raise UserError(
            f"the report cannot be written to {target} ({error.strerror}): name another place with --out FILE.html"
        ) from error
    return target
