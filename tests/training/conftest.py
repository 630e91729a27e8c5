"""The models' toys, for what trains them."""

from tests.models.conftest import pairs, tiny

__all__ = ["pairs", "tiny"]
