"""``pod.forward``: listeners that survive whatever happens to their connections."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import OFFERS, choose_protocol, serve
from support import eventually, in_thread, seconds
from test_connect import http_server
from test_socket_contract import read_all, read_exactly

import kubews
from kubews import Client, ConfigError, Pod, PortForward
from kubews.testing import LocalCluster

REFUSED = 9

MODES = {"a WebSocket each": False, "shared": True}


@pytest.fixture(params=list(MODES))
def multiplex(request: pytest.FixtureRequest) -> bool:
    return MODES[request.param]


@pytest.fixture(params=["tunnel", "tunnel, shared", "pairs"])
def forward(
    pod: Pod, server: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PortForward]:
    name, _, shared = request.param.partition(", ")
    choose_protocol(name, request.getfixturevalue("cluster"), monkeypatch)
    with pod.forward(server, multiplex=bool(shared)) as forward:
        yield forward


def dial(forward: PortForward, line: bytes) -> socket.socket:
    sock = socket.create_connection((forward.address, forward.local_port), seconds(20))
    sock.sendall(line + b"\n")
    return sock


@pytest.mark.parametrize("name", OFFERS)
def test_only_old_servers_connect_when_it_begins(
    name: str, local: LocalCluster, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To see that the pod can be reached is to connect to its port, where a WebSocket is for one connection."""
    choose_protocol(name, local, monkeypatch)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pod.forward(listener.getsockname()[1]) as forward,
    ):
        listener.settimeout(seconds(10))
        if name == "pairs":
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1) == b""
        with dial(forward, b"first"):
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(5, socket.MSG_WAITALL) == b"first"


def test_a_listener_r42(pod: Pod, protocol: str, multiplex: bool) -> None:
    """R-42: it listens when the call returns, at a port that the kernel picked, and has a URL."""
    with http_server(pod) as port, pod.forward(port, multiplex=multiplex) as forward:
        for _ in range(5):
            with urllib.request.urlopen(forward.url, timeout=seconds(10)) as response:
                assert b"Directory listing" in response.read()
        assert forward.url == f"http://127.0.0.1:{forward.local_port}"
        assert forward.errors == []
        assert not forward.closed
    assert forward.closed
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.local_port))


def test_a_refused_connection_is_its_own_error_r39(
    forward: PortForward, pod: Pod, server: int
) -> None:
    """R-39: it is reset, its error is kept, and its neighbours do not notice."""
    with pod.forward([server, REFUSED]) as both, dial(both, b"echo") as good:
        for count in (1, 2):
            with socket.create_connection(("127.0.0.1", both.ports[REFUSED])) as bad:
                bad.settimeout(seconds(10))
                with pytest.raises(ConnectionResetError):
                    bad.recv(1)
            assert eventually(lambda: len(both.errors) == count)  # noqa: B023
            assert isinstance(both.errors[-1], kubews.PortRefused)
            good.sendall(b"alive")
            assert read_exactly(good, 5) == b"alive"


def test_a_thousand_aborted_connections_leave_it_working_r39(forward: PortForward) -> None:
    """R-39: whether they are aborted at once, after a word, or with bytes on the way to them."""
    abort = struct.pack("ii", 1, 0)
    for start in range(0, 1000, 50):
        socks = [
            socket.create_connection((forward.address, forward.local_port), seconds(20))
            for _ in range(50)
        ]
        for number, sock in enumerate(socks, start):
            with contextlib.suppress(ConnectionError):
                if number % 3:
                    sock.sendall([b"", b"echo\n", b"source 100000\n"][number % 3])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
            sock.close()
    with dial(forward, b"source 100000") as sock:
        sock.settimeout(seconds(120))  # behind a thousand upgrades, where each has its own
        assert len(read_all(sock)) == 100_000


def test_two_hundred_at_once(forward: PortForward) -> None:
    data = os.urandom(20_000)

    def one(number: int) -> None:
        with dial(forward, b"take 20000") as sock:
            sock.sendall(data)
            assert read_exactly(sock, 64) == hashlib.sha256(data).hexdigest().encode()

    with ThreadPoolExecutor(200) as pool:
        list(pool.map(one, range(200)))
    assert forward.errors == []


def test_channel_pairs_share_nothing(
    pod: Pod, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to share a tunnel, each connection gets a WebSocket where the server knows no tunnel."""
    monkeypatch.setattr("kubews.tunnels.OFFER", OFFERS["pairs"])
    with pod.forward(server, multiplex=True) as forward:

        def one(number: int) -> None:
            with dial(forward, b"source 1000") as sock:
                assert len(read_all(sock)) == 1000

        with ThreadPoolExecutor(40) as pool:
            list(pool.map(one, range(40)))
    assert forward.errors == []


def test_much_both_ways(forward: PortForward) -> None:
    exchange(forward, 16 << 20)


@pytest.mark.long
def test_a_gibibyte_each_way(pod: Pod, server: int, protocol: str) -> None:
    with pod.forward(server) as forward:
        exchange(forward, 1 << 30)


def exchange(forward: PortForward, size: int) -> None:
    """Send random bytes to be sent back, and compare digests."""
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with dial(forward, b"echo") as sock:

        def write() -> None:
            for _ in range(0, size, len(block)):
                sock.sendall(block)
                sent.update(block)

        writing = in_thread(write)
        left = size
        while left:
            piece = sock.recv(min(left, 1 << 18))
            assert piece
            received.update(piece)
            left -= len(piece)
        writing.result(seconds(60))
    assert received.digest() == sent.digest()


def test_a_stuck_neighbour_r43(pod: Pod, server: int, protocol: str) -> None:
    """R-43: each connection has a WebSocket, so one whose program does not read stops no other."""
    with pod.forward(server) as forward, dial(forward, b"source 50000000") as stuck:
        time.sleep(0.3)
        with dial(forward, b"source 5000000") as sock:
            assert len(read_all(sock)) == 5_000_000
        assert len(read_all(stuck)) == 50_000_000


def test_the_tail_behind_a_half_close_r41(forward: PortForward) -> None:
    """R-41: as with ``nc -N``."""
    with dial(forward, b"tail 1000") as sock:
        sock.sendall(bytes(1000))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"the tail"


def delete(cluster: Any, pod: Pod) -> None:
    cluster.delete_pod(pod.name)

    def gone() -> bool:
        try:
            pod.get()
        except kubews.NotFound:
            return True
        return False

    assert eventually(gone, 30)


def test_a_pod_that_is_replaced_r40(cluster: Any, client: Client, multiplex: bool) -> None:
    """R-40: the listener stays, and the next connection finds the new pod of that name."""
    container = {"app": ["sh", "-c", "exec sleep 100000"]}
    cluster.add_pod("mortal", container)
    events = []
    with contextlib.ExitStack() as stack:
        pod = client.pod("mortal")
        stack.callback(delete, cluster, pod)
        before = pod.get()["metadata"]["uid"]
        with serve(pod) as port:
            forward = stack.enter_context(
                pod.forward(port, multiplex=multiplex, on_event=events.append)
            )
            with dial(forward, b"echo") as sock:
                sock.sendall(b"x")
                assert read_exactly(sock, 1) == b"x"
        delete(cluster, pod)
        cluster.add_pod("mortal", container)
        assert pod.get()["metadata"]["uid"] != before
        # A server in the new pod, at the port that is forwarded.
        script = (
            f"import socket; s = socket.create_server(('127.0.0.1', {port}));"
            "print('ready', flush=True);"
            "exec('while 1:\\n c, _ = s.accept(); c.sendall(b\"new\"); c.close()')"
        )
        process = pod.popen(["timeout", "60", "python3", "-c", script], stdout=kubews.PIPE)
        stack.callback(process.close)
        assert process.stdout.readline() == b"ready\n"

        def answered() -> bool:
            with socket.create_connection(("127.0.0.1", forward.local_port)) as sock:
                sock.settimeout(seconds(20))
                with contextlib.suppress(ConnectionError):
                    return sock.recv(10) == b"new"
            return False

        # A shared tunnel learns that its pod has gone by one connection that fails.
        assert answered() or (multiplex and answered())
    assert [event.kind for event in events].count("connected") >= 2
    assert {event.pod for event in events} == {"mortal"}


def test_events_tell_what_happens(forward: PortForward, pod: Pod, server: int) -> None:
    events = []
    with pod.forward([server, REFUSED], on_event=events.append) as both:
        with dial(both, b"source 5") as sock:
            read_all(sock)
            peer = sock.getsockname()
        with socket.create_connection(("127.0.0.1", both.ports[REFUSED])) as sock:
            sock.settimeout(seconds(10))
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert eventually(lambda: len(events) == 4)
    assert [(event.kind, event.remote) for event in events] == [
        ("connected", server),
        ("ended", server),
        ("connected", REFUSED),
        ("failed", REFUSED),
    ]
    assert events[0].peer == peer
    assert isinstance(events[-1].error, kubews.PortRefused)


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_callback_that_fails_harms_nobody(
    pod: Pod, server: int, caplog: Any, error: type[BaseException]
) -> None:
    def fail(event: Any) -> None:
        raise error

    with pod.forward(server, on_event=fail) as forward, dial(forward, b"source 5") as sock:
        assert len(read_all(sock)) == 5
    assert "on_event" in caplog.text


def test_addresses(pod: Pod, server: int) -> None:
    with pod.forward(server, address="localhost") as forward:
        assert "127.0.0.1" in forward.addresses
        for address in forward.addresses:
            with socket.create_connection((address, forward.local_port)) as sock:
                sock.sendall(b"source 5\n")
                assert len(read_all(sock)) == 5
    with pod.forward(server, address=["127.0.0.1", "127.0.0.2"]) as forward:
        assert forward.addresses == ("127.0.0.1", "127.0.0.2")
        with socket.create_connection(("127.0.0.2", forward.local_port)) as sock:
            sock.sendall(b"source 5\n")
            assert len(read_all(sock)) == 5
    if "::1" in forward.addresses:
        with pod.forward(server, address="::1") as forward:
            assert forward.url == f"http://[::1]:{forward.local_port}"


def test_mistakes_are_told_before_it_listens(pod: Pod, client: Client, server: int) -> None:
    with pytest.raises(ConfigError, match="not a valid IP address"):
        pod.forward(server, address="example.org")
    with pytest.raises(ConfigError, match="no port"):
        pod.forward([])
    with pytest.raises(ConfigError, match="as many"):
        pod.forward([server, REFUSED], local_port=[0])
    for wrong in ("8080", ["8080"], None, True):
        with pytest.raises(TypeError, match="local_port must be a number"):
            pod.forward(server, local_port=wrong)  # type: ignore[arg-type]
    for wrong in (b"80", None):
        with pytest.raises(TypeError, match="a port must be a number or a name"):
            pod.forward(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="twice"):
        pod.forward([server, str(server)])
    with pytest.raises(kubews.NotFound, match="no-such"):
        client.pod("no-such").forward(80)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}"):
            pod.forward(server, local_port=port)
        # It was asked for by its number, and so has to work, whatever localhost may do without.
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}"):
            pod.forward(server, local_port=port, address=["127.0.0.1", "localhost"]).close()


def test_one_that_is_forgotten_says_so(pod: Pod, server: int) -> None:
    forward = pod.forward(server)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del forward


def test_closing_the_client_closes_it(cluster: Any, server: int) -> None:
    with cluster.client() as client:
        forward = client.pod("sockets-0").forward(server)
        sock = dial(forward, b"echo")
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    assert forward.closed


def test_one_loop_serves_all(pod: Pod, server: int) -> None:
    """Whatever the number of connections, one thread; those that dial end when they have."""
    before = threading.active_count()
    with pod.forward(server) as forward:
        socks = [dial(forward, b"echo") for _ in range(30)]
        for sock in socks:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
        assert eventually(lambda: threading.active_count() == before + 1)
        for sock in socks:
            sock.close()


def test_many_threads_on_one_client_r22(pod: Pod, server: int) -> None:
    """R-22: commands and forwards of one client do not get in each other's way."""
    with pod.forward(server) as forward:

        def one(number: int) -> None:
            for turn in range(3):
                if (number + turn) % 2:
                    assert pod.check_output(["echo", f"{number}"]) == b"%d\n" % number
                else:
                    with dial(forward, b"echo") as sock:
                        word = b"%d;" % number
                        sock.sendall(word)
                        assert read_exactly(sock, len(word)) == word

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(one, range(64)))
