"""Marks of tests that one of MMF's lines alone can pass."""

import pytest

from mmf_flava.compat.mmf_api import LINE

needs_main = pytest.mark.skipif(LINE != "main", reason="needs MMF's main branch: make test MMF=/path/to/mmf")
needs_rc10 = pytest.mark.skipif(LINE != "rc10", reason="is about MMF 1.0.0rc10")
