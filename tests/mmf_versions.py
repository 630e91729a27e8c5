"""Marks for tests of one version of MMF."""

import pytest

from mmf_flava.compat.mmf_api import MMF_VERSION

needs_main = pytest.mark.skipif(MMF_VERSION != "main", reason="needs MMF's main branch: make test MMF=/path/to/mmf")
needs_rc10 = pytest.mark.skipif(MMF_VERSION != "rc10", reason="tests MMF 1.0.0rc10")
