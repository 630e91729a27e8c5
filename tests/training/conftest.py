"""Fixtures of the model tests for the training tests."""

from tests.models.conftest import pairs, tiny

__all__ = ["pairs", "tiny"]
