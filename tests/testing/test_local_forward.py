"""Port-forward through LocalCluster's tunnel, seen by a client that says what it likes.

What is expected here was seen on real clusters (1.31 and 1.36, containerd 1.6.20), unless it is said that it
was read in their sources.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from podservers import PodServer, count, echo, flood, greet, reset, slam
from rawclient import SCALE
from spdyclient import FIN, OPENED, SpdyClient, still_held
from support import unused_port
from websockets.frames import Opcode

from kubews.protocol import spdy_frames as frames
from kubews.testing import LocalCluster, forward, tunnel

ECHO, GREET, COUNT, FLOOD, RESET, REFUSED = 1, 2, 3, 4, 5, 9
FAILED = (
    "error forwarding port {port} to pod SANDBOX, uid : failed to execute portforward in network "
    'namespace "/var/run/netns/cni-ID": '
)


@pytest.fixture
def listens() -> Iterator[dict[int, int | None]]:
    handlers = {ECHO: echo, GREET: greet, COUNT: count, FLOOD: flood, RESET: reset}
    with ExitStack() as stack:
        servers = {port: stack.enter_context(PodServer(each)) for port, each in handlers.items()}
        yield {**{port: server.port for port, server in servers.items()}, REFUSED: None}


@pytest.fixture
def box(listens: dict[int, int | None]) -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        cluster.add_pod("box", listens=listens)
        yield cluster


def test_data_both_ways(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(ECHO)
        client.write(data, b"hello")
        client.see_bytes(data, b"hello")
        assert client.seen == [(OPENED, error), (OPENED, data), (data, b"hello")]
        big = random.Random(1).randbytes(1 << 20)
        for start in range(0, len(big), 1 << 16):
            piece = big[start : start + (1 << 16)]
            client.write(data, piece)
            client.see_bytes(data, piece)
        assert client.told(data) == b"hello" + big


def test_a_message_may_end_anywhere(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        headers = {"streamtype": "error", "port": str(ECHO), "requestid": "0"}
        opening = frames.syn_stream(1, client.encoder.encode(headers), True)
        client.send(opening[:3], fin=False)
        client.send(b"between", Opcode.PING)
        client.send(opening[3:5], Opcode.CONT)
        for index in range(5, len(opening)):
            client.send(opening[index : index + 1])
        client.see((OPENED, 1))
        assert [each.data for each in client.frames if each.opcode is Opcode.PONG] == [b"between"]


def test_streams_come_in_any_order_and_close_at_once(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        data = client.syn("data", COUNT, "x")
        client.write(data, b"early", fin=True)  # nobody reads it before the other stream is there
        client.see((OPENED, data))
        client.quiet()
        error = client.syn("error", COUNT, "x")
        client.see((FIN, error))
        assert client.seen == [(OPENED, data), (OPENED, error), (FIN, data), (FIN, error)]


def test_without_request_ids(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        for number in range(2):
            error = client.syn("error", ECHO, None)
            data = client.syn("data", ECHO, None)
            client.write(data, b"%d" % number)
            client.see((OPENED, error), (data, b"%d" % number))


def test_an_id_may_come_again(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        for number in range(2):
            client.syn("error", ECHO, "same")
            data = client.syn("data", ECHO, "same")
            client.write(data, b"%d" % number)
            client.see((data, b"%d" % number))


def test_ipv6_comes_second(box: LocalCluster) -> None:
    with socket.socket() as refusing, SpdyClient(box) as client:
        refusing.bind(("127.0.0.1", 0))  # what somebody else might get, and answer there
        with PodServer(echo, socket.AF_INET6, refusing.getsockname()[1]) as server:
            data = client.connect(server.port)[1]  # a port that is not mentioned is this machine's
            client.write(data, b"six")
            client.see((data, b"six"))


# How a connection ends.


def test_a_second_after_the_pod_has_ended(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        begun = time.monotonic()  # before it can have ended, however late this thread hears of it
        error, data = client.connect(GREET)
        client.see((data, b"hello\n"))
        heard = time.monotonic()
        client.see((FIN, error))
        assert time.monotonic() - begun >= 0.9
        assert time.monotonic() - heard <= 1.0 + 3 * SCALE
        assert client.seen[2:] == [(data, b"hello\n"), (FIN, data), (FIN, error)]


def test_a_second_after_the_client_has_ended(box: LocalCluster) -> None:
    """The pod's server does not learn that there is an end: its answer to that is lost."""
    with SpdyClient(box) as client:
        error, data = client.connect(COUNT)
        begun = time.monotonic()
        client.write(data, b"abc", fin=True)
        client.see((FIN, error))
        assert 0.9 <= time.monotonic() - begun <= 1.0 + 3 * SCALE
        assert client.seen[2:] == [(FIN, data), (FIN, error)]


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the second last longer than a test waits: what comes does not come by its end."""
    monkeypatch.setattr(forward, "GRACE", 60 * SCALE)


def test_at_once_when_both_have_ended(box: LocalCluster, long_grace: None) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(GREET)
        client.see((data, b"hello\n"))
        client.write(data, b"", fin=True)
        client.see((FIN, error))


def test_what_is_sent_after_the_pods_end_is_a_failure(box: LocalCluster, long_grace: None) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(GREET)
        client.see((data, b"hello\n"))
        for _ in range(2):  # the first is answered by a reset, which the second meets
            time.sleep(0.1)
            client.write(data, b"more")
        client.see((FIN, error))
        assert client.seen[3] == (FIN, data)
        text = client.text(error)
        assert text.startswith(FAILED.format(port=GREET) + "readfrom tcp4 127.0.0.1:")
        assert text.endswith(f"->127.0.0.1:{GREET}: write: broken pipe")


def test_a_pod_that_resets_its_connection(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(RESET)
        begun = time.monotonic()
        client.write(data, b"x")
        client.see((FIN, error))
        assert time.monotonic() - begun >= 0.9  # also with an error
        assert client.text(error).startswith(FAILED.format(port=RESET) + "read tcp4 127.0.0.1:")
        assert client.text(error).endswith(f"->127.0.0.1:{RESET}: read: connection reset by peer")


def test_pods_that_reset_connections_at_once(box: LocalCluster) -> None:
    """Some of them before it is even noticed that there is a connection."""
    with PodServer(slam) as server, SpdyClient(box) as client:
        streams = [client.connect(server.port) for _ in range(50)]
        client.see(*((FIN, error) for error, _ in streams))
        assert all("reset by peer" in client.text(error) for error, _ in streams)


def test_the_first_of_two_errors_is_told(box: LocalCluster, long_grace: None) -> None:
    gone = threading.Event()

    def leave(sock: socket.socket) -> None:
        reset(sock)
        sock.close()
        gone.set()

    with PodServer(leave) as server, SpdyClient(box) as client:
        error, data = client.connect(server.port)
        client.write(data, b"x")
        assert gone.wait(client.timeout)
        # Nobody is there: an error of the other direction, which ends both.
        client.write(data, b"more")
        client.see((FIN, error))
        assert client.text(error).endswith("read: connection reset by peer")


def test_a_refused_port_is_told_at_once_and_alone(box: LocalCluster, long_grace: None) -> None:
    with SpdyClient(box) as client:
        living = client.connect(ECHO)[1]
        error, data = client.connect(REFUSED)
        client.see((FIN, error))
        assert client.seen[2:5] == [(OPENED, error), (OPENED, data), (FIN, data)]
        assert client.text(error) == FAILED.format(port=REFUSED) + (
            f'failed to connect to localhost:{REFUSED} inside namespace "SANDBOX", IPv4: dial tcp4 '
            f"127.0.0.1:{REFUSED}: connect: connection refused IPv6 dial tcp6: address localhost: "
            "no suitable address found "
        )
        client.write(living, b"still here")
        client.see((living, b"still here"))


def test_a_port_that_nobody_listens_on(box: LocalCluster) -> None:
    port = unused_port()
    with SpdyClient(box) as client:
        error, _ = client.connect(port)
        client.see((FIN, error))
        assert "connect: connection refused" in client.text(error)


def test_a_connection_to_itself_is_none(box: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may choose for our end the very port that nobody listens on, and then it connects."""

    class FromThere(socket.socket):
        def connect_ex(self, address: tuple[str, int]) -> int:  # type: ignore[override]
            # The kernel may still keep the port for a connection of another test that has ended.
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            return super().connect_ex(address)

    port = unused_port()
    with SpdyClient(box) as client:
        monkeypatch.setattr(forward.socket, "socket", FromThere)
        error, _ = client.connect(port)
        client.see((FIN, error))
        assert "connect: connection refused" in client.text(error)


def test_newer_runtimes_reset_what_has_failed(listens: dict[int, int | None]) -> None:
    """Read: ``cri-streaming`` 1.36, ``httpstream.go: portForward``; the data stream has ended by then."""
    with LocalCluster(status_metadata=False) as cluster:
        cluster.add_pod("box", listens=listens)
        with SpdyClient(cluster) as client:
            error, data = client.connect(REFUSED)
            client.see(("reset", error, 5))
            assert [each[:2] for each in client.seen[2:]] == [
                (FIN, data),
                (error, client.told(error)),
                ("reset", error),
            ]
            client.quiet()


def test_a_client_that_gives_up(box: LocalCluster) -> None:
    """What is on its way still comes; only the error stream's end is told."""
    with SpdyClient(box) as client:
        error, data = client.connect(FLOOD)
        client.see_bytes(data, bytes(1 << 16))
        assert select.select([client.sock], [], [], client.timeout)[0]  # some is on its way
        client.reset(data)
        before = len(client.told(data))
        client.see((FIN, error))
        assert len(client.told(data)) > before
        assert (FIN, data) not in client.seen


# What no client should send.


@pytest.mark.parametrize(
    ("kind", "port"),
    [("error", None), ("error", 0), ("data", 65536), ("data", "+1"), (None, 1), ("both", 1)],
)
def test_bad_headers(box: LocalCluster, kind: str | None, port: object) -> None:
    with SpdyClient(box) as client:
        stream = client.syn(kind, port, "x")
        client.see(("reset", stream, 5))
        client.write(client.connect(ECHO)[1], b"usable")
        client.see((5, b"usable"))


def test_the_same_type_twice(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        first, second = client.syn("error", ECHO, "q"), client.syn("error", ECHO, "q")
        client.see((OPENED, second))
        client.see_bytes(first, b"assigned")
        text = "error processing stream for request q: error stream already assigned"
        assert client.text(first) == text
        data = client.syn("data", ECHO, "q")
        client.write(data, b"x")
        client.see((data, b"x"))


def test_streams_without_a_partner(box: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PAIR_SECONDS", 0.3)
    with SpdyClient(box) as client:
        alone = client.syn("error", ECHO, "q")
        client.see_bytes(alone, b"request=q) timed out waiting for streams")
        late = client.syn("data", ECHO, "q")
        client.see((OPENED, late))
        client.write(late, b"nobody")
        client.quiet()


def test_ids_grow(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        for stream, answer in ((9, OPENED), (5, "reset"), (10, "reset"), (12, OPENED)):
            block = client.encoder.encode({"streamtype": "error", "port": "1", "requestid": "x"})
            client.send(frames.syn_stream(stream, block, True))
            client.see((answer, stream, 1) if answer == "reset" else (answer, stream))


def test_pings(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        for number in (1, 3, 2, 101):
            client.ping(number)
        client.see(("ping", 101))
        assert client.seen == [("ping", 1), ("ping", 3), ("ping", 101)]


GARBAGE = struct.pack(">II", 0x80030005, 4) + b"SPDY"


@pytest.mark.parametrize("last", [frames.goaway(0, 0), GARBAGE, frames.ping(0)])
@pytest.mark.parametrize("streams", [0, 1])
def test_the_session_ends_and_the_websocket_does_not(
    box: LocalCluster, last: bytes, streams: int
) -> None:
    with SpdyClient(box) as client:
        if streams:
            data = client.connect(ECHO)[1]
            client.write(data, b"x")
            client.see((data, b"x"))
        client.send(last)
        if not streams:
            client.see(("goaway", 0, 0))
        client.quiet()
        still_held(client)


def test_text_ends_the_tunnel(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        client.send(b"text", Opcode.TEXT)
        assert client.run_out().close_codes() == [struct.pack(">H", 1000)]


@pytest.mark.parametrize("payload", [struct.pack(">H", 1000), struct.pack(">H", 1001), b""])
def test_a_close_frame_is_answered_with_its_own_code(box: LocalCluster, payload: bytes) -> None:
    with SpdyClient(box) as client:
        client.connect(ECHO)
        client.send(payload, Opcode.CLOSE)
        assert client.run_out().close_codes() == [payload]
    box.wait_idle()


def test_what_is_no_websocket(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        client.sock.sendall(b"\x83\x80mask")
        assert [each[:2] for each in client.run_out().close_codes()] == [struct.pack(">H", 1002)]
