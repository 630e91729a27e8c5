"""The output folder of a preparation of shards, which processes share: its manifest, shards and finished tasks."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.built_folder import MANIFEST
from mmf_flava.data.prepare.tasks import Result
from mmf_flava.data.prepare.work_folder import WorkFolder, file_size, load_state
from mmf_flava.errors import UserError, join_first
from mmf_flava.files.json_data import read_object

WORK = ".work"
FORMER = "progress.json"  # in the work folder of an earlier version
RESULT_TYPES = {"counts": dict, "dropped": dict, "problems": dict, "messages": dict, "bytes": int}


class OutputFolder(WorkFolder):
    """The output folder of the preparation of one input; see ``shard_preparation`` for its files.

    Args:
        path: the folder, which exists.
        input: identifies the input and the options.
        count: number of tasks; None: see ``TaskFolder``.
    """

    def __init__(self, path: Path, input: Mapping[str, Any], count: int | None):
        super().__init__(path, path / WORK, path / MANIFEST, input, count, RESULT_TYPES)

    def is_finished(self) -> bool:
        """Return whether the preparation is finished.

        Raises:
            UserError: the folder has the data of another input, or an unfinished preparation of an earlier version.
        """
        if (self.work / FORMER).exists():
            raise UserError(
                f"{self.out} contains a preparation that an earlier version of mmf_flava has not finished. Delete the "
                "folder and prepare the data again."
            )
        finished = load_state(self.end, ("input", "counts", "dropped", "shards"))
        if finished is None:
            return False
        if not finished["shards"]:  # of an earlier version
            self.end.unlink()
            return False
        self.check_input(finished)
        return True

    def check_shards(self) -> None:
        """Raise UserError if a shard of a finished preparation is missing or empty."""
        names = [shard["name"] for shard in read_object(self.end)["shards"]]
        if lost := [name for name in names if not file_size(self.out / name)]:
            raise UserError(
                f"{self.out} is finished, but shards are missing or empty: {join_first(lost)}. Restore them, or "
                "delete the folder and prepare the data again."
            )

    def begin(self) -> bool:
        """See ``WorkFolder``.

        Raises:
            UserError: another input is being prepared in the folder, or it has shards of others.
        """
        if not self.work.is_dir() and any(self.out.glob("*.tar")):
            raise UserError(f"{self.out} contains tar files that this command has not written. Choose another --out.")
        return super().begin()

    def has_results(self) -> bool:
        """Return whether a task of any input has written a shard."""
        for path in self.work.glob("*.json"):
            with suppress(OSError, ValueError):
                if read_object(path).get("shard"):
                    return True
        return False

    def has_files(self, number: int, result: Result) -> bool:
        return not result["shard"] or file_size(self.out / result["shard"]["name"]) == result["bytes"]
