"""Selection of the patches to apply, with the environment variable ``MMF_FLAVA_COMPAT``."""

import importlib
from dataclasses import dataclass

from mmf_flava.compat.patch import PATCHES, TURNED_OFF, Patch
from mmf_flava.errors import UserError

VARIABLE = "MMF_FLAVA_COMPAT"
KINDS = ("imports", "defects", "behaviour")
# value of the variable -> kinds of patches that are applied
LEVELS = {"0": (), "imports": KINDS[:1], "defects": KINDS[:2], "all": KINDS}
HELP = f"""\
{VARIABLE} selects the patches:
  0          none; the import hook is not installed
  imports    patches that current versions of Python, torch, transformers and OmegaConf require
  defects    as imports, plus fixes of MMF errors that stop a run or make its results wrong
  all        as defects, plus defaults, checks and messages of FLAVA's runs (default)
Append -NAME to exclude a single patch: {VARIABLE}=all,-splits.loaders"""


@dataclass(frozen=True)
class Selection:
    """The kinds of patches to apply, and the names of excluded patches."""

    kinds: tuple[str, ...]
    excluded: frozenset[str]

    def includes(self, kind: str, name: str) -> bool:
        return kind in self.kinds and name not in self.excluded


def parse_selection(value: str) -> Selection:
    """Parse a value of ``MMF_FLAVA_COMPAT``, such as ``defects,-splits.loaders``: a level and excluded patches.

    The default level is ``all``.

    Raises:
        UserError: the level is unknown, or the value contains two levels.
    """
    words = [word.strip() for word in value.split(",") if word.strip()]
    excluded = {word.removeprefix("-") for word in words if word.startswith("-")}
    levels = [word for word in words if not word.startswith("-")] or ["all"]
    if len(levels) > 1 or levels[0] not in LEVELS:
        raise UserError(
            f"{VARIABLE}: unknown value {value!r}. Set it to one of {', '.join(LEVELS)}. To exclude a patch, append "
            ",-NAME."
        )
    return Selection(LEVELS[levels[0]], frozenset(excluded))


def load_patches(selection: Selection) -> dict[str, list[Patch]]:
    """Import the patches of all kinds, mark excluded patches as turned off, and return all patches by module.

    Raises:
        UserError: ``selection`` excludes an unknown patch.
    """
    for kind in KINDS:
        importlib.import_module(f"mmf_flava.compat.{kind}")
    everything = [one for patches in PATCHES.values() for one in patches]
    if unknown := sorted(selection.excluded - {one.name for one in everything}):
        names = ", ".join(unknown)
        raise UserError(f"{VARIABLE}: unknown patch {names}. `python -m mmf_flava.compat` lists all patches.")
    for one in everything:
        if not selection.includes(one.kind, one.name):
            one.skip(f"excluded by {VARIABLE}", TURNED_OFF)
    return PATCHES
