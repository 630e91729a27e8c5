"""``python benchmarks/device``: see ``command``."""

import importlib
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    # the other benchmarks are imported as by their own scripts; this folder is their package ``device``
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the parts are killed as well
    sys.exit(importlib.import_module("device.command").main())
