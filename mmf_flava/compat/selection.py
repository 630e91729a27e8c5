"""``MMF_FLAVA_COMPAT``: which patches are applied."""

from dataclasses import dataclass

from mmf_flava.errors import UserError

VARIABLE = "MMF_FLAVA_COMPAT"
KINDS = ("imports", "defects", "behaviour")
# what a value of the variable applies
LEVELS = {"0": (), "imports": KINDS[:1], "defects": KINDS[:2], "all": KINDS}
HELP = f"""\
{VARIABLE} selects the patches:
  0          none; the import hook is not installed
  imports    what current versions of Python, torch, transformers and OmegaConf require
  defects    imports, and fixes of errors that stop or falsify any MMF run
  all        defects, and the behaviour of FLAVA's own runs (default)
Append -NAME to exclude a single patch: {VARIABLE}=all,-splits.loaders"""


@dataclass(frozen=True)
class Selection:
    kinds: tuple[str, ...]
    excluded: frozenset[str]

    def includes(self, kind: str, name: str) -> bool:
        return kind in self.kinds and name not in self.excluded


def parse_selection(value: str) -> Selection:
    """Parse a level and excluded patches, such as ``defects,-splits.loaders``; an empty value means ``all``.

    Raises:
        UserError: a word is neither a level nor an excluded patch, or there are two levels.
    """
    words = [word.strip() for word in value.split(",") if word.strip()]
    excluded = {word.removeprefix("-") for word in words if word.startswith("-")}
    levels = [word for word in words if not word.startswith("-")] or ["all"]
    if len(levels) > 1 or levels[0] not in LEVELS:
        raise UserError(
            f"{VARIABLE}: unknown value {value!r}. Set it to {', '.join(LEVELS)}, optionally followed by ,-NAME to "
            "exclude a patch."
        )
    return Selection(LEVELS[levels[0]], frozenset(excluded))
