"""The tiny FLAVA of the models' tests."""

from tests.models.conftest import tiny

__all__ = ["tiny"]
