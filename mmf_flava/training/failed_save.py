"""The error of a checkpoint that could not be written: what it needs, and what frees enough space for it."""

import errno

from mmf_flava.errors import FULL_DISK, UserError
from mmf_flava.files.checkpoint_names import LATEST, find_checkpoints, parse_name, read_pointer
from mmf_flava.files.checksums import CorruptFileError
from mmf_flava.training.checkpoint import Snapshot
from mmf_flava.training.disk import (
    diagnose_disk_error,
    disk_usage,
    error_number,
    format_size,
    free_space,
    needed_space,
)
from mmf_flava.training.retention import Retention


def explain_failed_save(retention: Retention, snapshot: Snapshot, is_best: bool, error: Exception) -> UserError:
    """Return the error of a failed save, with the checkpoint from which the run can be resumed.

    Args:
        retention: the checkpoints of the run.
        snapshot: the content of the checkpoint.
        is_best: whether it is the best one.
        error: an OSError or a safetensors error.
    """
    reason, fix = diagnose_disk_error(error)
    if (number := error_number(error)) in FULL_DISK:
        size, free = needed_space(retention.folder, snapshot.file_sizes()), free_space(retention.folder)
        reason += f"; it needs {format_size(size)}"
        if number == errno.ENOSPC and free is not None:
            reason += f", and {format_size(free, round_up=False)} are free"
        if number != errno.ENOSPC or (free is not None and free >= size):
            free = None  # the limit is one that the file system does not report
        fix = ways_to_free_space(retention, size, free, is_best)
    latest = read_pointer(retention.folder / LATEST)
    valid = ", which is valid," if latest is not None and retention.is_intact(latest) else ""
    restart = "restart" if latest is None else f"resume from {latest.name}{valid} with checkpoint.resume=true"
    return UserError(
        f"{retention.folder}: the checkpoint of update {snapshot.update} could not be written ({reason}). {fix}, then "
        f"{restart}."
    )


def ways_to_free_space(
    retention: Retention, size: int | None = None, free: int | None = None, is_best: bool = False
) -> str:
    """Return how to get enough space for the files of a run, as the beginning of a sentence.

    A smaller ``checkpoint.max_to_keep`` is suggested only if it removes checkpoints when the run is resumed.

    Args:
        size: bytes that a new checkpoint needs; None if another file could not be written.
        free: free bytes of the disk; None if unknown, as with a quota.
        is_best: whether the new checkpoint is the best one.
    """
    previous = retention.folder.parent / "previous"
    earlier = f" (earlier runs in {previous} take {format_size(used)})" if (used := disk_usage(previous)) else ""
    try:
        limit, sizes = retention.max_to_keep, {path: disk_usage(path) for path in find_checkpoints(retention.folder)}
        number_of_best = int(is_best or retention.best() is not None)
        latest = read_pointer(retention.folder / LATEST)
        update = 1 if latest is None else parse_name(latest)[0] + 1

        def missing(limit: int, freed: int) -> int:
            """Return the missing bytes for this save and, if the free space is known, for later ones as well."""
            if size is None or free is None:
                return (size or 0) - freed
            later = (max(limit, 2) + number_of_best) * size - sum(sizes.values()) if limit > 0 else 0
            return max(size - freed, later) - free

        space = f"Free {format_size(missing(limit, 0))}" if size is not None and free is not None else "Free some space"
        options = []
        for smaller in range((limit if limit > 0 else len(sizes) + 1) - 1, 0, -1):
            removed = retention.superfluous(update, saving=True, max_to_keep=smaller)
            if freed := sum(sizes[path] for path in removed):
                options.append((max(missing(smaller, freed), 0), smaller, len(removed), freed))
    except (OSError, CorruptFileError):
        return f"Free some space{earlier}"
    if not options:
        return space + earlier
    more, smaller, count, freed = min(options, key=lambda option: option[0])
    also = f"free {format_size(more)} and " if more else ""
    checkpoints = "1 checkpoint" if count == 1 else f"{count} checkpoints"
    return (
        f"{space}{earlier}, or {also}set checkpoint.max_to_keep={smaller}, which removes {checkpoints} "
        f"({format_size(freed)})"
    )
