"""Fixtures: an unprivileged user, and a folder for runs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Switch to a user without root's rights, and yield a folder that this user owns."""
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
    """A folder for runs, next to their cache."""
    (tmp_path / "cache").symlink_to(cache)
    return tmp_path / "runs"
