"""``python -m mmf_flava.compat``: which cures this machine needs, which not, and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import textwrap
import warnings

from mmf_flava.compat import hooks
from mmf_flava.compat.cure import APPLIED, CURES, WAITING, Cure


def settle(root: str) -> str:
    """Imports what the cures of a package wait for, and says how the package fares: '' or why it is not there."""
    if importlib.util.find_spec(root) is None:
        return "package not installed"
    for module in [root, *(name for name in CURES if name.partition(".")[0] == root)]:
        try:
            if _lacks(root, module):
                continue
            importlib.import_module(module)
        except Exception as error:  # a table that says what fails is what this command is for
            return f"{module} cannot be imported: {type(error).__name__}: {error}"
    return ""


def _lacks(root: str, module: str) -> bool:
    """Whether a package that is there has no such module: MMF's lines differ in their files."""
    if importlib.util.find_spec(module.rpartition(".")[0] or root) and importlib.util.find_spec(module):
        return False
    for cure in CURES[module]:
        cure.leave(f"this {root} has no such module")
    return True


def lines(cure: Cure, trouble: str) -> list[str]:
    """The rows of one cure: its state and name, and below what it does and why."""
    state, remark = cure.state, cure.remark
    if state == WAITING:
        state, remark = "not reached", trouble or "nothing imports it"
    head = f"{state:<12} {cure.name}  ({cure.when} {cure.module})"
    text = f"What: {cure.what}. Why: {cure.why}. Since {cure.since}; until {cure.until}."
    if remark:
        text = f"{remark[0].upper()}{remark[1:]}. {text}"
    return [head, *textwrap.wrap(text, 100, initial_indent=" " * 13, subsequent_indent=" " * 13)]


def main() -> None:
    if os.environ.get("MMF_FLAVA_COMPAT") == "0":
        print("MMF_FLAVA_COMPAT=0: all cures are turned off")
        return
    hooks.install()
    warnings.simplefilter("ignore")
    for file in dict.fromkeys(hooks.FILES.values()):
        importlib.import_module(f"mmf_flava.compat.{file}")
    troubles = {root: settle(root) for root in hooks.FILES}
    for root, trouble in troubles.items():
        print(f"{root}: {trouble or 'installed'}")
    print()
    cures = sorted((cure for group in CURES.values() for cure in group), key=lambda cure: (cure.state, cure.name))
    for cure in cures:
        print("\n".join(lines(cure, troubles.get(cure.module.partition(".")[0], ""))))
    print(f"\n{sum(cure.state == APPLIED for cure in cures)} of {len(cures)} cures applied")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
