"""A patch: one change to a module of another package, with its reason and the condition for removing it."""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from mmf_flava.compat.selection import KINDS, Selection
from mmf_flava.errors import UserError

When = Literal["before", "after", "virtual"]
WAITING, APPLIED, NOT_NEEDED, TURNED_OFF = "waiting", "applied", "not needed", "turned off"


@dataclass
class Patch:
    """What is changed in ``module``, why, since which version it is necessary, and when it can be removed.

    ``when`` states whether ``change`` runs before the module is executed (its argument is None), after it (its
    argument is the module), or creates a missing module. ``needed`` inspects the installed module, never a version
    number.
    """

    module: str
    when: When
    what: str
    why: str
    since: str
    until: str
    change: Callable[[Any], None]
    needed: Callable[[Any], bool]
    state: str = WAITING
    remark: str = ""

    @property
    def kind(self) -> str:
        """``imports``, ``defects`` or ``behaviour``: the package that contains the patch."""
        return self.change.__module__.rpartition(".")[0].rpartition(".")[2]

    @property
    def name(self) -> str:
        """File and function, such as ``splits.loaders``."""
        return f"{self.change.__module__.rpartition('.')[2]}.{self.change.__name__}"

    def is_needed(self, module: ModuleType | None) -> bool:
        """Return whether the patch is selected and its module needs it. If not, record it for the table."""
        if self.state == TURNED_OFF:
            return False
        if self.needed(module):
            return True
        self.skip("the module does not need it")
        return False

    def apply(self, module: ModuleType | None) -> None:
        """Apply the patch. An exception that it raises carries a note with the name of the patch."""
        try:
            self.change(module)
        except Exception as error:
            error.add_note(f"Raised by mmf_flava's patch {self.name} of {self.module} ({self.what}).")
            raise
        self.state = APPLIED
        APPLIED_PATCHES.append(self)

    def skip(self, remark: str, state: str = NOT_NEEDED) -> None:
        if self.state != TURNED_OFF:
            self.state, self.remark = state, remark


PATCHES: dict[str, list[Patch]] = {}
APPLIED_PATCHES: list[Patch] = []  # of this process, in order


def patch(
    module: str,
    *,
    what: str,
    why: str,
    since: str,
    until: str,
    when: When = "after",
    needed: Callable[[Any], bool] = lambda module: True,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorator: register the function as a patch of ``module``. Its kind is the package that defines it."""

    def register(change: Callable[[Any], None]) -> Callable[[Any], None]:
        PATCHES.setdefault(module, []).append(Patch(module, when, what, why, since, until, change, needed))
        return change

    return register


def load_patches(selection: Selection) -> dict[str, list[Patch]]:
    """Import the patches of all kinds and return them by module, the excluded ones marked as turned off.

    Raises:
        UserError: ``selection`` excludes a patch that does not exist.
    """
    for kind in KINDS:
        importlib.import_module(f"mmf_flava.compat.{kind}")
    everything = [one for patches in PATCHES.values() for one in patches]
    if unknown := sorted(selection.excluded - {one.name for one in everything}):
        raise UserError(
            f"MMF_FLAVA_COMPAT: unknown patch {', '.join(unknown)}. `python -m mmf_flava.compat` lists all patches."
        )
    for one in everything:
        if not selection.includes(one.kind, one.name):
            one.skip("excluded by MMF_FLAVA_COMPAT", TURNED_OFF)
    return PATCHES


def wrap(
    owner: Any, name: str, only_if: Callable[[], bool] = lambda: True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: replace ``owner.name`` by the function, which receives the original as its first argument.

    Args:
        owner: a module or class.
        only_if: evaluated at each call; where it is false, the original runs.
    """
    original = getattr(owner, name)

    def decorate(replacement: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def patched(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs) if only_if() else original(*args, **kwargs)

        setattr(owner, name, patched)
        return patched

    return decorate


def source_contains(text: str, path: str) -> Callable[[Any], bool]:
    """Return a ``needed`` function: whether the source of ``module.<path>`` contains ``text``."""

    def probe(module: ModuleType) -> bool:
        node: Any = module
        for name in path.split("."):
            node = getattr(node, name, None)
        return node is not None and text in inspect.getsource(node)

    return probe


def overlay(real: Any, **names: Any) -> ModuleType:
    """Return a module that equals ``real`` except for ``names``, to change what a single importer sees of it."""
    module = ModuleType(real.__name__)
    module.__dict__.update(names)
    module.__getattr__ = lambda name: getattr(real, name)  # type: ignore[method-assign]
    return module
