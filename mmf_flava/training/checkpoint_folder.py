"""The checkpoints of a run: written beside their place, renamed into it, announced last.

A run's folder holds ``checkpoints/update_00000200/{model,optimizer}.safetensors, state.json, checksums.sha256``;
``checkpoints/latest`` and ``checkpoints/best`` name one of these folders each, with the checksum of its checksums.
"""

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmf_flava.errors import UserError
from mmf_flava.files.checksums import CHECKSUMS, Damaged, seal, sha256, verify, verify_file
from mmf_flava.training.checkpoint import Snapshot, Stateful
from mmf_flava.training.disk import reason_and_remedy

LATEST, BEST = "latest", "best"
# one that is being replaced by another of the same update keeps a name until that is in its place
REPLACED = ".replaced"
NAME = re.compile(rf"update_(\d+)({re.escape(REPLACED)})?")


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: the run's folder; ``checkpoints`` is made inside it.
        max_to_keep: newest checkpoints that stay, -1 for all; the best one stays besides.
        background: the state is copied at once, and written by a thread while training goes on.
        say: is told what was saved, and what was found damaged.
    """

    def __init__(
        self, folder: str | Path, max_to_keep: int = 3, background: bool = False, say: Callable[[str], None] = print
    ) -> None:
        self.folder = Path(folder) / "checkpoints"
        self.max_to_keep, self.say = max_to_keep, say
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: Future[None] | None = None

    # ------------------------------------------------------------------ read

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None where there is none at all; says what it had to pass over.

        Raises:
            UserError: there are checkpoints, but not one of them is whole.
        """
        found, pointer = self._newest_first(), self.folder / LATEST
        problems = []
        for path in found:
            try:
                verify(path)
            except Damaged as error:
                problems.append(str(error))
                continue
            if pointer.is_file() and not problems and self._pointed(LATEST) != path:
                problems.append(f"{pointer} is damaged.")
            if problems:
                self.say(f"Warning: {' '.join(problems)} Used instead: {path}.")
            return path
        if not found and not pointer.is_file():
            return None
        raise UserError(
            f"No checkpoint in {self.folder} is whole: {' '.join(problems) or f'{LATEST} names one that is gone.'} "
            "Put a copy of one there, or start anew with checkpoint.resume=false, which moves these to previous/."
        )

    def best(self) -> Path | None:
        """The checkpoint with the best figure of validation, or None where there is no checkpoint at all.

        Raises:
            UserError: it is damaged, or no checkpoint has been chosen yet.
        """
        if not self._newest_first():
            return None
        remedy = "checkpoint.resume_best=false takes the newest one."
        if (path := self._pointed(BEST)) is None:
            raise UserError(f"{self.folder / BEST} names no checkpoint as the best one; {remedy}")
        try:
            verify(path)
        except Damaged as error:
            raise UserError(f"{error} It is the best checkpoint; {remedy}") from None
        return path

    def _newest_first(self) -> list[Path]:
        """From the one that ``latest`` names backwards; then later ones, which an earlier course of the run left."""
        numbers = {path: int(match[1]) for path in self.folder.glob("*") if (match := NAME.fullmatch(path.name))}
        pointed = self._pointed(LATEST)
        newest = max(numbers.values(), default=0) if pointed is None else numbers[pointed]
        return sorted(numbers, key=lambda path: (numbers[path] > newest, -numbers[path], path.name))

    def _pointed(self, name: str) -> Path | None:
        """The checkpoint that ``latest`` or ``best`` names; None where it names none, or another than was written."""
        try:
            text = (self.folder / name).read_text(encoding="ascii")
            path = self.folder / text.partition(" ")[0]
            return path if NAME.fullmatch(path.name) and text == _announcement(path) else None
        except (OSError, ValueError):  # ValueError: bytes that are no text, a null byte in the name
            return None

    # ------------------------------------------------------------------ write

    def save(
        self, update: int, model: Stateful, optimizer: Stateful, state: dict[str, Any], best: bool = False
    ) -> Path:
        """Writes a checkpoint; one of the same update is replaced, those beyond the limit are removed.

        Args:
            state: what JSON can hold; ``rng`` in it are the generators of all processes (``rng_state``).
            best: no earlier one was better; it stays until a better one comes.

        Raises:
            UserError: it could not be written, or, in the background, the one before; what was there is still there.
        """
        self.wait()
        snapshot = Snapshot.of(update, model, optimizer, state, copy=self._thread is not None)
        path = self.folder / f"update_{update:08d}"
        if self._thread is None:
            self._write(snapshot, path, best)
        else:
            self._pending = self._thread.submit(self._write, snapshot, path, best)
        return path

    def check(self) -> None:
        """Raises the error of a save in the background that has failed."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written; raises what ``save`` would have."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, snapshot: Snapshot, path: Path, best: bool) -> None:
        temporary = self.folder / f".{path.name}.writing"
        try:
            self._remove_leftovers()
            temporary.mkdir(parents=True)
            _fsync(self.folder.parent)
            snapshot.write(temporary)
            seal(temporary)
            for file in temporary.iterdir():
                _fsync(file)
            _fsync(temporary)
            self._put(temporary, path)
            # ``latest`` comes last: a run that goes on from the one before finds its best one in any case
            for name in (BEST, LATEST) if best else (LATEST,):
                self._point(name, path)
            self._prune()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)  # its space may be what is lacking
            raise self._failure(snapshot.update, error) from error
        self.say(f"saved {path}")

    def _put(self, temporary: Path, path: Path) -> None:
        if path.exists():
            old = path.with_name(path.name + REPLACED)
            was_best = self._pointed(BEST) == path
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
            if was_best:
                self._point(BEST, old)
        os.replace(temporary, path)
        _fsync(self.folder)

    def _point(self, name: str, path: Path) -> None:
        temporary = self.folder / f".{name}.writing"
        temporary.write_text(_announcement(path), encoding="ascii")
        _fsync(temporary)
        os.replace(temporary, self.folder / name)
        _fsync(self.folder)

    def _prune(self) -> None:
        best, pointer = self._pointed(BEST), self.folder / BEST
        if best is None and pointer.is_file():
            self.say(
                f"Warning: {pointer} is damaged: no checkpoint is removed until you remove it or a better one comes."
            )
            return
        found = self._newest_first()
        kept = [path for path in found if not path.name.endswith(REPLACED)]
        if self.max_to_keep > 0:
            kept = kept[: self.max_to_keep]
        for path in found:
            if path not in kept and path != best:
                removed = path.with_name(f".{path.name}.removed")  # a half-removed one is no checkpoint
                os.replace(path, removed)
                shutil.rmtree(removed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Of saves that were killed; the lock of the run's folder sees to it that nobody else is writing them."""
        for pattern in (".update_*", f".{LATEST}.*", f".{BEST}.*"):
            for path in self.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _failure(self, update: int, error: Exception) -> UserError:
        reason, remedy = reason_and_remedy(error)
        newest = self._pointed(LATEST)
        on = (
            "start again"
            if newest is None
            else f"go on from {newest.name}, which is whole, with checkpoint.resume=true"
        )
        return UserError(
            f"The checkpoint of update {update} could not be written to {self.folder} ({reason}): {remedy}; then {on}."
        )


def demand_whole(path: Path) -> None:
    """Returns if a checkpoint that a recipe names, its folder or a file in it, is as it was written.

    Raises:
        UserError: it is not; another one is not taken instead.
    """
    try:
        (verify if path.is_dir() else verify_file)(path)
    except Damaged as error:
        raise UserError(
            f"checkpoint.resume_file: {error} Name another one; weights that are no checkpoint of this version need "
            "checkpoint.resume_pretrained: true."
        ) from None


def _announcement(path: Path) -> str:
    return f"{path.name} {sha256(path / CHECKSUMS)}\n"


def _fsync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
