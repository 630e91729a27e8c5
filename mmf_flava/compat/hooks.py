"""Import hook that applies patches to other packages when they are imported.

Where mmf_flava is installed, Python imports this file at every start. Therefore it imports only modules that Python has
already loaded.
The patches are imported when one of ``PACKAGES`` is first imported. ``MMF_FLAVA_COMPAT=0`` disables the import hook.
"""

import os
import sys

PACKAGES = ("mmf", "mmf_cli", "fairseq", "fairscale", "torchvision")


class Loader:
    """Import loader that wraps a module's real loader and applies patches before and after the module is executed."""

    def __init__(self, real, patches):
        self.real = real
        self.patches = patches

    def __getattr__(self, name):
        # runpy and inspect, which find the module without executing it, get the real loader's attributes
        return getattr(self.__dict__["real"], name)

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        self.apply("before", None)
        # restored before the module is executed, because its code may use its loader, e.g. with importlib.resources
        module.__loader__ = module.__spec__.loader = self.real
        self.real.exec_module(module)
        self.apply("after", module)

    def apply(self, when, module):
        # a list, so that every patch inspects the original module before any patch changes it
        for patch in [patch for patch in self.patches if patch.when == when and patch.is_needed(module)]:
            patch.apply(module)


class VirtualLoader:
    """Import loader for a module that is not installed. The patch function defines the contents of the module."""

    def __init__(self, patch):
        self.patch = patch

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.patch.apply(module)


class Finder:
    """Import finder that attaches patches to modules. It is first in ``sys.meta_path`` and ignores other modules."""

    def __init__(self):
        self.patches = None  # not loaded yet

    def find_spec(self, name, path=None, target=None):
        if self.patches is None:
            if name not in PACKAGES:
                return None
            self.patches = {}  # the patches import modules too
            self.patches = load_selected_patches()
        patches = self.patches.get(name)
        if not patches:
            return None
        spec = self._find_real_spec(name, path, target)
        if spec is None:
            for patch in patches:
                if patch.when == "virtual" and patch.is_needed(None):
                    return type(sys.__spec__)(name, VirtualLoader(patch), is_package=True)  # type: ignore[arg-type]
            return None
        for patch in patches:
            if patch.when == "virtual":
                patch.skip("the real module exists")
        if hasattr(spec.loader, "exec_module") and any(patch.when != "virtual" for patch in patches):
            spec.loader = Loader(spec.loader, patches)
        return spec

    def _find_real_spec(self, name, path, target):
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is not None and not is_patch_finder(finder):
                spec = find(name, path, target)
                if spec is not None:
                    return spec
        return None


def load_selected_patches():
    """Import the selected patches.

    In MMF's scripts, an invalid ``MMF_FLAVA_COMPAT`` is a one-line error, and the exit code is 2.
    """
    from importlib import import_module

    command, command_line, selection = (
        import_module(f"mmf_flava.{name}") for name in ("command", "compat.command_line", "compat.selection")
    )
    with command.report_user_errors(unless=lambda: not command_line.in_script()):
        return selection.load_patches(selection.parse_selection(os.environ.get(selection.VARIABLE, "")))


def is_patch_finder(finder):
    # compared by name, because after a reload of this file sys.meta_path may contain an instance of the old class
    return getattr(type(finder), "__module__", None) == __name__ and type(finder).__name__ == "Finder"


def install():
    """Insert the finder first in ``sys.meta_path``, unless it is there already or ``MMF_FLAVA_COMPAT`` is ``0``."""
    if os.environ.get("MMF_FLAVA_COMPAT") != "0" and not any(map(is_patch_finder, sys.meta_path)):
        sys.meta_path.insert(0, Finder())
