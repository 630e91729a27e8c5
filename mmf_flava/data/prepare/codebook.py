"""``python -m mmf_flava.data.prepare codebook``: fit a k-means codebook of any size to any images.

The work folder is ``<out>.work``. A task of it reads ``IMAGES`` of the sampled images and writes their patches to
``00007.npy``. Then each command fits the codebook, or finds that another one has written it. The sample of patches of
an image depends on the seed and the number of the image only, so that the codebook does not depend on the processes.
"""

import argparse
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.prepare.executors import LOCAL, Executor, add_executor
from mmf_flava.data.prepare.patch_clustering import CodebookOptions, cut_patches, fit_patches
from mmf_flava.data.prepare.row_tasks import RowProgress
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.prepare.tasks import Abandoned, IsDone, Result
from mmf_flava.data.prepare.work_folder import INPUT, WorkFolder, file_size
from mmf_flava.data.record import BadRecord, Records, record_boundary
from mmf_flava.data.records import open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.npy import write_npy

MAX_BYTES = 2**29  # memory of the patches
IMAGES = 500  # images of a task: a few seconds
IMAGES_PER_CHECK = 16  # images between checks whether another process has finished the task
RESULT_TYPES = {"counts": dict, "dropped": dict, "messages": dict, "bytes": int}


class CodebookFolder(WorkFolder):
    """The work folder of a codebook."""

    def __init__(self, out: Path, input: Mapping[str, Any], count: int):
        super().__init__(out, work_path(out), out, input, count, RESULT_TYPES)

    def part(self, number: int) -> Path:
        return self.work / f"{number:05d}.npy"

    def has_files(self, number: int, result: Result) -> bool:
        return file_size(self.part(number)) == result["bytes"]

    def other_input(self) -> UserError:
        return UserError(
            f"{self.work} belongs to a codebook of other images or options, which was interrupted or which another "
            "process fits. Choose another --out, or delete this folder."
        )


@dataclass(frozen=True)
class CodebookPreparation:
    """Fitting of a codebook to a sample of images.

    Args:
        src: paths of the images, see ``open_records``.
        content: hash of the images.
        numbers: the sampled records, ascending.
        images: records per task.
    """

    src: Sequence[Path]
    options: CodebookOptions
    content: str
    numbers: Sequence[int]
    images: int

    def run(self, out: Path, progress: bool = True, executor: Executor = LOCAL) -> dict[str, Any] | None:
        """See ``prepare_codebook``."""
        executor.check()
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = self.folder(out)
        with folder.open():
            with tqdm(desc="reading images", unit="image", total=len(self.numbers), disable=not progress) as bar:
                folder.run(partial(self.work, out), executor, bar)
            return self._fit(folder)

    def work(self, out: Path, progress: RowProgress | None = None) -> None:
        """Run the tasks that no other process has begun, until all have a result or the codebook is written."""
        progress, folder = progress or RowProgress(), self.folder(out)
        folder.walk(folder.tasks, PatchTasks(self, folder, progress).run, progress.add_result)

    def folder(self, out: Path) -> CodebookFolder:
        input = {"src": [str(path.absolute()) for path in self.src], "content": self.content, **asdict(self.options)}
        return CodebookFolder(out, {**input, "numbers": self.numbers}, -(-len(self.numbers) // self.images))

    @property
    def per_image(self) -> int:
        """Number of patches that are sampled from each image, to limit the memory."""
        most = max(self.options.codes, MAX_BYTES // (12 * self.options.patch_size**2))
        return min(self.options.patches, max(1, most // len(self.numbers)))

    def _fit(self, folder: CodebookFolder) -> dict[str, Any] | None:
        """Fit the codebook and write it; return None if another process has done so meanwhile."""
        import sklearn.cluster  # noqa: F401 (only the threads of imported libraries are limited)
        from safetensors.numpy import save
        from threadpoolctl import threadpool_limits

        results = folder.results()
        patches: list[np.ndarray] = []
        with folder.deletion():
            patches += [np.load(folder.part(number)) for number in range(len(results))]
        if folder.has_end():
            return None
        images, dropped = sum(result["counts"]["images"] for result in results), Counter[str]()
        for result in results:
            dropped.update(result["dropped"])
        try:
            if not images:
                names = ", ".join(map(str, self.src))
                raise UserError(f"{names}: none of {len(self.numbers)} images can be decoded. Correct --src.")
            with threadpool_limits(1):  # the order in which several threads add floats varies
                centroids = fit_patches(np.concatenate(patches), self.options.codes, self.options.seed)
        except UserError:
            folder.delete()  # no process can fit it
            raise
        # not by save_file, which replaces the file and so its lock
        atomic.write_bytes(folder.out, save({"centroids": centroids}))
        return {"images": images, "dropped": dict(dropped)}


class PatchTasks:
    """Runs the tasks of one process.

    A result has ``counts`` (rows: images that were read; images: those that can be decoded), ``dropped`` (reason ->
    count), ``messages`` (reason -> first message), the ``bytes`` of the patches and ``last``.
    """

    def __init__(self, preparation: CodebookPreparation, folder: CodebookFolder, progress: RowProgress):
        self.preparation, self.folder, self.progress = preparation, folder, progress

    def run(self, number: int, is_done: IsDone) -> Result:
        """Write the patches of the images of a task, and return the result of the task.

        Raises:
            Abandoned: another process has finished the task.
        """
        from mmf_flava.data.image_decoding import decode_image  # imports torch, which takes seconds

        options, size = self.preparation.options, self.preparation.images
        patches = [np.zeros((0, 3 * options.patch_size**2), np.float32)]
        dropped, messages = Counter[str](), dict[str, str]()
        numbers = self.preparation.numbers[number * size : (number + 1) * size]
        for position, record in enumerate(numbers):
            if position % IMAGES_PER_CHECK == 0 and is_done():
                raise Abandoned
            self.progress.add_row()
            try:
                with record_boundary(f"record {record}"):
                    image = decode_image(self._records.read(record))
            except BadRecord as error:
                messages.setdefault(error.reason.value, f"{error} (logged once per reason)")
                self.progress.write(error.reason.value, messages[error.reason.value])
                dropped[error.reason.value] += 1
                continue
            patches.append(self._sample(cut_patches(image, options.image_size, options.patch_size), record))
        part = self.folder.part(number)
        write_npy(part, np.concatenate(patches))
        counts = {"rows": len(numbers), "images": len(patches) - 1}
        is_last = number + 1 == self.folder.tasks.count
        return {
            "counts": counts,
            "dropped": dict(dropped),
            "messages": messages,
            "bytes": file_size(part),
            "last": is_last,
        }

    @cached_property
    def _records(self) -> Records:
        return open_records(list(self.preparation.src))

    def _sample(self, patches_PF: np.ndarray, record: int) -> np.ndarray:
        """Return a random sample of the patches of a record."""
        count = self.preparation.per_image
        if count >= len(patches_PF):
            return patches_PF
        rng = np.random.default_rng([self.preparation.options.seed, record])
        return patches_PF[np.sort(rng.permutation(len(patches_PF))[:count])]


def prepare_codebook(
    src: Sequence[Path], out: Path, options: CodebookOptions, progress: bool = True, executor: Executor = LOCAL
) -> dict[str, Any] | None:
    """Fit a codebook to images and write it to the file ``out``, or resume an interrupted call.

    Other processes with the same arguments share the work.

    Args:
        src: paths of the images, see ``open_records``.

    Returns:
        {"images": number of images, "dropped": number of bad images by reason}; None if another process has written
        the codebook meanwhile.

    Raises:
        UserError: ``out`` exists, ``src`` has no images, they have fewer patches than there are codes, or another
            codebook is being fitted for ``out``.
    """
    _check_new(out)
    rng, records = np.random.default_rng(options.seed), open_records(list(src))
    numbers = np.sort(rng.permutation(len(records))[: options.images]).tolist()
    preparation = CodebookPreparation(src, options, records_sha256(records), numbers, IMAGES)
    _check_new(out)  # opening many images takes a while
    return preparation.run(out, progress, executor)


def _check_new(out: Path) -> None:
    """Raise UserError if the codebook exists. Delete the work folder of a process that was killed after writing it."""
    if out.exists():
        if (work := work_path(out)).joinpath(INPUT).is_file():
            shutil.rmtree(work, ignore_errors=True)
        raise UserError(f"{out}: the file exists. Choose another --out, or delete the file.")


def work_path(out: Path) -> Path:
    """Return the path of the work folder."""
    return out.with_name(f"{out.name}.work")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "codebook",
        help="fit a k-means codebook, the targets of MIM and MMM, to images",
        description="Fits a k-means codebook to images. The same images, sizes and seed give the same codebook.",
    )
    parser.add_argument(
        "--src",
        required=True,
        nargs="+",
        type=file_path,
        metavar="PATH",
        help="images in any format of docs/own_data.md",
    )
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="FILE", help="new file, e.g. codebook.safetensors"
    )
    parser.add_argument("--image-size", required=True, type=integer(1), help="side of the codebook's input in pixels")
    parser.add_argument("--patch-size", required=True, type=integer(1), help="side of a patch in pixels")
    parser.add_argument("--codes", required=True, type=integer(1), help="number of codes")
    parser.add_argument(
        "--images",
        type=integer(1),
        default=CodebookOptions.images,
        help="maximum number of images, sampled at random (default: %(default)s)",
    )
    parser.add_argument("--seed", type=integer(0), default=0, help="seed (default: %(default)s)")
    add_executor(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_codebook)


def run_codebook(arguments: argparse.Namespace) -> None:
    names = ("image_size", "patch_size", "codes", "images", "seed")
    options = CodebookOptions(**{name: getattr(arguments, name) for name in names})
    result = prepare_codebook(arguments.src, arguments.out, options, not arguments.quiet, arguments.executor)
    if result is None:
        print(f"{arguments.out}: another process with the same command has written the codebook.")
        return
    dropped = f" Dropped: {describe_dropped(result)}." if result["dropped"] else ""
    print(
        f"{arguments.out}: {options.codes} codes of {options.patch_size} x {options.patch_size} pixels from "
        f"{result['images']:,} images.{dropped}"
    )
