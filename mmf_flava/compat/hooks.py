"""A lazy import finder: cures for other people's packages, applied at the moment these are imported.

Every start of Python on this machine pays for this file, so it imports nothing but what is loaded already. The cures
are read when one of the watched packages is first imported; ``MMF_FLAVA_COMPAT=0`` turns everything off.
"""

import os
import sys

FILES = {"mmf": "mmf", "mmf_cli": "mmf", "fairseq": "fairseq", "fairscale": "fairscale", "torchvision": "torchvision"}


class Loader:
    """Stands before a module's real loader while the module is executed, and then gives it back."""

    def __init__(self, real, cures):
        self.real = real
        self.cures = cures

    def __getattr__(self, name):
        # whoever only looks the module up (runpy, inspect) talks to the real loader
        return getattr(self.__dict__["real"], name)

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        self.apply("before", None)
        # before the execution, since a module may look at its own loader; pickle and importlib.resources do later
        module.__loader__ = module.__spec__.loader = self.real
        self.real.exec_module(module)
        self.apply("after", module)

    def apply(self, when, module):
        # every cure looks at the module as it came, before another one has changed it
        for cure in [cure for cure in self.cures if cure.when == when and cure.wanted(module)]:
            cure.apply(module)


class VirtualLoader:
    """Makes the module that a cure describes, where no real one is found."""

    def __init__(self, cure):
        self.cure = cure

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.cure.apply(module)


class Finder:
    """First on ``sys.meta_path``; says None to every name for which there is no cure."""

    def __init__(self):
        self.unread = set(FILES)
        self.cures = {}

    def find_spec(self, name, path=None, target=None):
        if name in self.unread:
            self._read(name)
        cures = self.cures.get(name)
        if not cures:
            return None
        spec = self._real_spec(name, path, target)
        if spec is None:
            for cure in cures:
                if cure.when == "virtual":
                    return type(sys.__spec__)(name, VirtualLoader(cure), is_package=True)  # type: ignore[arg-type]
            return None
        for cure in cures:
            if cure.when == "virtual":
                cure.leave("the real module is there")
        if hasattr(spec.loader, "exec_module") and any(cure.when != "virtual" for cure in cures):
            spec.loader = Loader(spec.loader, cures)
        return spec

    def _read(self, root):
        from importlib import import_module

        import_module("mmf_flava.compat." + FILES[root])
        self.cures = sys.modules["mmf_flava.compat.cure"].CURES
        self.unread.discard(root)

    def _real_spec(self, name, path, target):
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is not None and not is_ours(finder):
                spec = find(name, path, target)
                if spec is not None:
                    return spec
        return None


def is_ours(finder):
    # by name, not by class: after a reload of this file an older Finder may still be on sys.meta_path
    return getattr(type(finder), "__module__", None) == __name__ and type(finder).__name__ == "Finder"


def install():
    """Puts the finder first on ``sys.meta_path``, once. Does nothing when ``MMF_FLAVA_COMPAT`` is ``0``."""
    if os.environ.get("MMF_FLAVA_COMPAT") != "0" and not any(map(is_ours, sys.meta_path)):
        sys.meta_path.insert(0, Finder())
