"""Hypothesis: the same examples in every run, and no verdict on a busy machine's speed."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("kubews", deadline=None, derandomize=True, database=None)
settings.load_profile("kubews")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Replace the look for threads and descriptors: a hundredth of a second for tests of pure functions."""
