"""R-14: no two threads are ever inside one SSL object. R-15: nothing leaves it in plain text.

Two threads inside one ``SSLSocket`` end connections at random and can take the interpreter down, so the
tests do not wait for that: they watch who comes in.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults import Relay
from peers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    SUCCESS,
    V5,
    Peer,
    authority,
    close_frame,
    data,
    opened,
    secured,
    server_context,
    server_frame,
    tcp_pair,
    tls_pair,
)
from support import eventually, in_thread, seconds
from test_wire import agree
from watched import Watch, WatchedContext

from kubews import errors
from kubews.protocol.channels import Channels
from kubews.transport.backpressure import Limits
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.dial import dial
from kubews.transport.loop import Loop
from kubews.transport.outbox import Unsent
from kubews.transport.tls import tls_context
from kubews.transport.wire import upgrade

MARK = b"in plain text "


def soon() -> Deadline:
    return Deadline(seconds(20))


def watched(linger: Callable[[], object] | None = None) -> WatchedContext:
    context = WatchedContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    context.watch = Watch(linger)
    return context


@contextlib.contextmanager
def watched_connection(
    version: str = "", linger: Callable[[], object] | None = None, **options: Any
) -> Iterator[tuple[Connection, Peer, Watch]]:
    context = watched(linger)
    with opened(secured(*tcp_pair(), context, version), **options) as (connection, peer):
        context.watch.hand_over(connection._loop._thread)
        yield connection, peer, context.watch
        connection.abort()
        connection.join(soon())
    assert context.watch.calls["do_handshake"]
    assert context.watch.calls["recv"]
    assert context.watch.faults == []


def echo(peer: Peer) -> None:
    """Send everything back on both channels, with pings between, until the client says goodbye."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            opcode, payload = peer.read_frame()
            if opcode == CLOSE:
                peer.send(close_frame())
                return
            if opcode not in (PING, PONG) and payload[0] == 0:
                peer.send(data(1, payload[1:]), server_frame(b"?", PING), data(2, payload[1:]))


def write(connection: Connection, size: int) -> None:
    source = Unsent(os.urandom(1000) * (size // 1000))
    with contextlib.suppress(errors.StreamBroken):
        while not source.done:
            connection.send(0, source, soon())


def read(connection: Connection, channel: int) -> int:
    count = 0
    with contextlib.suppress(errors.ConnectionLost):
        while piece := connection.pipes[channel].take(10_000, soon()):
            count += len(piece)
    return count


# -- the connection


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("end", ["close", "abort", "reset"])
def test_full_duplex_from_many_threads(version: str, end: str) -> None:
    limits = Limits(inbound=1 << 16, outbound=1 << 16)
    with watched_connection(version, lambda: time.sleep(0.0001), limits=limits, ping=0.01) as (
        connection,
        peer,
        watch,
    ):
        threads = [in_thread(echo, peer)]
        threads += [in_thread(write, connection, 4 << 20) for _ in range(3)]
        threads += [in_thread(read, connection, channel) for channel in (1, 2, 1, 2)]
        assert eventually(lambda: connection._received[2] > 1 << 20, 20)
        if end == "close":
            for closing in [in_thread(connection.close, 5.0) for _ in range(3)]:
                closing.result()
        elif end == "abort":
            for aborting in [in_thread(connection.abort) for _ in range(3)]:
                aborting.result()
        else:
            peer.reset()
        for thread in threads:
            thread.result(30)
        connection.closed.get(soon())
        assert watch.calls["send"] > 10
        assert watch.calls["close"] == 1


def test_everything_that_callers_can_do_at_once() -> None:
    for _ in range(20):
        with watched_connection(limits=Limits(inbound=1000)) as (connection, peer, _):
            calls = [
                in_thread(write, connection, 1 << 18),
                in_thread(read, connection, 1),
                in_thread(connection.pipes[2].close),
                in_thread(connection.hang_up_when_unwanted),
                in_thread(connection.end, 0),
                in_thread(connection.close, 0.01),
                in_thread(connection.abort),
                in_thread(peer.read_until_end),
            ]
            for call in calls:
                with contextlib.suppress(errors.StreamBroken):
                    call.result()


def test_a_garbage_collected_caller_does_not_touch_it() -> None:
    with watched_connection() as (connection, peer, watch):
        before = dict(watch.calls)
        connection.abort()  # what a finalizer may call, in whatever thread it runs
        connection.closed.get(soon())
        assert watch.calls["close"] == before["close"] + 1
        assert peer.at_end()


def test_from_the_dial_to_the_end() -> None:
    # Until the upgrade it is the caller's, from then on the loop's; and nobody calls shutdown or unwrap.
    context = watched()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock = server_context().wrap_socket(listener.accept()[0], server_side=True)
            with sock:
                agree(data(1, b"early"), then=lambda sock: echo(Peer(sock)))(sock)

        server = in_thread(serve)
        context.watch.hand_over(threading.current_thread())
        sock = dial(*listener.getsockname(), context=context, deadline=soon())
        wire = upgrade(sock, "/exec", [("Host", "h")], [V5], "exec", soon())
        loop = Loop("test")
        context.watch.hand_over(loop._thread)
        connection = Connection(wire, Channels(V5), loop, inbound={1: 1, 2: 2}, where="pod a/b")
        assert connection.pipes[1].take(5, soon()) == b"early"
        connection.send(0, Unsent(b"hello"), soon())
        assert connection.pipes[2].take(5, soon()) == b"hello"
        connection.close()
        server.result()
    assert context.watch.faults == []
    assert context.watch.calls["shutdown"] == context.watch.calls["unwrap"] == 0
    assert context.watch.calls["close"] == 1


# -- the detector detects


def test_two_threads_at_once_are_seen() -> None:
    gate = threading.Event()
    gate.set()
    context = watched(gate.wait)
    near, far = tls_pair(context)
    with near, far:
        gate.clear()
        reading = in_thread(near.recv, 5)
        assert eventually(lambda: context.watch._inside is reading.thread)
        near.sendall(b"x")  # not once it is reading: it would hold the lock of the socket
        assert any("while" in fault for fault in context.watch.faults)
        gate.set()
        far.sendall(b"hello")
        reading.result()


def test_a_strange_thread_is_seen() -> None:
    context = watched()
    near, far = tls_pair(context)
    with far:
        context.watch.hand_over(threading.Thread(name="the loop"))
        near.close()
        (fault,) = context.watch.faults
        assert fault.startswith("close by MainThread, not by the owner")


def test_a_connection_that_writes_in_the_callers_thread_is_seen() -> None:
    # The recipe that everybody writes first: a thread that reads, and sendall in whatever thread.
    context = watched()
    with opened(secured(*tcp_pair(), context)) as (connection, peer):
        context.watch.hand_over(connection._loop._thread)
        connection._wire.send(memoryview(b"\x82\x81\0\0\0\0x"))
        assert context.watch.faults
        assert peer.read_frame() == (2, b"x")


# -- nothing in plain text


def records(stream: bytes) -> list[int]:
    """Return the types of all TLS records; anything else between them fails."""
    types, start = [], 0
    while start + 5 <= len(stream):
        kind, major = stream[start], stream[start + 1]
        assert kind in (20, 21, 22, 23), (
            f"byte {start} starts no TLS record: {stream[start:][:40]!r}"
        )
        assert major == 3
        size = int.from_bytes(stream[start + 3 : start + 5], "big")
        assert size <= (1 << 14) + 2048
        types.append(kind)
        start += 5 + size
    return types


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(
    "end", ["status", "close", "abort", "abort-stuck", "server-gone", "reset", "lost-write"]
)
def test_nothing_leaves_in_plain_text(version: str, end: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            plain = listener.accept()[0]
            sock = server_context(version).wrap_socket(plain, server_side=True)
            peer = Peer(sock)
            with contextlib.suppress(OSError, EOFError):
                agree(data(1, MARK * 10))(sock)
                if end in ("status", "close"):
                    while peer.read_frame()[0] != CLOSE:
                        if end == "status":
                            peer.send(data(3, SUCCESS), close_frame())
                            break
                elif end == "abort-stuck":
                    done.wait(seconds(10))
                elif end in ("reset", "server-gone"):
                    while peer.read_frame()[0] != BINARY:
                        pass  # a ping may be sooner
                    if end == "reset":
                        peer.reset()
                elif end == "lost-write":
                    pass  # closed with everything unread
                else:
                    peer.read_until_end()
            sock.close()

        server = in_thread(serve)
        with Relay(listener.getsockname()) as relay:
            context = tls_context(ca_pem=authority().cert_pem.bytes().decode())
            sock = dial(*relay.address, context=context, deadline=soon())
            headers = [("Host", "h"), ("Authorization", "Bearer " + MARK.decode())]
            wire = upgrade(sock, "/exec", headers, [V5], "exec", soon())
            connection = Connection(
                wire, Channels(V5), Loop("test"), inbound={1: 1}, where="pod a/b", ping=0.01
            )
            source = Unsent(MARK * (1 << 20))
            with contextlib.suppress(TimeoutError, errors.StreamBroken):
                for _ in range(3 if end in ("status", "abort") else 1000):
                    connection.send(0, source, Deadline(0.1))
            if end == "close":
                connection.close(seconds(10))
            elif end.startswith("abort"):
                connection.abort()
            with contextlib.suppress(errors.ConnectionLost):
                connection.status.get(soon())
            connection.close()
            # What a caller may do afterwards changes nothing.
            with contextlib.suppress(errors.StreamBroken):
                connection.send(0, source, soon())
            connection.abort()
            connection.join(soon())
            done.set()
            server.result()
        for stream in (bytes(relay.from_client), bytes(relay.from_server)):
            assert MARK not in stream
            assert b"HTTP/1.1" not in stream
            assert 23 in records(stream)


def test_the_sniffer_detects() -> None:
    with pytest.raises(AssertionError, match="starts no TLS record"):
        records(b"\x17\x03\x03\0\1xGET / HTTP/1.1")
    # What a half-close with SSLSocket.shutdown does: everything behind it goes out as it is.
    near, far = tcp_pair()
    secure, other = secured(near, far)
    with other, secure:
        raw = socket.socket(fileno=os.dup(other.fileno()))
        with raw:
            secure.shutdown(socket.SHUT_RD)
            secure.send(MARK)
            raw.settimeout(seconds(5))
            assert MARK in raw.recv(1 << 16)


def test_idle_tls_does_not_spin() -> None:
    with watched_connection() as (connection, peer, watch):
        peer.send(server_frame(b"", PING))
        assert peer.read_frame()[0] == PONG
        before = sum(watch.calls.values())
        time.sleep(0.2)
        assert sum(watch.calls.values()) - before <= 2
        reading = in_thread(connection.pipes[1].take, 1, NEVER)
        peer.send(data(1, b"x"))
        assert reading.result() == b"x"
