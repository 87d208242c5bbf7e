"""TLS inside the TLS of a real https proxy, as the loop uses it: the same contract as one TLS.

R-14, R-15: one thread alone is inside, and nothing leaves in plain text.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import proxying
import pytest
from faults import Relay
from peers import (
    BINARY,
    PING,
    PONG,
    SUCCESS,
    authority,
    close_frame,
    data,
    opened,
    server_context,
    server_frame,
)
from proxying import RealProxy
from support import eventually, in_thread, seconds, time_limit
from test_tls_one_thread import MARK, records
from watched import Watch, WatchedContext

from kubews import errors
from kubews.config import proxies
from kubews.transport.backpressure import Limits
from kubews.transport.deadline import Deadline
from kubews.transport.dial import dial
from kubews.transport.http import DeadlineSocket
from kubews.transport.outbox import Unsent
from kubews.transport.patientsocket import PatientSocket
from kubews.transport.tls import secure, tls_context
from kubews.transport.tlssockets import NestedTls

VERSIONS = ["TLSv1_2", "TLSv1_3"]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    proxying.trust(monkeypatch, tmp_path)
    with time_limit(60):
        yield


@pytest.fixture(scope="module")
def tight() -> Iterator[RealProxy]:
    """A proxy that lets each side wait for the other."""
    with proxying.tiny_proxy(tls=True) as proxy:
        yield proxy


def soon() -> Deadline:
    return Deadline(seconds(20))


def inside() -> ssl.SSLContext:
    return tls_context(ca_pem=authority().cert_pem.bytes().decode())


@contextlib.contextmanager
def nested(
    proxy: RealProxy,
    version: str = "",
    *,
    port: int = 0,
    outer: ssl.SSLContext | None = None,
) -> Iterator[tuple[NestedTls, ssl.SSLSocket]]:
    """Give both ends of a connection through the proxy; the server's has one TLS only."""
    settings = server_context(version)  # here: two threads that made it would make two authorities
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> ssl.SSLSocket:
            return settings.wrap_socket(listener.accept()[0], server_side=True)

        accepting = in_thread(serve)
        chosen = proxies.of_cluster(proxy.url(port), "c")
        near: Any = dial(
            *listener.getsockname(),
            context=inside(),
            proxy=chosen,
            proxy_context=outer or tls_context(),
            deadline=soon(),
        )
        far = accepting.result()
    far.settimeout(seconds(10))
    with contextlib.closing(near), far:
        yield near, far


# -- as a socket


def patient(near: NestedTls, timeout: float = 20.0) -> DeadlineSocket:
    return DeadlineSocket(near, Deadline(seconds(timeout)), 1 << 20)


@pytest.mark.parametrize("version", VERSIONS)
def test_one_thread_reads_while_another_writes_r14(
    tight: RealProxy, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nested(tight, version) as (near, far):
        send = near._outer.send

        def slowly(data: Any) -> int:
            time.sleep(0.001)  # here the other comes in, if it can
            return send(data)

        monkeypatch.setattr(near._outer, "send", slowly)
        sock = PatientSocket(near, seconds(20))
        block = os.urandom(1 << 20)

        def receive() -> bytes:
            received = bytearray()
            while len(received) < len(block):
                received += sock.recv(1 << 16)
            return bytes(received)

        reading = [in_thread(receive), in_thread(exactly, far, len(block))]
        sending = [in_thread(sock.sendall, block), in_thread(far.sendall, block)]
        assert [each.result(20) for each in reading] == [block] * 2
        assert [each.result() for each in sending] == [None] * 2


@pytest.mark.parametrize("version", VERSIONS)
def test_with_somebody_who_waits(tight: RealProxy, version: str) -> None:
    with nested(tight, version) as (near, far):
        assert isinstance(near, NestedTls)
        block = os.urandom(1 << 20)
        sending = in_thread(patient(near).sendall, block)
        assert exactly(far, len(block)) == block
        sending.result()
        far.sendall(b"answer")
        waiting = patient(near)
        assert waiting.recv(3) + waiting.recv(100) == b"answer"
    assert near.fileno() == -1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_goodbye_is_an_end_and_anything_else_is_a_cut(tight: RealProxy, version: str) -> None:
    with nested(tight, version) as (near, far):
        far.sendall(b"last")
        leaving = in_thread(far.unwrap)
        waiting = patient(near)
        assert waiting.recv(100) == b"last"
        assert waiting.recv(100) == waiting.recv(100) == b""
        near.close()
        with pytest.raises(OSError):  # the goodbye is not returned
            leaving.result()
    with nested(tight, version) as (near, far):
        far.sendall(b"last")
        far.close()
        waiting = patient(near)
        assert waiting.recv(100) == b"last"
        with pytest.raises(ssl.SSLError, match="EOF"):
            waiting.recv(100)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_nobody_vouches_for_is_told_why(tight: RealProxy, version: str) -> None:
    """The alert leaves through the outer TLS, which is in order."""
    settings = server_context(version)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> str:
            with listener.accept()[0] as sock:
                sock.settimeout(seconds(10))
                try:
                    with settings.wrap_socket(sock, server_side=True) as tls:
                        return repr(tls.recv(1))
                except ssl.SSLError as exc:
                    return exc.reason

        accepting = in_thread(serve)
        with pytest.raises(errors.ConnectFailed, match=r"127\.0\.0\.1"):
            dial(
                *listener.getsockname(),
                context=tls_context(),
                proxy=proxies.of_cluster(tight.url(), "c"),
                proxy_context=tls_context(),
                deadline=soon(),
            )
        assert accepting.result(seconds(10)) == "TLSV1_ALERT_UNKNOWN_CA"


def test_a_proxy_that_says_goodbye_has_cut_what_is_inside() -> None:
    """The end of the outer TLS is none of the inner one, however orderly it is."""
    inside_tls, outside = server_context(), server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw = listener.accept()[0]
            with outside.wrap_socket(raw, server_side=True) as outer:
                outer.settimeout(seconds(10))
                received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
                inner = inside_tls.wrap_bio(received, sent, server_side=True)
                while True:
                    try:
                        inner.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        outer.sendall(sent.read())
                        received.write(outer.recv(65536))
                inner.write(b"last")
                outer.sendall(sent.read())
                with contextlib.suppress(OSError):
                    outer.unwrap()

        serving = in_thread(serve)
        outer = dial(
            *listener.getsockname(),
            context=inside(),
            proxy=None,
            proxy_context=None,
            deadline=soon(),
        )
        near = secure(outer, inside(), "127.0.0.1", "the server", soon())
        with contextlib.closing(near):
            waiting = patient(near)
            assert waiting.recv(100) == b"last"
            with pytest.raises(ssl.SSLError, match="EOF"):
                waiting.recv(100)
        serving.result(seconds(10))


def test_a_call_is_bounded_as_a_whole(tight: RealProxy) -> None:
    """What drips through the outer TLS is no record of the inner one, however often it wakes."""
    with Relay(tight.address) as relay, nested(tight, port=relay.address[1]) as (near, far):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            patient(near, 0.2).recv(1)
        relay._piece, relay._pause = 1, 0.02
        far.sendall(bytes(1000))
        with pytest.raises(TimeoutError):
            patient(near, 0.3).recv(1)
        assert time.monotonic() - begin < seconds(0.5) + 1
        with pytest.raises(TimeoutError):
            patient(near, 0.3).sendall(bytes(64 << 20))
        assert time.monotonic() - begin < seconds(0.8) + 2


def test_one_that_never_waits(tight: RealProxy) -> None:
    with nested(tight) as (near, far):
        with pytest.raises(ssl.SSLWantReadError):
            near.recv(1)
        far.sendall(b"x")
        select.select([near], [], [], seconds(10))
        assert eventually(lambda: arrived(near) == b"x")
        sent = fill(near)
        assert sent > 100_000
        far_received = in_thread(exactly, far, sent)
        # Bytes that were refused had been encrypted: the next call begins with the same.
        select.select([], [near], [], seconds(10))
        assert eventually(lambda: more(near) > 0)
        assert far_received.result() == bytes(sent)


def arrived(near: NestedTls) -> bytes:
    with contextlib.suppress(ssl.SSLWantReadError):
        return near.recv(10)
    return b""


def fill(near: NestedTls) -> int:
    """Send until nothing is taken any more, and stays so: the proxy takes some time."""
    sent, until = 0, time.monotonic() + 0.3
    while time.monotonic() < until:
        if count := more(near):
            sent, until = sent + count, time.monotonic() + 0.3
    return sent


def more(near: NestedTls) -> int:
    with contextlib.suppress(ssl.SSLWantWriteError):
        return near.send(bytes(1 << 20))
    return 0


def exactly(far: ssl.SSLSocket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += far.recv(min(1 << 16, size - len(received)))
    return bytes(received)


# -- under a connection


@contextlib.contextmanager
def connected(proxy: RealProxy, version: str = "", **options: Any) -> Iterator[Any]:
    """Give a connection with its peer, and who was inside the outer TLS."""
    outer = WatchedContext(ssl.PROTOCOL_TLS_CLIENT)
    proxying.authority().configure_trust(outer)
    outer.watch = watch = Watch()
    with nested(proxy, version, outer=outer) as pair:
        with opened(pair, **options) as (connection, peer):
            yield connection, peer, watch
        assert watch.faults == []


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ways_at_once_from_one_thread_r14(tight: RealProxy, version: str) -> None:
    size = 8 << 20
    limits = Limits(inbound=1 << 16, outbound=1 << 16)
    block = os.urandom(50_000)

    def write() -> None:
        source = Unsent(block * (size // len(block)))
        while not source.done:
            connection.send(0, source, soon())

    def read(channel: int) -> bytes:
        received = bytearray()
        while len(received) < size // len(block) * len(block):
            received += connection.pipes[channel].take(100_000, soon())
        return bytes(received)

    def serve() -> None:
        left = size // len(block) * len(block)
        while left:
            opcode, payload = peer.read_frame()
            if opcode == BINARY:
                left -= len(payload) - 1
                peer.send(data(1, payload[1:]), server_frame(b"?", PING))

    with connected(tight, version, limits=limits, ping=0.05) as (connection, peer, watch):
        watch.hand_over(connection._loop._thread)
        calls = [in_thread(serve), in_thread(write), in_thread(read, 1)]
        assert calls[2].result(50) == block * (size // len(block))
        for call in calls:
            call.result()
        assert watch.calls["send"] > 10


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_is_read_while_it_reads_nothing(tight: RealProxy, version: str) -> None:
    """R-10: neither direction waits for the other."""
    with connected(tight, version) as (connection, peer, _):
        source = Unsent(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            while True:  # until the proxy and everything before it is full
                connection.send(0, source, Deadline(0.5))
        for number in range(3):
            peer.send(data(1, bytes((number,)) * 100_000))
            received = b""
            while len(received) < 100_000:
                received += connection.pipes[1].take(1 << 20, soon())
            assert received == bytes((number,)) * 100_000
        accepted, received = source.offset, 0
        while received < accepted:
            opcode, payload = peer.read_frame()
            if opcode == BINARY:
                assert not payload.strip(b"\0")
                received += len(payload) - 1
        assert received == accepted


def test_idle_does_not_spin(tight: RealProxy) -> None:
    with connected(tight) as (connection, peer, watch):
        peer.send(server_frame(b"", PING))
        assert peer.read_frame()[0] == PONG
        before = sum(watch.calls.values())
        time.sleep(0.2)
        assert sum(watch.calls.values()) - before <= 2
        peer.send(data(1, b"x"))
        assert connection.pipes[1].take(1, soon()) == b"x"


def test_the_status_counts_however_it_ends(tight: RealProxy) -> None:
    with connected(tight) as (connection, peer, _):
        peer.send(data(1, b"all"), data(3, SUCCESS), close_frame())
        peer.close()
        connection.status.get(soon())
        assert connection.succeeded()
        assert connection.pipes[1].take(9, soon()) == b"all"


@pytest.mark.parametrize("cut", ["reset", "fin"])
def test_a_proxy_that_is_gone_is_a_loss(tight: RealProxy, cut: str) -> None:
    with Relay(tight.address, cut_after=1 << 18, cut=cut) as relay:
        with nested(tight, port=relay.address[1]) as pair, opened(pair) as (connection, peer):
            with contextlib.suppress(OSError):
                for _ in range(100):
                    peer.send(data(1, bytes(10_000)))
            with pytest.raises(errors.ConnectionLost):
                connection.status.get(soon())
            # A reset takes along what the kernel has and nobody has read yet.
            assert (100_000 if cut == "fin" else 0) <= connection._received[1] < 1 << 18


def test_nothing_leaves_in_plain_text_r15(tight: RealProxy) -> None:
    with Relay(tight.address) as relay:
        with nested(tight, port=relay.address[1]) as pair, opened(pair) as (connection, peer):
            source = Unsent(MARK * 10_000)
            while not source.done:
                connection.send(0, source, soon())
            assert peer.read_data().startswith(MARK)
            peer.send(data(1, MARK))
            assert connection.pipes[1].take(100, soon()) == MARK
            connection.close()
    for stream in (bytes(relay.from_client), bytes(relay.from_server)):
        assert MARK not in stream
        assert b"CONNECT" not in stream
        assert 23 in records(stream)
