"""kubews port-forward and kubews local: what they print, and how they end; kubectl shows what is right."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO

import pytest
from children import interrupt_another_thread
from clusters import AnyCluster
from programs import PROGRAMS, Commands
from support import in_thread, seconds, unused_port

from kubews.testing import LocalCluster, ServicePort

both = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


@pytest.fixture
def greeter() -> Iterator[int]:
    """A port of this machine that says a word to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock = server.accept()[0]
                    sock.sendall(b"hello")
                    sock.close()

        greeting = in_thread(greet)
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        greeting.result()


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def named(cluster: AnyCluster) -> None:
    """A pod, a Deployment and a Service whose ports have names."""
    sleep = ["sh", "-c", "exec sleep 100000"]
    cluster.add_pod("named", {"app": sleep}, labels={"app": "named"}, ports={"http": 7100})
    cluster.add_workload("deploy/named", selector={"app": "named"})
    ports = [ServicePort(7080, "http", "web")]
    cluster.add_service("named", selector={"app": "named"}, ports=ports)


def read_line(file: IO[bytes] | None) -> str:
    assert file is not None
    return str(in_thread(file.readline).result(30).decode())


def port_of(line: str, host: str = "127.0.0.1") -> tuple[int, int]:
    found = re.fullmatch(rf"Forwarding from {re.escape(host)}:(\d+) -> (\d+)\n", line)
    assert found, line
    return int(found[1]), int(found[2])


@both
def test_a_connection_and_the_end(
    local: LocalCluster, commands: Commands, greeter: int, program: Sequence[str]
) -> None:
    name = f"server-{greeter}"
    local.add_pod(name, listens={80: greeter})
    with commands.start(
        "port-forward", f"pod/{name}", ":80", "--address", "127.0.0.1", program=program
    ) as process:
        port, remote = port_of(read_line(process.stdout))
        assert remote == 80
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), seconds(20)) as sock:
                assert sock.recv(100) == b"hello"
            assert read_line(process.stdout) == f"Handling connection for {port}\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_ctrl_c_that_another_thread_takes_ends_it(commands: Commands) -> None:
    with commands.start("port-forward", "web-0", ":81", "--address=127.0.0.1") as process:
        port_of(read_line(process.stdout))
        time.sleep(0.2)  # or it may not wait yet
        interrupt_another_thread(process)
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == 0


@both
def test_several_ports_at_the_addresses_of_localhost(
    commands: Commands, program: Sequence[str]
) -> None:
    with commands.start("port-forward", "web-0", ":81", "0:82", program=program) as process:
        lines = [read_line(process.stdout) for _ in range(4)]
        first, second = (
            {
                port_of(line, host)[0]
                for line, host in zip(pair, ("127.0.0.1", "[::1]"), strict=True)
            }
            for pair in (lines[:2], lines[2:])
        )
        assert [port_of(lines[number], "127.0.0.1")[1] for number in (0, 2)] == [81, 82]
        assert len(first) == len(second) == 1
        assert first != second
        process.terminate()
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == -signal.SIGTERM


@both
@pytest.mark.parametrize(
    ("target", "spec", "leads"),
    [
        ("pod/named", "http", (7100, 7100)),
        ("deploy/named", "7100", (7100, 7100)),
        ("svc/named", "7080", (7080, 7100)),
        ("svc/named", "web", (7080, 7100)),
        ("svc/named", "7099:web", (7099, 7100)),
    ],
)
def test_names_and_services(
    named: None,
    commands: Commands,
    program: Sequence[str],
    target: str,
    spec: str,
    leads: tuple[int, int],
) -> None:
    # An address that nobody else uses, because the local port is given.
    address = "127." + ".".join(str(1 + secrets.randbelow(250)) for _ in range(3))
    arguments = ("port-forward", target, spec, "--address", address)
    with commands.start(*arguments, program=program) as process:
        assert port_of(read_line(process.stdout), address) == leads
        process.terminate()


def test_a_connection_that_is_refused_is_told_and_the_others_go_on(
    local: LocalCluster, commands: Commands, greeter: int
) -> None:
    local.add_pod("half", listens={80: greeter, 81: unused_port()})
    arguments = ("port-forward", "half", ":80", ":81", "--address=127.0.0.1")
    with commands.start(*arguments) as process:
        good, bad = (port_of(read_line(process.stdout))[0] for _ in range(2))
        with (
            socket.create_connection(("127.0.0.1", bad), seconds(20)) as sock,
            contextlib.suppress(ConnectionResetError),
        ):
            assert sock.recv(1) == b""
        said = read_line(process.stderr)
        assert said.startswith(f"error: an error occurred forwarding {bad} -> 81: ")
        assert read_line(process.stdout) == f"Handling connection for {bad}\n"
        with socket.create_connection(("127.0.0.1", good), seconds(20)) as sock:
            assert sock.recv(100) == b"hello"
        process.terminate()


def test_a_local_port_in_use_is_one_line(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        arguments = ("port-forward", "web-0", f"{port}:80", "--address=127.0.0.1")
        with commands.start(*arguments) as process:
            out, err = process.communicate(timeout=seconds(20))
    said = f"error: cannot listen at 127.0.0.1 port {port}: Address already in use\n"
    assert (out, err.decode(), process.returncode) == (b"", said, 1)


def test_local_says_how_to_use_it(commands: Commands) -> None:
    with commands.start("local", "--pod", "a", "--pod", "b") as process:
        name, _, path = read_line(process.stdout).strip().partition("=")
        assert name == "export KUBECONFIG"
        usage = read_line(process.stdout).split()
        assert usage[:2] == ["kubews", "exec"]
        environment = {**commands.environment, "KUBECONFIG": path}
        done = subprocess.run(
            [*PROGRAMS["kubews"], *usage[1:]], env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == 0
    assert not os.path.exists(path)
