"""A user without root's rights, for what root may do and others may not; a place for runs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, as whom the test goes on."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.fixture
def root(cache, tmp_path):
    """A folder for runs, beside the cache that they share."""
    (tmp_path / "cache").symlink_to(cache)
    return tmp_path / "runs"
