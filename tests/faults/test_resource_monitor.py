"""The resource monitor detects leaks."""

import subprocess
import sys

import pytest

from tests.faults.resource_monitor import ResourceMonitor

PROCESS = """
import sys, time
kept = [bytearray(50_000_000)]
for update in range(1, 81):
    if sys.argv[1] == "memory":
        kept.append(bytearray(1_000_000))
    if sys.argv[1] == "files" and update % 10 == 0:
        kept.append(open("/dev/null"))
    print(update, flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("leak", "passed"), [("nothing", True), ("memory", False), ("files", False)])
def test_leaks_are_detected(leak, passed):
    process = subprocess.Popen([sys.executable, "-c", PROCESS, leak], stdout=subprocess.PIPE, text=True)
    update = [0]
    with ResourceMonitor(process.pid, lambda: update[0], pause=0.005) as monitor:
        for line in process.stdout:
            update[0] = int(line)
        process.wait()
    result = monitor.result(80)
    assert min(result[name]["samples"] for name in ("second quarter", "last quarter")) > 1
    assert result["passed"] is passed, result
    if leak == "nothing":
        assert result["last quarter"]["memory MB"] > 50
