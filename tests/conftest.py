"""Fixtures of the whole suite, and the check that no test leaves a thread or a descriptor behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from support import eventually, resources

from kubews import Client, Pod
from kubews.testing import LocalCluster


def pytest_collection_finish() -> None:
    """Leave what lives as long as the session out of the many collections that look for leaks."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def local() -> Iterator[LocalCluster]:
    """One LocalCluster of the newest generation for all tests that only run commands."""
    with LocalCluster(process=True) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 100000"]})
        yield cluster


@pytest.fixture(scope="session")
def old() -> Iterator[LocalCluster]:
    """One LocalCluster that speaks v4 only."""
    with LocalCluster(version="1.28", process=True) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 100000"]})
        yield cluster


@pytest.fixture
def client(local: LocalCluster) -> Iterator[Client]:
    """A client of ``local``."""
    with local.client() as client:
        yield client


@pytest.fixture
def pod(client: Client, nothing_left_behind: None) -> Pod:
    """The pod ``web-0`` of ``local``."""
    return client.pod("web-0")


@pytest.fixture
def old_pod(old: LocalCluster, nothing_left_behind: None) -> Iterator[Pod]:
    """The pod ``web-0`` of ``old``."""
    with old.client() as client:
        yield client.pod("web-0")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor behind."""
    # Started first, so that what lives as long as the session is not counted as a test's.
    for name in ("local", "old"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    marker = request.node.get_closest_marker("descriptors_may_leak")
    lost = marker.args[0] if marker else 0
    threads, descriptors = resources()

    def as_before() -> bool:
        now = resources()
        return now[0] == threads and descriptors <= now[1] <= descriptors + lost

    yield
    assert eventually(as_before), f"{threads, descriptors} became {resources()}"
