"""Names of the tasks in the FLAVA paper's results table, for ``evaluation.task``."""

import re

from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.errors import UserError

# the tasks in mmf_flava/evaluation/table/rows.csv
TASKS = (
    "aircraft", "caltech101", "cars", "cifar10", "cifar100", "clevr", "clevr_counts", "coco", "cola", "country211",
    "demo_digits", "dtd", "eurosat", "fer2013", "fgvc_aircraft", "flickr30k", "flowers102", "food101", "gtsrb",
    "hateful_memes", "imagenet", "kitti", "kitti_distance", "mnist", "mnli", "mnli_matched", "mnli_mismatched", "mrpc",
    "oxford_iiit_pet", "oxford_pets", "pcam", "pets", "qnli", "qqp", "rendered_sst", "rendered_sst2", "rte", "snli_ve",
    "sst", "sst2", "stanford_cars", "stl10", "stsb", "sun397", "ucf101", "visual_entailment", "vqa2", "vqav2",
)  # fmt: skip


def parse_task(task: str, where: object) -> str:
    """Return the task's name in ``TASKS``. Case, hyphens, underscores, spaces and the prefix "glue" are ignored.

    Args:
        where: key or file of the task, for the message.

    Raises:
        UserError: the task is unknown.
    """
    known = {_normalise(name): name for name in TASKS}
    if _normalise(task) not in known:
        close = close_matches(task, TASKS)
        hint = did_you_mean(close) if close else f"known tasks: {', '.join(TASKS)}."
        raise UserError(f"{where}: unknown task '{task}'; {hint}")
    return known[_normalise(task)]


def _normalise(task: str) -> str:
    return re.sub(r"[-_\s]", "", task.lower()).removeprefix("glue")  # MMF's main branch has datasets such as glue_sst2
