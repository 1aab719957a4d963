"""What holds for all tests."""

from __future__ import annotations

import os

import pytest

# `make test` runs us: without these a make that a test starts would think it is part of that
# one, and say which folders it enters and leaves.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no long one is left for a single worker at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
