"""Every maker for every body: see ``makers``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from makers import JoinedMaker, Maker, MemoryMaker, PipeMaker, ProcessMaker, Source, local
from support import time_limit

from kubews.testing import Faults, LocalCluster

# TLS in its worst shapes. A fault belongs to the next connection. No pings: a server that closes with our
# answers unread resets the connection, and what it had not sent yet is lost.
SPLIT = Faults(match="/exec", record_size=61, fragment=999, status_pieces=1)
JOINED = Faults(match="/exec", join=True, frame_size=257)

FAULTS = {"v5": None, "v4": None, "v5 split": SPLIT, "v5 joined": JOINED}
BUFFERS = {"buffered": -1, "raw": 0, "5 bytes": 5}
EVERYWHERE = ["pipe", "subprocess", "memory"]


def is_real(config: pytest.Config) -> bool:
    return bool(config.getoption("--real-cluster") or config.getoption("--kubeconfig"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "maker" not in metafunc.fixturenames:
        return
    names = ["cluster"] if is_real(metafunc.config) else [*EVERYWHERE, *FAULTS]
    if "maker" in inspect.signature(metafunc.function).parameters:
        names = [name for name in names if name != "v5 joined"]  # which gives only a source
    if metafunc.definition.get_closest_marker("half_close"):
        names = [name for name in names if name != "v4"]
    if metafunc.definition.get_closest_marker("large"):
        # Records of 61 bytes are for what is small; the wire does not see how much a stream holds.
        names = [name for name in names if FAULTS.get(name) is None]
    if "bufsize" not in metafunc.fixturenames:
        metafunc.parametrize("maker", names, indirect=True)
        return
    # How the buffer is refilled is seen without a server as well.
    sizes = {name: BUFFERS if name in EVERYWHERE else ["buffered", "raw"] for name in names}
    pairs = [
        pytest.param(name, BUFFERS[size], id=f"{name}-{size}")
        for name in names
        for size in sizes[name]
    ]
    metafunc.parametrize(("maker", "bufsize"), pairs, indirect=["maker"])


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, cluster: Any) -> dict[str, Any]:
    """The servers that makers need; they live as long as the session."""
    if is_real(request.config):
        return {"cluster": cluster}
    old = request.getfixturevalue("old")
    return {name: old if name == "v4" else cluster for name in FAULTS}


@pytest.fixture
def maker(
    request: pytest.FixtureRequest, servers: dict[str, Any], nothing_left_behind: None
) -> Iterator[Maker]:
    """Something that makes streams."""
    name = request.param
    if name not in servers:
        yield {
            "pipe": PipeMaker,
            "memory": MemoryMaker,
            "subprocess": lambda: ProcessMaker(local, oracle=True),
        }[name]()
        return
    with servers[name].client() as client:
        pod = client.pod("web-0")
        start = popen(servers[name], pod.popen, FAULTS.get(name))
        maker = JoinedMaker(pod, start) if name == "v5 joined" else ProcessMaker(start)
        if name == "cluster":
            maker.under_way *= 3  # there and back through three servers
        yield maker


@pytest.fixture
def source(maker: Maker) -> Source:
    """Something that makes streams with some bytes and an end, for tests of reading alone."""
    return maker.source


def popen(server: Any, start: Callable[..., Any], faults: Faults | None) -> Callable[..., Any]:
    """Start processes through connections with these faults."""

    def run(args: list[str], **arguments: Any) -> Any:
        if faults is not None:
            assert isinstance(server, LocalCluster)
            server.next_faults(faults)
        return start(args, **arguments)

    return run


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(30):
        yield
