"""Sockets into a pod: by the tunnel, by channel pairs, and the kernel's own as the oracle."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import minor
from pod_server import Handler
from support import seconds, time_limit

from kubews import DEVNULL, PIPE, Pod
from kubews.protocol.forwarding import OFFER

SCRIPT = Path(__file__).with_name("pod_server.py").read_text()

#: What to offer for each protocol. Where only the old one is offered, only that can be chosen.
OFFERS = {"tunnel": OFFER, "pairs": OFFER[1:]}


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(60):
        yield


@pytest.fixture
def server(pod: Pod) -> Iterator[int]:
    """The port of a server in the pod; see ``pod_server``."""
    with serve(pod) as port:
        yield port


@contextlib.contextmanager
def serve(pod: Pod) -> Iterator[int]:
    command = ["python3", "-u", "-c", SCRIPT]
    with pod.popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
        port = int(process.stdout.readline())
        try:
            yield port
        finally:
            with pod.connect(port, timeout=seconds(10)) as sock:
                sock.sendall(b"quit\n")
                while sock.recv(100):
                    pass
            assert process.wait(seconds(20)) == 0


@pytest.fixture(params=list(OFFERS))
def protocol(request: pytest.FixtureRequest, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two protocols in turn."""
    if request.param == "tunnel" and minor(cluster) < 31:
        pytest.skip(f"Kubernetes {cluster.version} has no tunnel")
    monkeypatch.setattr("kubews.tunnels.OFFER", OFFERS[request.param])
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
    if request.param == "tunnel" and minor(cluster) < 31:
        pytest.skip("this Kubernetes has no tunnel")
    monkeypatch.setattr("kubews.tunnels.OFFER", OFFERS[request.param])
    with serve(pod) as port:

        def connect(line: bytes) -> socket.socket:
            sock = pod.connect(port, timeout=seconds(10))
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
