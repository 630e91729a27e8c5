"""Registration of patches, which change modules of other packages, and helpers for writing patches."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

When = Literal["before", "after", "virtual"]
WAITING, APPLIED, NOT_NEEDED, TURNED_OFF = "waiting", "applied", "not needed", "turned off"


@dataclass
class Patch:
    """A patch: the function ``change`` changes the module named ``module``.

    Attributes:
        module: name of the patched module.
        when: ``before``: call ``change(None)`` before the module is executed; ``after``: call ``change(module)`` after
            it was executed; ``virtual``: call ``change(module)`` to define a module that is not installed.
        what: what the patch changes.
        why: the reason for the patch.
        since: the first version of a dependency that needs the patch.
        until: the condition for removing the patch.
        needed: returns whether the installed module needs the patch. Inspects the module, never a version number.
        remark: explanation of ``state``.
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
        """Names of file and function, such as ``splits.loaders``."""
        return f"{self.change.__module__.rpartition('.')[2]}.{self.change.__name__}"

    def is_needed(self, module: ModuleType | None) -> bool:
        """Return whether the patch is selected and needed by its module. If not needed, set ``state`` accordingly."""
        if self.state == TURNED_OFF:
            return False
        if self.needed(module):
            return True
        self.skip("the installed module does not need this patch")
        return False

    def apply(self, module: ModuleType | None) -> None:
        """Apply the patch. A note with the name of the patch is added to an exception that the patch raises."""
        try:
            self.change(module)
        except Exception as error:
            error.add_note(f"Raised by mmf_flava's patch {self.name} of {self.module} ({self.what}).")
            raise
        self.state = APPLIED
        APPLIED_PATCHES.append(self)

    def skip(self, remark: str, state: str = NOT_NEEDED) -> None:
        """Set ``state`` and ``remark`` of a patch that is not applied."""
        if self.state != TURNED_OFF:
            self.state, self.remark = state, remark


PATCHES: dict[str, list[Patch]] = {}
APPLIED_PATCHES: list[Patch] = []  # in this process, in order of application


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
    """Decorator: register the function as a patch of ``module``. Arguments: see ``Patch``."""

    def register(change: Callable[[Any], None]) -> Callable[[Any], None]:
        PATCHES.setdefault(module, []).append(Patch(module, when, what, why, since, until, change, needed))
        return change

    return register


def wrap(
    owner: Any, name: str, only_if: Callable[[], bool] = lambda: True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: replace ``owner.name`` by a function that receives the original function as its first argument.

    Args:
        owner: a module or class.
        only_if: called at each call of the function; if it returns False, the original function is called.
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
    """Return a function for ``Patch.needed`` that checks whether the source of ``module.<path>`` contains ``text``."""

    def probe(module: ModuleType) -> bool:
        node: Any = module
        for name in path.split("."):
            node = getattr(node, name, None)
        return node is not None and text in inspect.getsource(node)

    return probe


def overlay(real: Any, **names: Any) -> ModuleType:
    """Return a module with the attributes of the module ``real``, of which those in ``names`` have new values.

    A patch assigns this module to a name in one importing module, so that ``real`` is unchanged for all other modules.
    """
    module = ModuleType(real.__name__)
    module.__dict__.update(names)
    module.__getattr__ = lambda name: getattr(real, name)  # type: ignore[method-assign]
    return module
