"""``mmf_flava.embed`` on several processes writes the files of one, and an error of one process ends all."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from socket import socket

import numpy as np
import pytest
from PIL import Image

from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedding_processes import Processes, read_batches, write_batches
from tests.conftest import SCRIPTS
from tests.evaluation.test_embedder import weights  # noqa: F401
from tests.processes import SERVER

BAD = (1, 8, 12)  # one in the range of each of three processes


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A list of 13 images with captions, some of which are not images."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for number in range(13):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"word{number} word{2 * number}", "id": f"é{number}"})
    for number in BAD:
        (folder / f"{number}.png").write_bytes(b"not an image")
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "list.jsonl"


def run_rank(rank, count, port, arguments, killed, late):
    """Run the command as a process of a launcher; stdout and stderr go to a file."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from mmf_flava import embed

    original = embed._embed_batch

    def embed_batch(*batch):
        if rank == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(late * (rank > 0))
        return original(*batch)

    embed._embed_batch = embed_batch
    with open(f"{arguments[-1]}.output.{rank}", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(embed.main(arguments))


def start(count, source, weights, out, *options, killed=None, late=0.0):  # noqa: F811
    """Run the command on ``count`` processes; return their exit codes and outputs."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [source, "--weights", weights, "--workers", 0, "--batch-size", 2, *options, "--out", out]
    arguments = [str(argument) for argument in arguments]
    ranks = [
        SERVER.Process(target=run_rank, args=(rank, count, port, arguments, killed, late)) for rank in range(count)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    logs = [out.parent / f"{out.name}.output.{rank}" for rank in range(count)]
    outputs = [log.read_text() for log in logs]
    for log in logs:
        log.unlink()
    return [process.exitcode for process in ranks], outputs


def content(out):
    return {path.name: path.read_bytes() for path in (out.iterdir() if out.is_dir() else [out])}


@pytest.mark.parametrize("name", ["embeddings", "embeddings.parquet"])
def test_files_equal_those_of_one_process(pairs, weights, tmp_path, name):  # noqa: F811
    out = tmp_path / name
    assert start(1, pairs, weights, out)[0] == [0]
    expected = content(out)
    for count in (2, 3, 9):  # nine processes have seven batches
        codes, outputs = start(count, pairs, weights, out, "--force", late=0.01)
        assert codes == [0] * count
        assert content(out) == expected, count
        assert list(tmp_path.iterdir()) == [out]
        assert outputs[0].count("3 of 13 items were skipped: 3 not an image.") == 1
        assert f"Wrote {out}: embeddings of 10 items." in outputs[0]
        text = "".join(outputs)
        assert sorted(re.findall(r"skipped: .*?(\d+): not an image", text), key=int) == [str(number) for number in BAD]
        assert text.count("were skipped") == text.count("Wrote") == 1


def test_torchrun(pairs, weights, tmp_path):  # noqa: F811
    for processes in (1, 2):
        launcher = [SCRIPTS / "torchrun", "--standalone", "--nproc_per_node=2"] if processes == 2 else [sys.executable]
        command = [*launcher, "-m", "mmf_flava.embed", pairs, "--weights", weights, "--batch-size", "2"]
        command += ["--out", tmp_path / f"{processes}.parquet", "--dtype", "bf16"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        least = re.findall(r"bf16: the smallest cosine with the embeddings in fp32 is (\S+) in the first", done.stdout)
        assert len(least) == 1 and 0.99 < float(least[0]) < 1
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_an_error_ends_all_processes_and_is_printed_once(pairs, weights, tmp_path):  # noqa: F811
    out = tmp_path / "x.parquet"
    out.write_text("kept")
    bad = pairs.parent / "bad.jsonl"
    bad.write_text('{"image": "1.png", "caption": "word1"}\n' * 3)
    for source, options, message in (
        (pairs, [], "already exists"),
        ("nowhere", ["--force"], "nowhere"),
        (bad, ["--force"], "all 3 items were skipped"),
    ):
        codes, outputs = start(3, source, weights, out, *options)
        assert codes == [2, 2, 2] and "".join(outputs).count("mmf_flava: ") == 1 and message in "".join(outputs)
        assert out.read_text() == "kept" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_with_a_message(pairs, weights, tmp_path, killed):  # noqa: F811
    out = tmp_path / "x.parquet"
    codes, outputs = start(2, pairs, weights, out, killed=killed)
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] == 2
    assert "mmf_flava: Another process of this command has ended" in outputs[1 - killed]
    assert "Traceback" not in outputs[1 - killed] and not out.exists()
    assert start(2, pairs, weights, out)[0] == [0, 0]
    assert list(tmp_path.iterdir()) == [out], "what the killed process left is deleted"


def test_batches_are_read_as_they_were_written(tmp_path):
    batches = [
        {"id": ["a", "\udce9\n"], "text": ["x", "é"], "image_vector": np.arange(6, dtype=np.float32).reshape(2, 3)},
        {"id": ["c"], "text": ["z"], "image_vector": np.full((1, 3), 0x0A0A0A0A, np.uint32).view(np.float32)},
    ]
    write_batches(tmp_path / "1", iter(batches))
    for expected, actual in zip(batches, read_batches(tmp_path / "1"), strict=True):
        assert list(actual) == list(expected) and np.array_equal(actual["image_vector"], expected["image_vector"])
        assert (actual["id"], actual["text"]) == (expected["id"], expected["text"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"none was not found\. All processes must see the folder"):
        write_batches(tmp_path / "none" / "1", [])


def test_ranges_are_adjacent():
    ranges = [Processes(rank, 3).range_of(7) for rank in range(3)]
    assert [number for numbers in ranges for number in numbers] == list(range(7))


@pytest.mark.parametrize(
    ("rank", "count", "message"), [("0", "2", "MASTER_ADDR"), ("2", "2", "RANK=2"), ("x", "1", "x")]
)
def test_invalid_launchers(pairs, weights, tmp_path, monkeypatch, capsys, rank, count, message):  # noqa: F811
    from mmf_flava.embed import main

    for name, value in (("RANK", rank), ("WORLD_SIZE", count)):
        monkeypatch.setenv(name, value)
    assert main([str(pairs), "--weights", str(weights), "--out", str(tmp_path / "x.parquet")]) == 2
    assert message in capsys.readouterr().err
