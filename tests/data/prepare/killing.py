"""Kills a builder's command by SIGKILL, at a chosen touch of the folder that it builds or at a chosen line of code; and
runs it twice at once."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys
from mmf_flava.data.prepare.__main__ import main
exec(sys.argv.pop(1))
kind, left, steps = sys.argv.pop(1), int(sys.argv.pop(1)), 0
def step():
    global steps
    steps += 1
    if steps == left:
        os.kill(os.getpid(), signal.SIGKILL)
def audit(event, arguments):
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.rmtree"):
        if sys.argv[-1] in str(arguments[0]):
            step()
def trace(frame, event, argument):
    if "mmf_flava/data" in frame.f_code.co_filename:
        step()
        return trace
if kind == "touches":
    sys.addaudithook(audit)
else:
    sys.settrace(trace)
code = main(sys.argv[1:])
sys.settrace(None)
print("steps", steps)
sys.exit(code)
"""


def run(arguments: list[str], kind: str, moment: int, setup: str = "") -> subprocess.CompletedProcess:
    """Runs ``python -m mmf_flava.data.prepare``, which is killed at step ``moment``; 0 lets it end."""
    command = [sys.executable, "-c", SCRIPT, setup, kind, str(moment), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def survives_kills(arguments: list[str], out: Path, seed: int, setup: str = "") -> None:
    """The command, killed two or three times, leaves the same files in ``out`` as one that ran through.

    Args:
        arguments: the command without ``--out``.
        seed: draws what is counted and the moments, of all that an uninterrupted run has.
        setup: code that runs before the command.
    """
    rng = random.Random(seed)
    kind, whole = rng.choice(("touches", "lines")), out.with_name("whole")
    steps = int(run([*arguments, "--out", str(whole)], kind, 0, setup).stdout.split()[-1])
    killed = 0
    for _ in range(3):
        done = run([*arguments, "--out", str(out)], kind, rng.randrange(1, steps), setup)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
    assert killed >= 1
    done = run([*arguments, "--out", str(out)], kind, 0, setup)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(whole)


def twice_at_once(arguments: list[str], out: Path) -> None:
    """Two processes build in ``out`` at the same time; both end well and say the same."""
    command = [sys.executable, "-m", "mmf_flava.data.prepare", *arguments, "--out", str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and said[0] == said[1]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; of an index only that it is there, for it holds the time of its shard."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {str(p.relative_to(folder)): b"" if p.suffix == ".index" else p.read_bytes() for p in found}
