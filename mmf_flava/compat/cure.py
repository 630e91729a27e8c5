"""A cure: one small mend of somebody else's module, with its reason and the day it may go."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

When = Literal["before", "after", "virtual"]
WAITING, APPLIED, NOT_NEEDED = "waiting", "applied", "not needed"


@dataclass
class Cure:
    """What is mended in ``module``, why, since which version it breaks, and until when the cure is wanted.

    ``when`` says whether ``mend`` runs before the module is executed (it is given None), after it (it is given the
    module), or makes a module that is missing. ``needed`` looks at the world as it is, never at version numbers.
    """

    module: str
    when: When
    what: str
    why: str
    since: str
    until: str
    mend: Callable[[Any], None]
    needed: Callable[[Any], bool]
    state: str = WAITING
    remark: str = ""

    @property
    def name(self) -> str:
        return f"{self.mend.__module__.rpartition('.')[2]}.{self.mend.__name__}"

    def wanted(self, module: ModuleType | None) -> bool:
        """Asks ``needed``, and keeps a no for the report."""
        if self.needed(module):
            return True
        self.leave("nothing to mend here")
        return False

    def apply(self, module: ModuleType | None) -> None:
        """Mends the module. An error in doing so says whose it is."""
        try:
            self.mend(module)
        except Exception as error:
            error.add_note(f"This happened in mmf_flava's cure {self.name} of {self.module} ({self.what}).")
            raise
        self.state = APPLIED
        REPORT.append(self)

    def leave(self, remark: str) -> None:
        self.state, self.remark = NOT_NEEDED, remark


CURES: dict[str, list[Cure]] = {}
REPORT: list[Cure] = []  # the cures applied in this process, in order


def cure(
    module: str,
    when: When,
    what: str,
    why: str,
    since: str,
    until: str,
    needed: Callable[[Any], bool] = lambda module: True,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorator: registers ``mend`` as the cure of ``module``."""

    def register(mend: Callable[[Any], None]) -> Callable[[Any], None]:
        CURES.setdefault(module, []).append(Cure(module, when, what, why, since, until, mend, needed))
        return mend

    return register


def source_has(text: str, path: str) -> Callable[[Any], bool]:
    """A ``needed`` probe: does the source of ``module.<path>`` hold ``text``?"""

    def probe(module: ModuleType) -> bool:
        part: Any = module
        for name in path.split("."):
            part = getattr(part, name, None)
        return part is not None and text in inspect.getsource(part)

    return probe


def shadow(real: Any, **names: Any) -> ModuleType:
    """A module that is ``real`` but for ``names``: to change what one importer sees of it, and nobody else."""
    module = ModuleType(real.__name__)
    module.__dict__.update(names)
    module.__getattr__ = lambda name: getattr(real, name)  # type: ignore[method-assign]
    return module
