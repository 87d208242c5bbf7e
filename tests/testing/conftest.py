"""Fixtures for the tests of kubews.testing, and a check that no test leaves anything behind."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import seconds

from kubews.testing import LocalCluster


def _state() -> tuple[set[str], int, set[str], set[str]]:
    threads = {thread.name for thread in threading.enumerate()}
    children: set[str] = set()  # those of every thread, not of the main one alone
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            children |= set(task.read_text().split())
    scratch = {path.name for path in Path(tempfile.gettempdir()).glob(f"kubews-{os.getpid()}-*")}
    return threads, len(os.listdir("/proc/self/fd")), children, scratch


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor, a process or a scratch directory."""
    threads, descriptors, children, scratch = _state()

    def more() -> tuple[set[str], int, set[str], set[str]]:
        # Less is no leak: what a module's cluster did last may have been about to end.
        now = _state()
        return now[0] - threads, max(0, now[1] - descriptors), now[2] - children, now[3] - scratch

    yield
    end = time.monotonic() + seconds(5)
    while any(left := more()) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert not any(left), left


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster with the pod ``box`` of the transcripts."""
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"main": None, "echo": ["sleep", "1000"]})
        yield cluster
