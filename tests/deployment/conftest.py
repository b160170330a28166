"""The small network that deployment's tests share with those of its integer form."""

from tests.integer.conftest import images, network

__all__ = ["images", "network"]
