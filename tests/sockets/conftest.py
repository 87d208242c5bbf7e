"""Sockets into a pod: by the tunnel, by channel pairs, and the kernel's own as the oracle."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import AnyCluster
from pod_server import Handler
from serving import OFFERS, POD, PORT, SCRIPT, choose_protocol
from support import eventually, seconds, time_limit, unused_port

from kubews import Client, Pod
from kubews.testing import LocalCluster


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    with time_limit(900 if request.node.get_closest_marker("long") else 150):
        yield


@pytest.fixture(scope="session")
def server(cluster: AnyCluster) -> int:
    """The port of a server in the pod; see ``pod_server``."""
    free = unused_port()
    command = ["python3", "-u", "-c", SCRIPT]
    if isinstance(cluster, LocalCluster):  # all its pods share the ports of this machine
        cluster.add_pod(POD, {"app": [*command, str(free)]}, listens={PORT: free})
    else:
        cluster.add_pod(POD, {"app": [*command, str(PORT)]})
    with cluster.client() as client:
        pod = client.pod(POD)

        def answers() -> bool:
            with contextlib.suppress(ConnectionError), pod.connect(PORT, seconds(10)) as sock:
                sock.sendall(b"source 1\n")
                return bool(sock.recv(1))
            return False

        assert eventually(answers, 20)
    return PORT


@pytest.fixture
def pod(client: Client, server: int, nothing_left_behind: None) -> Pod:
    """The pod with the server in it."""
    return client.pod(POD)


@pytest.fixture(params=list(OFFERS))
def protocol(request: pytest.FixtureRequest, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two protocols in turn."""
    choose_protocol(request.param, cluster, monkeypatch)
    return str(request.param)


@pytest.fixture(params=["socketpair", *OFFERS])
def connect(
    request: pytest.FixtureRequest, cluster: Any, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A function that connects to the server; it takes the first line."""
    if request.param == "socketpair":
        with contextlib.ExitStack() as stack:
            yield lambda line: _pair(stack, line)
        return
    choose_protocol(request.param, cluster, monkeypatch)

    def connect(line: bytes) -> socket.socket:
        sock = pod.connect(PORT, timeout=seconds(10))
        sock.sendall(line + b"\n")
        return sock

    yield connect


def _pair(stack: contextlib.ExitStack, line: bytes) -> socket.socket:
    ours, theirs = socket.socketpair()
    ours.settimeout(seconds(10))

    def serve() -> None:
        with theirs, contextlib.suppress(OSError):
            Handler(theirs, None, None)  # type: ignore[arg-type]

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stack.callback(thread.join, seconds(5))
    stack.callback(ours.close)
    ours.sendall(line + b"\n")
    return ours
