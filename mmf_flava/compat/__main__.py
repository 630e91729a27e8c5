"""Command ``python -m mmf_flava.compat``: prints a table of all patches with kind, state and reason."""

import importlib
import importlib.util
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command
from mmf_flava.compat import hooks
from mmf_flava.compat.patch import APPLIED, PATCHES, WAITING, Patch
from mmf_flava.compat.selection import HELP, KINDS, VARIABLE, load_patches, parse_selection

MEANINGS = {
    "imports": "always applied: required to import and run MMF",
    "defects": "always applied, listed in each run's log: fixes of errors that stop a run or make its results wrong",
    "behaviour": "active only in FLAVA's runs, which use a model, trainer or dataset of mmf_flava",
}


def import_patched_modules(package: str) -> str:
    """Import a package and its patched modules. Return the reason if an import fails, otherwise an empty string."""
    if importlib.util.find_spec(package) is None:
        return "package not installed"
    for module in [package, *(name for name in PATCHES if name.partition(".")[0] == package)]:
        try:
            if _lacks(package, module):
                continue
            importlib.import_module(module)
        except Exception as error:  # this command reports failures instead of stopping
            return f"{module} cannot be imported: {type(error).__name__}: {error}"
    return ""


def _lacks(package: str, module: str) -> bool:
    """Return whether the installed package lacks a module. If so, mark the module's patches as not needed."""
    if importlib.util.find_spec(module.rpartition(".")[0] or package) and importlib.util.find_spec(module):
        return False
    for patch in PATCHES.get(module, ()):
        patch.skip(f"this version of {package} has no such module")
    return True


def format_patch(patch: Patch, problem: str) -> list[str]:
    """Return the table's lines for a patch: state and name, followed by what the patch changes and why."""
    state, remark = patch.state, patch.remark
    if state == WAITING:
        state, remark = "not reached", problem or "the patched module was not imported"
    heading = f"{state:<12} {patch.name}  ({patch.when} {patch.module})"
    text = f"What: {patch.what}. Why: {patch.why}. Since {patch.since}; until {patch.until}."
    if remark:
        text = f"{remark[0].upper()}{remark[1:]}. {text}"
    return [heading, *textwrap.wrap(text, 100, initial_indent=" " * 13, subsequent_indent=" " * 13)]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all patches."""
    ArgumentParser(prog="python -m mmf_flava.compat", description="Prints a table of all patches.").parse_args(
        arguments
    )
    print(HELP)
    value = os.environ.get(VARIABLE, "")
    if value == "0":
        print(f"\n{VARIABLE}=0: all patches are turned off")
        return
    hooks.install()
    warnings.simplefilter("ignore")
    load_patches(parse_selection(value))
    problems = {package: import_patched_modules(package) for package in hooks.PACKAGES}
    print(f"\nThis environment, with {VARIABLE}={value or 'all'}:")
    for package, problem in problems.items():
        print(f"{package}: {problem or 'installed'}")
    patches = [patch for group in PATCHES.values() for patch in group]
    for kind in KINDS:
        print(f"\n{kind}: {MEANINGS[kind]}")
        for patch in sorted((one for one in patches if one.kind == kind), key=lambda one: (one.state, one.name)):
            print("\n".join(format_patch(patch, problems.get(patch.module.partition(".")[0], ""))))
    print(f"\n{sum(patch.state == APPLIED for patch in patches)} of {len(patches)} patches applied")


if __name__ == "__main__":
    sys.exit(main())
