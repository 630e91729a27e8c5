"""The checkpoints of a run, written atomically.

Old checkpoints are removed first. The new checkpoint is written to a temporary folder, which is then renamed. Then the
pointer files, which contain the name of a checkpoint, are updated, and further checkpoints are removed. At any time, a
pointer names a complete checkpoint.

A run folder contains ``checkpoints/update_00000200/`` with ``{model,optimizer,ema}.safetensors``,
``{state,processors,tokenizer}.json`` and ``checksums.sha256``, and the pointer files ``checkpoints/latest`` and
``checkpoints/best`` (see ``files.checkpoint_names``).
"""

import errno
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.checkpoint_names import (
    ATTEMPTS,
    BEST,
    LATEST,
    find_checkpoints,
    new_checkpoint,
    pointer_text,
    read_found,
    read_pointer,
)
from mmf_flava.files.checksums import CorruptFileError, verify_folder, write_checksums
from mmf_flava.training.checkpoint import Snapshot, Stateful
from mmf_flava.training.disk import free_space, needed_space
from mmf_flava.training.failed_save import explain_failed_save, ways_to_free_space
from mmf_flava.training.retention import Retention


class CheckpointFolder:
    """Saving, selection and removal of the checkpoints of one run.

    Args:
        folder: the run folder; checkpoints are in its subfolder ``checkpoints``.
        max_to_keep: number of newest checkpoints to keep in addition to the best one; -1 keeps all.
        background: whether to copy the state to the CPU and write it in a background thread while training continues.
        log: called with messages about saved and corrupt checkpoints.
    """

    def __init__(
        self, folder: str | Path, max_to_keep: int = 3, background: bool = False, log: Callable[[str], None] = print
    ) -> None:
        self.folder = Path(folder) / "checkpoints"
        self.retention, self.log = Retention(self.folder, max_to_keep), log
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[None] | None = None

    # ------------------------------------------------------------------ read

    def latest(self) -> Path | None:
        """Return the newest valid checkpoint, or None if there are no checkpoints. Log corrupt checkpoints.

        Raises:
            UserError: all checkpoints are corrupt.
        """
        pointer = self.folder / LATEST
        for _ in range(ATTEMPTS):
            exists, latest = pointer.is_file(), self._read_pointer(LATEST)
            found = find_checkpoints(self.folder, latest)
            path, problems = _first_valid(found)
            removed = problems and not all(folder.is_dir() for folder in found)
            # otherwise a process that trains in this folder has replaced its checkpoints meanwhile
            if not removed and (latest in found if latest else found or not exists):
                break
        if path is not None:
            if exists and not problems and latest != path:
                problems.append(f"{pointer} is corrupt.")
            if problems:
                self.log(f"Warning: {' '.join(problems)} Using {path} instead.")
            self.retention.add_intact(path)
            return path
        if not found and not exists:
            return None
        raise UserError(
            f"{self.folder} has no valid checkpoint: {' '.join(problems) or f'{LATEST} names a missing checkpoint.'} "
            "Restore a checkpoint from a backup, or restart from update 0 with checkpoint.resume=false, which moves "
            "the existing files to previous/."
        )

    def best(self) -> Path | None:
        """Return the checkpoint with the best validation metric, or None if there are no checkpoints.

        Raises:
            UserError: the best checkpoint is corrupt, or no best checkpoint has been saved yet.
        """
        if not find_checkpoints(self.folder):
            return None
        fix = "Set checkpoint.resume_best=false to load the newest checkpoint."
        try:
            return read_found(self._find_best, _verify)
        except CorruptFileError as error:
            raise UserError(f"{self.folder / BEST}: {error} {fix}") from None

    def _find_best(self) -> Path:
        if (path := self._read_pointer(BEST)) is None:
            raise UserError(
                f"{self.folder / BEST} does not name a checkpoint. Set checkpoint.resume_best=false to load the newest "
                "checkpoint."
            )
        return path

    def _read_pointer(self, name: str) -> Path | None:
        return read_pointer(self.folder / name)

    # ------------------------------------------------------------------ write

    def save(
        self,
        update: int,
        model: Stateful,
        optimizer: Stateful,
        state: dict[str, Any],
        best: bool = False,
        processors: SavedProcessors | None = None,
        averages: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Remove old checkpoints beyond ``max_to_keep``, and save a checkpoint.

        An existing checkpoint of the same update is removed after the save, unless it is the best one.

        Args:
            state: JSON-serialisable data; its key ``rng`` is a list of the result of ``rng_state`` on each process.
            best: mark the checkpoint as the best one, which is kept until a better one is saved.
            processors: the processors of the run.
            averages: the state dict of the model with averages as weights, if there are any.

        Raises:
            UserError: this checkpoint could not be written, or the background save of the previous checkpoint failed.
                The newest checkpoint and the best one are unchanged.
        """
        self.wait()
        snapshot = Snapshot.take(update, model, optimizer, state, processors, self._thread is not None, averages)
        try:
            path = new_checkpoint(self.folder, update)
        except OSError as error:
            raise explain_failed_save(self.retention, snapshot, best, error) from error
        if self._thread is None:
            self._write(snapshot, path, best)
        else:
            self._pending = self._thread.submit(self._write, snapshot, path, best)
        return path

    def check(self) -> None:
        """Raise the error of a failed background save. Does not wait for a save that is still running."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the background save has finished, and raise its error if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, snapshot: Snapshot, path: Path, best: bool) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.make_room(snapshot.update)
            atomic.fsync(self.folder.parent)
            with atomic.replace_folder(path) as temporary:
                free, size = free_space(temporary), needed_space(temporary, snapshot.file_sizes())
                if free is not None and free < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                snapshot.write(temporary)
                write_checksums(temporary)
            self.retention.add_intact(path, finite=True)
            # ``latest`` is written last: if the process is killed before, the run resumes from the previous checkpoint
            for name in (BEST, LATEST) if best else (LATEST,):
                atomic.write_text(self.folder / name, pointer_text(path))
        except (OSError, SafetensorError) as error:
            self._discard(path)
            raise explain_failed_save(self.retention, snapshot, best, error) from error
        self._prune(snapshot.update, saving=False)
        self.log(f"Saved {path}")

    def make_room(self, update: int) -> None:
        """Remove the files of interrupted saves, and the checkpoints beyond ``max_to_keep``, before a save.

        The run folder must be locked, so no other process is writing to it.

        Args:
            update: the update of the next checkpoint.
        """
        for pattern in (".update_*", f".{LATEST}.*", f".{BEST}.*"):
            for path in self.folder.glob(pattern):
                atomic.remove(path)
        self._prune(update, saving=True)

    def _prune(self, update: int, saving: bool) -> None:
        """Remove checkpoints before (``saving``) or after a save. Errors are logged: they do not damage the save."""
        try:
            for path in self.retention.superfluous(update, saving):
                self._remove(path)
        except CorruptFileError as error:
            self.log(f"Warning: {error}")
        except OSError as error:
            self.log(f"Warning: old checkpoints in {self.folder} could not be removed ({error}).")

    def _remove(self, path: Path) -> None:
        # rename it first, so that a partly removed checkpoint is never loaded
        removed = path.with_name(f".{path.name}.removed")
        os.replace(path, removed)
        atomic.remove(removed)

    def _discard(self, path: Path) -> None:
        """Remove the new checkpoint after a failed save, unless a pointer names it or may name it."""
        try:
            latest = self._read_pointer(LATEST)
            if path.is_dir() and latest is not None and path not in (latest, self.retention.best()):
                self._remove(path)
        except (OSError, CorruptFileError) as error:
            self.log(f"Warning: {path} could not be removed ({error}).")

    def ways_to_free_space(self) -> str:
        """Return how to free space for the other files of the run, as the beginning of a sentence."""
        return ways_to_free_space(self.retention)


def _first_valid(checkpoints: list[Path]) -> tuple[Path | None, list[str]]:
    """Return the first checkpoint whose files match their checksums, and a message for each one before it."""
    problems: list[str] = []
    for path in checkpoints:
        try:
            return _verify(path), problems
        except CorruptFileError as error:
            problems.append(str(error))
    return None, problems


def _verify(path: Path) -> Path:
    verify_folder(path)
    return path
