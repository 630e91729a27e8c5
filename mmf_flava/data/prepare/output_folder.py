"""The output folder of a preparation, which several processes share: its input, its finished tasks and its manifest."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.built_folder import MANIFEST
from mmf_flava.data.prepare.tasks import Result, TaskFolder
from mmf_flava.errors import UserError, join_first
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object

WORK, INPUT = ".work", "input.json"
FORMER = "progress.json"  # in the work folder of an earlier version
RESULT_TYPES = {"counts": dict, "dropped": dict, "problems": dict, "messages": dict, "bytes": int}


class OutputFolder:
    """The output folder of the preparation of one input; see ``shard_preparation`` for its files.

    Args:
        path: the folder, which exists.
        input: identifies the input and the options.
        count: number of tasks; None: see ``TaskFolder``.
    """

    def __init__(self, path: Path, input: Mapping[str, Any], count: int | None):
        self.path, self.input = path, input
        self.manifest, self.work = path / MANIFEST, path / WORK
        digest = hashlib.sha256(json.dumps(input, sort_keys=True, default=str).encode()).hexdigest()
        self.tasks = TaskFolder(self.work, digest, count, RESULT_TYPES)

    def has_manifest(self) -> bool:
        return self.manifest.is_file()

    def is_finished(self) -> bool:
        """Return whether the preparation is finished.

        Raises:
            UserError: the folder has the data of another input, or an unfinished preparation of an earlier version.
        """
        if (self.work / FORMER).exists():
            raise UserError(
                f"{self.path} contains a preparation that an earlier version of mmf_flava has not finished. Delete the "
                "folder and prepare the data again."
            )
        finished = _load(self.manifest, ("input", "counts", "dropped", "shards"))
        if finished is None:
            return False
        if not finished["shards"]:  # of an earlier version
            self.manifest.unlink()
            return False
        self._check_input(finished)
        return True

    def check_shards(self) -> None:
        """Raise UserError if a shard of a finished preparation is missing or empty."""
        names = [shard["name"] for shard in read_object(self.manifest)["shards"]]
        if lost := [name for name in names if not _size(self.path / name)]:
            raise UserError(
                f"{self.path} is finished, but shards are missing or empty: {join_first(lost)}. Restore them, or "
                "delete the folder and prepare the data again."
            )

    def begin(self) -> bool:
        """Note that the preparation has begun, and return whether this process is the first to do so.

        Raises:
            UserError: another input is being prepared in the folder, or it has shards of others.
        """
        if not self.work.is_dir() and any(self.path.glob("*.tar")):
            raise UserError(f"{self.path} contains tar files that this command has not written. Choose another --out.")
        self.work.mkdir(exist_ok=True)
        is_first = self._write_input()
        if not is_first:
            begun = _load(self.work / INPUT, ("input",))
            if begun is None:
                raise self.deleted()
            self._check_input(begun)
        self._forget_lost_shards()
        return is_first

    def results(self) -> list[Result]:
        """Return the results of all tasks, in order; fewer if the manifest is written meanwhile.

        Raises:
            UserError: a result was deleted.
        """
        results: list[Result] = []
        while (result := self.tasks.result(len(results))) is not None:
            results.append(result)
            if result["last"]:
                return results
        if self.has_manifest():
            return results
        raise self.deleted()

    def has_shards(self) -> bool:
        """Return whether a task of any input has written a shard."""
        for path in self.work.glob("*.json"):
            with suppress(OSError, ValueError):
                if read_object(path).get("shard"):
                    return True
        return False

    def delete_work(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def deleted(self) -> UserError:
        """Return the error for a work folder that was deleted."""
        return UserError(
            f"{self.work} was deleted during the preparation, for example by another process that ended with an error. "
            "Run the command again."
        )

    def _write_input(self) -> bool:
        """Write the input, unless another process has written one; return whether it did."""
        with tempfile.NamedTemporaryFile("w", prefix=INPUT, dir=self.work) as file:
            json.dump({"input": self.input}, file)
            file.flush()
            try:
                os.link(file.name, self.work / INPUT)  # fails if the file exists, so that only one process is first
                return True
            except FileExistsError:
                return False
            except OSError:  # the file system has no links
                if (self.work / INPUT).exists():
                    return False
                atomic.write_json(self.work / INPUT, {"input": self.input})
                return True

    def _check_input(self, state: Mapping[str, Any]) -> None:
        if state["input"] != self.input:
            raise UserError(
                f"{self.path} contains data that were prepared from a different input or with different options, or "
                "that another process prepares. Choose another --out, or delete the folder."
            )

    def _forget_lost_shards(self) -> None:
        """Delete the results of tasks whose shards were deleted or damaged since, so that they are run again."""
        for path in self.work.glob("[0-9]*.json"):
            result = self.tasks.result(int(path.stem)) if path.stem.isdecimal() else None
            if result is not None and result["shard"] and _size(self.path / result["shard"]["name"]) != result["bytes"]:
                self.tasks.forget(int(path.stem))


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is missing."""
    return path.stat().st_size if path.is_file() else 0


def _load(path: Path, keys: Sequence[str]) -> dict[str, Any] | None:
    try:
        state = read_object(path)
        for key in keys:
            if not isinstance(state.get(key), list if key == "shards" else dict):
                raise ValueError(f"its {key} are missing or damaged")
        return state
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}). Delete the folder and prepare the data again.") from None
