"""The pod that listens, and how to reach it by one protocol or the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import AnyCluster, minor
from support import seconds, unused_port

from kubews import DEVNULL, PIPE, Pod
from kubews.protocol.forwarding import OFFER

SCRIPT = Path(__file__).with_name("pod_server.py").read_text()

POD, PORT = "sockets-0", 7000

#: What to offer for each protocol. Where only the old one is offered, only that can be chosen.
OFFERS = {"tunnel": OFFER, "pairs": OFFER[1:]}


@contextlib.contextmanager
def serve(pod: Pod) -> Iterator[int]:
    """Run another server, whose port this is, for as long as the block; and then another may take the port."""
    command = ["timeout", "100", "python3", "-u", "-c", SCRIPT, str(unused_port())]
    with pod.popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
        port = int(process.stdout.readline())
        try:
            yield port
        finally:
            with pod.connect(port, timeout=seconds(10)) as sock:
                sock.sendall(b"quit\n")
            assert process.wait(seconds(20)) == 0


def choose_protocol(name: str, cluster: AnyCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer what leaves the server no other choice; skip if it has not got it."""
    if name == "tunnel" and minor(cluster) < 31:
        pytest.skip(f"Kubernetes {cluster.version} has no tunnel")
    monkeypatch.setattr("kubews.tunnels.OFFER", OFFERS[name])
