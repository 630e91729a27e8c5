"""A process that leaks is told from one that does not."""

import subprocess
import sys

import pytest

from tests.faults.growth import Growth

PROCESS = """
import sys, time
kept = [bytearray(50_000_000)]
for update in range(1, 81):
    if sys.argv[1] == "memory":
        kept.append(bytearray(1_000_000))
    if sys.argv[1] == "handles" and update % 10 == 0:
        kept.append(open("/dev/null"))
    print(update, flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("leak", "holds"), [("nothing", True), ("memory", False), ("handles", False)])
def test_a_leak_is_found(leak, holds):
    process = subprocess.Popen([sys.executable, "-c", PROCESS, leak], stdout=subprocess.PIPE, text=True)
    update = [0]
    with Growth(process.pid, lambda: update[0], pause=0.005) as growth:
        for line in process.stdout:
            update[0] = int(line)
        process.wait()
    found = growth.result(80)
    assert min(found[name]["samples"] for name in ("second quarter", "last quarter")) > 1
    assert found["holds"] is holds, found
    if leak == "nothing":
        assert found["last quarter"]["memory MB"] > 50
