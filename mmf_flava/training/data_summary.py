"""``data.json`` of a run: the datasets with their numbers of records, and the parts that they were prepared from.

Model cards name these parts and their licences, also if the data are no longer there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmf.common.registry import registry

from mmf_flava.data.stream_builder import StreamBuilder
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

DATA_FILE = "data.json"
MANIFEST_KEYS = ("kind", "counts", "licence")


def write_data_summary(folder: Path, datasets: Mapping[str, Mapping[str, Any]], config: Any) -> None:
    """Write ``data.json`` to a run folder. It contains names of files and folders, but no paths and no addresses.

    Args:
        datasets: split -> dataset name -> dataset.
        config: the complete config.
    """
    summary: dict[str, dict[str, Any]] = {}
    for split in ("train", "val", "test"):
        for name, dataset in datasets[split].items():
            records = getattr(dataset, "size", len(dataset))
            parts = _describe_parts(name, config.dataset_config[name], split)
            summary.setdefault(name, {})[split] = {"records": records, "parts": parts}
    atomic.write_json(folder / DATA_FILE, summary)


def _describe_parts(name: str, section: Any, split: str) -> list[dict[str, Any]]:
    """Return the name of each path of a split, and the kind, counts and licence in the manifest beside its data.

    MMF's datasets and those of ``env.user_dir`` have no parts.
    """
    builder = registry.get_builder_class(name)
    if not issubclass(builder or object, StreamBuilder):
        return []
    parsed = builder.parse(section)
    if source := getattr(parsed, "source", None):  # the name of a published dataset
        return [{"name": str(source)}]
    return [_describe_path(path) for path in builder.list_paths(parsed, split)]


def _describe_path(path: str | Path) -> dict[str, Any]:
    if isinstance(path, str):  # an address, which may contain a signature
        return {"name": path.partition("?")[0].rpartition("/")[2]}
    for folder in (path, path.parent):
        try:
            manifest = read_object(folder / "manifest.json")
        except (OSError, ValueError):
            continue
        inputs = manifest.get("input")
        part = inputs.get("part") if isinstance(inputs, dict) else None
        return {"name": part or path.name, **{key: manifest[key] for key in MANIFEST_KEYS if manifest.get(key)}}
    return {"name": path.name}
