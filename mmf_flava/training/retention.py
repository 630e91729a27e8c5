"""Selection of the checkpoints that stay when a run saves a new one."""

from pathlib import Path

from mmf_flava.files.checkpoint_names import BEST, LATEST, find_checkpoints, identity, parse_name, read_pointer
from mmf_flava.files.checksums import CorruptFileError, verify_folder
from mmf_flava.training.checkpoint import is_finite


class Retention:
    """Decides which checkpoints of a run are removed before and after a save.

    The checkpoints that stay are the newest ``max_to_keep``, the best one, and the newest one that is valid: its files
    match their checksums, and its values are finite. Before a save, the new checkpoint counts as one of
    ``max_to_keep``.

    Only a checkpoint that decides whether another one is removed is verified, and only once. Those that this process
    has written or loaded are known to match their checksums.

    Args:
        folder: the folder ``checkpoints`` of the run.
        max_to_keep: number of newest checkpoints that stay; -1: all.
    """

    def __init__(self, folder: Path, max_to_keep: int) -> None:
        self.folder, self.max_to_keep = folder, max_to_keep
        self._intact: dict[tuple[int, ...] | None, bool] = {}
        self._finite: dict[tuple[int, ...] | None, bool] = {}

    def add_intact(self, checkpoint: Path, finite: bool = False) -> None:
        """Record that the files of a checkpoint match their checksums and, if ``finite``, that its values are finite.

        Call it for a checkpoint that this process has written and flushed to disk, or has verified.
        """
        self._intact[identity(checkpoint)] = True
        if finite:
            self._finite[identity(checkpoint)] = True

    def is_intact(self, checkpoint: Path) -> bool:
        """Return whether the checkpoint is known to match its checksums; it is not verified."""
        return self._intact.get(identity(checkpoint), False)

    def superfluous(self, update: int, saving: bool, max_to_keep: int | None = None) -> list[Path]:
        """Return the checkpoints to remove before (``saving``) or after a save of ``update``, oldest first.

        Args:
            max_to_keep: default: that of the run.

        Raises:
            OSError: the folder cannot be read.
            CorruptFileError: it is not known which checkpoint is the best one.
        """
        limit = self.max_to_keep if max_to_keep is None else max_to_keep
        best, latest = self.best(), read_pointer(self.folder / LATEST)
        checkpoints = find_checkpoints(self.folder, latest, update)
        newest_of_update: dict[int, Path] = {}
        for path in checkpoints:
            newest_of_update.setdefault(parse_name(path)[0], path)
        if saving:
            newest_of_update.pop(update, None)  # the new checkpoint takes its place
        newest = [*newest_of_update.values()]
        kept = {best, *(newest if limit < 0 else newest[: limit - saving])}
        if kept.issuperset(checkpoints):
            return []
        # of all checkpoints, and of those up to this update: the run may have been resumed from an older checkpoint
        valid = {self._newest_valid(found) for found in (checkpoints, find_checkpoints(self.folder, latest))}
        if None in valid:
            return []
        return [path for path in reversed(checkpoints) if path not in kept | valid]

    def best(self) -> Path | None:
        """Return the best checkpoint, or None if none has been saved.

        Raises:
            OSError, CorruptFileError: the pointer to the best checkpoint cannot be read, or names none.
        """
        best, pointer = read_pointer(self.folder / BEST), self.folder / BEST
        if best is None and pointer.is_file():
            raise CorruptFileError(
                f"{pointer} is corrupt. Old checkpoints are kept until this file is deleted or a new best checkpoint "
                "is saved."
            )
        return best

    def _newest_valid(self, checkpoints: list[Path]) -> Path | None:
        """Return the first checkpoint that is intact and finite, or else the first that is intact, or else None."""
        intact = None
        for path in checkpoints:
            if self._verify(path):
                if self._verify_finite(path):
                    return path
                intact = intact or path
        return intact

    def _verify(self, checkpoint: Path) -> bool:
        key = identity(checkpoint)
        if key not in self._intact:
            try:
                verify_folder(checkpoint)
                self._intact[key] = True
            except CorruptFileError:
                self._intact[key] = False
        return self._intact[key]

    def _verify_finite(self, checkpoint: Path) -> bool:
        key = identity(checkpoint)
        if key not in self._finite:
            self._finite[key] = is_finite(checkpoint)
        return self._finite[key]
