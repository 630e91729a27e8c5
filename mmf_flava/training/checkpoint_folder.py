"""The checkpoints of a run, written atomically.

A checkpoint is written to a temporary folder, which is then renamed. The pointer files, which contain the name of a
checkpoint, are updated last.

A run folder contains ``checkpoints/update_00000200/{model,optimizer}.safetensors, {state,processors,tokenizer}.json,
checksums.sha256``, and the pointer files ``checkpoints/latest`` and ``checkpoints/best`` (see
``files.checkpoint_names``).
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.checkpoint_names import (
    ATTEMPTS,
    BEST,
    LATEST,
    NAME,
    REPLACED,
    pointer_text,
    read_found,
    read_pointer,
)
from mmf_flava.files.checksums import CorruptFileError, verify_folder, write_checksums
from mmf_flava.training.checkpoint import Snapshot, Stateful
from mmf_flava.training.disk import diagnose_disk_error


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
        self.max_to_keep, self.log = max_to_keep, log
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
            found = self._newest_first(latest)
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
        if not self._newest_first(None):
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

    def _newest_first(self, latest: Path | None) -> list[Path]:
        """Return the checkpoints in the order in which they are tried.

        The checkpoint ``latest``, which the pointer names, is first, followed by older checkpoints from newest to
        oldest. Checkpoints of later updates come last. They exist if the run was resumed from an older checkpoint.
        """
        updates = {path: int(match[1]) for path in self.folder.glob("*") if (match := NAME.fullmatch(path.name))}
        newest = max(updates.values(), default=0) if latest is None else updates.get(latest, 0)
        return sorted(updates, key=lambda path: (updates[path] > newest, -updates[path], path.name))

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
    ) -> Path:
        """Save a checkpoint and remove old checkpoints beyond ``max_to_keep``.

        An existing checkpoint of the same update is replaced.

        Args:
            state: JSON-serialisable data; its key ``rng`` is a list of the result of ``rng_state`` on each process.
            best: mark the checkpoint as the best one, which is kept until a better one is saved.
            processors: the processors of the run.

        Raises:
            UserError: this checkpoint could not be written, or the background save of the previous checkpoint failed.
                Existing checkpoints are unchanged.
        """
        self.wait()
        snapshot = Snapshot.take(update, model, optimizer, state, processors, copy=self._thread is not None)
        path = self.folder / f"update_{update:08d}"
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
            self._remove_leftovers()
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.fsync(self.folder.parent)
            # the pointers to an old checkpoint of the same update remain valid: they contain its checksum
            old = path.with_name(path.name + REPLACED)
            is_best = self._read_pointer(BEST) == old
            with atomic.replace_folder(path, old=None if is_best else old) as temporary:
                snapshot.write(temporary)
                write_checksums(temporary)
            # ``latest`` is written last: if the process is killed before, the run resumes from the previous checkpoint
            for name in (BEST, LATEST) if best else (LATEST,):
                atomic.write_text(self.folder / name, pointer_text(path))
            self._prune()
        except (OSError, SafetensorError) as error:
            raise self._write_error(snapshot.update, error) from error
        self.log(f"Saved {path}")

    def _prune(self) -> None:
        best, pointer = self._read_pointer(BEST), self.folder / BEST
        if best is None and pointer.is_file():
            self.log(
                f"Warning: {pointer} is corrupt. Old checkpoints are kept until this file is deleted or a new best "
                "checkpoint is saved."
            )
            return
        checkpoints = self._newest_first(self._read_pointer(LATEST))
        kept = [path for path in checkpoints if not path.name.endswith(REPLACED)]
        if self.max_to_keep > 0:
            kept = kept[: self.max_to_keep]
        for path in checkpoints:
            if path not in kept and path != best:
                # rename it first, so that a partly removed checkpoint is never loaded
                removed = path.with_name(f".{path.name}.removed")
                os.replace(path, removed)
                shutil.rmtree(removed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove the files of interrupted saves. The run folder is locked, so no other process is writing them."""
        for pattern in (".update_*", f".{LATEST}.*", f".{BEST}.*"):
            for path in self.folder.glob(pattern):
                atomic.remove(path)

    def _write_error(self, update: int, error: Exception) -> UserError:
        reason, fix = diagnose_disk_error(error)
        newest = self._read_pointer(LATEST)
        restart = (
            "restart" if newest is None else f"resume from {newest.name}, which is valid, with checkpoint.resume=true"
        )
        return UserError(
            f"{self.folder}: the checkpoint of update {update} could not be written ({reason}). {fix}, then {restart}."
        )


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
