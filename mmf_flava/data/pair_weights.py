"""Weights of PMD's parts for ``dataset_config.pmd.epoch: pairs``, computed from the counts in manifests.

COCO, Visual Genome and Localized Narratives have several captions per image, and a record has all captions of its
image. If each record occurred once per epoch, only 0.2 % of the sampled pairs would come from Visual Genome, not 7.7 %.
"""

from collections.abc import Iterable
from pathlib import Path

from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote
from mmf_flava.files.json_data import read_object

KEY = "dataset_config.pmd.epoch"
REMEDY = f"set weights in dataset_config.pmd.splits.train, or set {KEY}=images"


def read_pair_weights(paths: Iterable[tuple[str, str | Path]]) -> dict[str, float]:
    """Return the weight of each path: the mean number of pairs per image in the ``manifest.json`` beside its shards.

    Args:
        paths: (path in the config, resolved path). A path that is listed twice gets twice its weight.

    Raises:
        UserError: a path has no manifest with these counts, or its shards are in several folders.
    """
    weights: dict[str, float] = {}
    for name, path in paths:
        weights[name] = weights.get(name, 0.0) + _pairs_per_image(path)
    return weights


def _pairs_per_image(path: str | Path) -> float:
    shards = [] if is_remote(path) else find_shards(path)
    folders = sorted({shard.parent for shard in shards}) or [Path(path)]
    if len(folders) > 1:
        raise UserError(f"{KEY}=pairs: {path} has shards in {len(folders)} folders. List each folder, or {REMEDY}.")
    try:
        counts = read_object(folders[0] / "manifest.json")["counts"]
        pairs, images = counts["pairs"], counts["images"]
        if not (isinstance(pairs, int) and isinstance(images, int) and 0 < images <= pairs):
            raise ValueError
    except (OSError, ValueError, LookupError, TypeError):
        raise UserError(
            f"{KEY}=pairs requires the numbers of pairs and images of {path}, but {folders[0]} has no valid "
            f"manifest.json. Create the shards with `python -m mmf_flava.data.prepare pmd`, {REMEDY}."
        ) from None
    return pairs / images
