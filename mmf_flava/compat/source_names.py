"""Names that MMF and mmf_flava register with MMF, read from their source.

Reading the source takes a tenth of a second; importing MMF, which registers the names, takes seconds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

REGISTRATION = re.compile(r"^@?(?:\w+\.)?register_(\w+?)(?:_if_missing)?\(\s*[\"']([^\"']+)[\"']", re.MULTILINE)
CLASS = re.compile(r"^class ", re.MULTILINE)
CONFIG_PATH = re.compile(r"\n +def config_path\(\w+\)[^:]*:\s+return \(?\s*[\"']([^\"']+\.yaml)[\"']")


@dataclass
class SourceNames:
    """Registered names.

    Attributes:
        names: kind, such as ``loss`` or ``builder`` (of a dataset) -> names.
        config_paths: (kind, name) -> path of the YAML file with the defaults of a model or dataset, as the class
            returns it. Classes that inherit the path or compute it are missing.
    """

    names: dict[str, set[str]] = field(default_factory=dict)
    config_paths: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, kind: str) -> set[str]:
        return self.names.get(kind, set())


def read_names_of(*packages: str | Path) -> SourceNames:
    """Read the names that the Python files in the folders of these packages register."""
    found = SourceNames()
    for package in packages:
        for path in sorted(Path(package).rglob("*.py")):
            text = path.read_text(encoding="utf-8", errors="replace")
            if "register_" in text:
                for kind, name, config_path in _registrations(text):
                    found.names.setdefault(kind, set()).add(name)
                    if config_path is not None:
                        found.config_paths[kind, name] = config_path
    return found


def _registrations(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield the kind and the name of each registration, and the path in ``config_path`` of the class that follows."""
    for match in REGISTRATION.finditer(text):
        starts = [start.start() for start in CLASS.finditer(text, match.end())]
        body = text[starts[0] : starts[1] if len(starts) > 1 else len(text)] if starts else ""
        path = CONFIG_PATH.search(body)
        yield match[1], match[2], path[1] if path else None


def optimizer_names(torch_folder: str | Path) -> set[str]:
    """Read the names of torch's optimizers from ``torch/optim/__init__.py``."""
    text = Path(torch_folder, "optim", "__init__.py").read_text(encoding="utf-8")
    names = set(re.findall(r"^from torch\.optim\.\w+ import (\w+) as ", text, re.MULTILINE))
    return names - {"Optimizer"}
