"""Cached codes of several processes are those of one, also after kills and with another number of processes."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from mmf_flava.config.model import CodebookConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.from_recipe import open_dataset, read_recipe
from mmf_flava.data.image_stream import ImageStreamDataset
from mmf_flava.data.prepare.demo import prepare_demo
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.models.codebook import caching
from mmf_flava.models.codebook.build import load_codebook
from tests.conftest import DEMO
from tests.processes import SERVER

VAL, BOTH = ["pairs/val"], ["pairs/val", "pairs/test"]  # 137 and 360 records
BAD = {5: Reason.NO_IMAGE, 70: Reason.TRUNCATED_IMAGE, 130: Reason.NO_IMAGE, 400: Reason.HUGE_IMAGE}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_demo(folder / "flava_demo", progress=False)
    return folder


def compute(rank, processes, data, paths, out, batch_size=8, killed_after=None, slow=False):
    """Compute codes as one process of a launcher. Each process writes the records that it computes to a file.

    Args:
        killed_after: number of batches after which rank 0 is killed; the batch before the last one is saved.
    """
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
    recipe = read_recipe(DEMO, [f"env.data_dir={data}", f"dataset_config.pmd.splits.train={paths}"])
    recipe.dataset_config.pmd.views, recipe.dataset_config.pmd.codes = 2, None
    dataset = open_dataset(recipe, "pmd", "train")
    read, encode, batches = ImageStreamDataset.codebook_views, caching._codes, []

    def views(self, index):
        if index in BAD:
            raise BadRecord(BAD[index], "bad")
        return read(self, index)

    def codes(*arguments):
        batches.append(1)
        time.sleep(0.02 * slow)
        if rank == 0 and len(batches) == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(*arguments)

    def write(self, record, *arguments):
        with open(f"{out}.records.{os.getpid()}", "a") as file:
            file.write(f"{self.path.stem} {record}\n")
        return written(self, record, *arguments)

    written = caching.CodeWriter.write
    ImageStreamDataset.codebook_views, caching._codes, caching.CodeWriter.write = views, codes, write
    caching.SAVE_INTERVAL, caching.WAIT_INTERVAL = 0, 0.05
    config = parse_section(CodebookConfig, recipe.model_config.flava.codebook, "codebook")
    result = caching.cache_dataset_codes(dataset, config, load_codebook(config), out, batch_size, progress=False)
    Path(f"{out}.result.{rank}").write_text(json.dumps([result.records, result.bad, len(result.files)]))


def start(processes, *arguments, **options):
    """Start the processes and wait for them; return their exit codes and the computed records, in order."""
    ranks = [
        SERVER.Process(target=compute, args=(rank, processes, *arguments), kwargs=options) for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    out = arguments[2]
    logs = sorted(out.parent.glob(f"{out.name}.records.*"))
    records = [line for log in logs for line in log.read_text().splitlines()]
    by_process = [len(log.read_text().splitlines()) for log in logs]
    for log in logs:
        log.unlink()
    return [process.exitcode for process in ranks], records, by_process


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """The files that one process writes for both paths."""
    out = tmp_path_factory.mktemp("expected") / "codes"
    assert start(1, data, BOTH, out)[0] == [0]
    files = content(out)
    assert [name.rpartition(".")[2] for name in sorted(files)] == ["codes", "json"] * 2
    return files


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 8), (3, 8), (3, 1000)])
def test_files_equal_those_of_one_process(data, expected, tmp_path, processes, batch_size):
    """With three processes and large batches, there are fewer batches than processes in a path."""
    codes, records, by_process = start(processes, data, BOTH, tmp_path / "codes", batch_size, slow=True)
    assert codes == [0] * processes
    assert content(tmp_path / "codes") == expected
    assert len(records) == len(set(records)) == 497, "no record is computed twice"
    assert batch_size > 8 or min(by_process) > 50
    for rank in range(processes):
        result = json.loads((tmp_path / f"codes.result.{rank}").read_text())
        assert result == [497, {"no image": 2, "truncated image": 1, "huge image": 1}, 2]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_resumed_with_another_number_of_processes(data, expected, tmp_path, processes):
    killed, before, _ = start(1, data, BOTH, tmp_path / "codes", killed_after=30)
    assert killed == [-signal.SIGKILL] and before
    codes, after, _ = start(processes, data, BOTH, tmp_path / "codes")
    assert codes == [0] * processes and content(tmp_path / "codes") == expected
    assert len(before) == 29 * 4 and len(set(before) & set(after)) <= 4, "only what was not saved is computed again"
    assert len(set(before) | set(after)) == 497


def test_others_continue_the_work_of_a_killed_process(data, expected, tmp_path):
    codes, records, _ = start(2, data, BOTH, tmp_path / "codes", killed_after=3, slow=True)
    assert codes == [-signal.SIGKILL, 0] and content(tmp_path / "codes") == expected
    assert 497 <= len(records) <= 505


def test_a_new_path_computes_only_its_records(data, expected, tmp_path):
    assert len(start(2, data, VAL, tmp_path / "codes")[1]) == 137
    first = content(tmp_path / "codes")
    _, records, _ = start(2, data, BOTH, tmp_path / "codes")
    assert len(records) == 360 and len({line.split()[0] for line in records}) == 1
    assert first.items() <= content(tmp_path / "codes").items()
