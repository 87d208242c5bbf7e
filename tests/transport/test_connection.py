"""A live connection: every order in which things can end, and every way to wait for them."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from faults import FaultySocket
from peers import (
    BINARY,
    CLOSE,
    CONT,
    EXIT_3,
    PAIRS,
    PING,
    PONG,
    SUCCESS,
    TEXT,
    V4,
    V5,
    Peer,
    close_frame,
    data,
    opened,
    pass_the_grace,
    server_frame,
    unblocked,
)
from support import eventually, in_thread, resources, seconds

from kubews import errors
from kubews.protocol.channels import MAX_DATA, Channels
from kubews.protocol.events import End
from kubews.transport import heartbeat, live
from kubews.transport import link as link_module
from kubews.transport.backpressure import Limits
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.loop import Loop
from kubews.transport.outbox import Unsent
from kubews.transport.wait import PatientThread
from kubews.transport.wire import Wire

READY = data(1, b"")


END_OF_STDOUT = server_frame(b"\xff\1")


def soon(timeout: float = 10.0) -> Deadline:
    return Deadline(seconds(timeout))


def drain(connection: Connection, channel: int = 1) -> bytes:
    """Read to the end."""
    gathered = bytearray()
    while piece := connection.pipes[channel].take(1 << 20, soon()):
        gathered += piece
    return bytes(gathered)


def write(connection: Connection, payload: bytes, deadline: Deadline | None = None) -> None:
    source = Unsent(payload)
    while not source.done:
        connection.send(0, source, deadline or soon())


def until_full(connection: Connection) -> Unsent:
    """Write until the queue takes nothing more; return what is left."""
    source = Unsent(bytes(64 << 20))
    refused = 0
    while refused < 8:  # once may be a loop that did not get its turn
        try:
            connection.send(0, source, Deadline(0.02))
            refused = 0
        except TimeoutError:
            refused += 1
    return source


def paused(connection: Connection) -> bool:
    return eventually(lambda: connection._paused)


def wakeups(connection: Connection) -> Callable[[], int]:
    """Count from now on how often the loop's thread returns from its selector."""
    selector = connection._loop._selector
    select, count = selector.select, itertools.count()
    seen = [0]

    def counted(timeout: float | None = None) -> Any:
        ready = select(timeout)
        seen[0] = next(count) + 1
        return ready

    selector.select = counted  # type: ignore[method-assign]
    connection._loop.call_soon(lambda: None)  # out of the call that is not counted
    assert eventually(lambda: connection._loop._sleeping)
    start = seen[0]
    return lambda: seen[0] - start


# -- how it ends


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("subprotocol", [V4, V5])
def test_output_status_close(pair: str, subprotocol: str) -> None:
    with opened(pair, subprotocol) as (connection, peer):
        peer.send(READY, data(1, b"out"), data(2, b"err"), data(3, EXIT_3), close_frame())
        status = connection.status.get(soon())
        assert (status.success, status.exit_code) == (False, 3)
        assert drain(connection) == b"out"
        assert drain(connection, 2) == b"err"
        assert peer.read_frame() == (CLOSE, b"\x03\xe8")
        assert peer.at_end()
        connection.closed.get(soon())
        assert connection.succeeded()
        assert connection.subprotocol == subprotocol
        assert connection.name(1) == "stdout"


ENDS = {
    "close": lambda peer: peer.send(close_frame()),
    "close-1011": lambda peer: peer.send(close_frame(1011)),
    "close-empty": lambda peer: peer.send(server_frame(b"", CLOSE)),
    "end": lambda peer: peer.close(),
    "reset": lambda peer: peer.reset(),
    "half-frame": lambda peer: (peer.send(data(1, b"tail")[:3]), peer.close()),
    "malformed": lambda peer: peer.send(server_frame(b"", 7)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pair", ["tcp", "tls"])
def test_any_end_without_a_status_is_a_loss(pair: str, end: str) -> None:
    # never 0, never None, also where TLS ends without its farewell.
    with opened(pair) as (connection, peer):
        waiting = in_thread(connection.status.get, soon())
        reading = in_thread(drain, connection, 2)
        peer.send(READY, data(1, b"12345"))
        assert eventually(lambda: connection.pipes[1].size == 5)
        ENDS[end](peer)
        for call in (
            waiting.result,
            reading.result,
            lambda: connection.status.get(soon()),
            lambda: connection.pipes[2].take(1, soon()),
        ):
            with pytest.raises(errors.ConnectionLost) as caught:
                call()
            assert caught.value.received == {"stdout": 5, "stderr": 0}
            assert "pod shop/web-0" in str(caught.value)
            assert V5 in str(caught.value)
        # What had come is still there, then the loss, for ever.
        assert connection.pipes[1].take(9, soon()) == b"12345"
        for _ in range(2):
            with pytest.raises(errors.ConnectionLost):
                connection.pipes[1].take(9, soon())
        assert not connection.succeeded()
        with pytest.raises(errors.StreamBroken):
            connection.send(0, Unsent(b"x"), soon())
        with pytest.raises(errors.StreamBroken):
            connection.end(0)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("pair", ["tcp", "tls"])
def test_after_a_status_every_end_is_clean(pair: str, end: str) -> None:
    with opened(pair) as (connection, peer):
        peer.send(data(1, b"12345"), data(3, SUCCESS))
        assert connection.status.get(soon()).exit_code == 0
        ENDS[end](peer)
        assert drain(connection) == b"12345"
        assert drain(connection, 2) == b""
        connection.closed.get(soon())
        with pytest.raises(errors.StreamBroken, match="has ended"):
            connection.send(0, Unsent(b"x"), soon())


def test_output_behind_the_status_is_not_lost() -> None:
    with opened() as (connection, peer):
        peer.send(data(1, b"before "), data(3, SUCCESS))
        assert connection.status.get(soon()).exit_code == 0
        assert not connection.closed.done()
        peer.send(data(1, b"behind"), close_frame())
        assert drain(connection) == b"before behind"


def test_the_status_ends_the_wait_though_the_server_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_GRACE", seconds(0.1))
    with opened() as (connection, peer):
        peer.send(data(1, b"out"), data(3, SUCCESS))
        assert connection.status.get(soon()).exit_code == 0
        assert drain(connection) == b"out"
        assert peer.at_end()


def test_the_grace_does_not_run_while_this_side_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "_GRACE", seconds(0.05))
    with opened("tcp", limits=Limits(inbound=100)) as (connection, peer):
        sent = b"x" * 500_000
        peer.send(data(3, SUCCESS), *(data(1, sent[i : i + 1000]) for i in range(0, 500_000, 1000)))
        assert paused(connection)
        time.sleep(seconds(0.2))
        assert not connection.closed.done()
        peer.send(close_frame())
        assert drain(connection) == sent


@pytest.mark.parametrize("refuse_after", [0, 5, 100_000])
def test_a_write_that_fails_hides_no_status(refuse_after: int) -> None:
    # A process that ends with its stdin unread: the server resets behind output and Status.
    wrap = lambda sock: FaultySocket(sock, refuse_after=refuse_after)  # noqa: E731
    with opened(wrap=wrap) as (connection, peer):
        with pytest.raises(errors.StreamBroken):
            write(connection, bytes(8 << 20))
        with pytest.raises(errors.StreamBroken):
            connection.send(0, Unsent(b"x"), soon())
        assert eventually(lambda: not connection._outbox)
        peer.send(server_frame(b"still there?", PING))
        peer.send(*[data(1, b"o" * 1000)] * 100, data(3, EXIT_3), close_frame())
        assert connection.status.get(soon()).exit_code == 3
        assert drain(connection) == b"o" * 100_000


def test_a_write_that_fails_ends_the_connection_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_GRACE", seconds(0.05))
    wrap = lambda sock: FaultySocket(sock, refuse_after=0)  # noqa: E731
    with opened(wrap=wrap) as (connection, _):
        with pytest.raises(errors.StreamBroken):
            write(connection, bytes(8 << 20))
        with pytest.raises(errors.ConnectionLost, match="broken pipe"):
            connection.status.get(soon())


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [(b"", None), (b"{", None), (b"no JSON", None), (b'{"status": "Odd"}', None), (EXIT_3, 3)],
    ids=["empty", "half", "text", "odd", "bytewise"],
)
def test_a_status_in_pieces_or_none(text: bytes, exit_code: int | None) -> None:
    with opened() as (connection, peer):
        peer.send(*(data(3, text[i : i + 1]) for i in range(len(text))), close_frame())
        if text:
            status = connection.status.get(soon())
            assert (status.success, status.exit_code) == (False, exit_code)
        else:
            with pytest.raises(errors.ConnectionLost):
                connection.status.get(soon())


def test_a_codec_may_have_more_to_say_at_the_end() -> None:
    with opened() as (connection, peer):
        connection._codec.receive_eof = lambda: [End(1)]  # type: ignore[method-assign]
        peer.send(data(3, SUCCESS), close_frame())
        assert connection.status.get(soon()).exit_code == 0
        connection.closed.get(soon())


def test_a_second_status_changes_nothing() -> None:
    with opened() as (connection, peer):
        peer.send(data(3, EXIT_3), data(3, SUCCESS), close_frame())
        connection.closed.get(soon())
        assert connection.status.get(soon()).exit_code == 3


def test_fragments_with_pings_between() -> None:
    with opened() as (connection, peer):
        payload = b"\1" + os.urandom(1000)
        peer.send(server_frame(payload[:1], final=False), server_frame(b"a", PING))
        for i in range(1, 1001, 100):
            peer.send(server_frame(payload[i : i + 100], CONT, final=False))
            peer.send(server_frame(b"b", PING))
        peer.send(server_frame(b"", CONT), data(3, SUCCESS), close_frame())
        assert drain(connection) == payload[1:]
        assert peer.read_frame() == (PONG, b"a")


def test_text_and_unknown_channels() -> None:
    with opened() as (connection, peer):
        peer.send(server_frame(b"\1text", TEXT), data(9, b"nobody's"), data(0, b"own"))
        peer.send(server_frame(b"\xff\2"))
        assert drain(connection, 2) == b""
        peer.send(data(3, SUCCESS), close_frame())
        assert drain(connection) == b"text"


def test_merged_channels_keep_the_order_of_arrival() -> None:
    with opened(inbound={1: 1, 2: 1}) as (connection, peer):
        assert list(connection.pipes) == [1]
        peer.send(*(data(1 + i % 2, b"%d " % i) for i in range(100)))
        peer.send(close_frame())
        with pytest.raises(errors.ConnectionLost) as caught:
            connection.status.get(soon())
        numbers = b"".join(b"%d " % i for i in range(100))
        assert connection.pipes[1].take_all() == numbers
        assert caught.value.received == {
            "stdout": len(b"".join(b"%d " % i for i in range(0, 100, 2))),
            "stderr": len(b"".join(b"%d " % i for i in range(1, 100, 2))),
        }


@pytest.mark.parametrize("first", [1, 2])
def test_merged_channels_end_with_the_last_of_them(first: int) -> None:
    with opened(inbound={1: 1, 2: 1}) as (connection, peer):
        peer.send(server_frame(bytes([0xFF, first])), data(3 - first, b"more"))
        assert connection.pipes[1].take(99, soon()) == b"more"
        assert not connection.pipes[1].ended
        peer.send(server_frame(bytes([0xFF, 3 - first])), data(first, b"behind its end"))
        assert connection.pipes[1].take(99, soon()) == b""
        peer.send(data(3, SUCCESS), close_frame())
        connection.status.get(soon())
        assert connection.pipes[1].take(99, soon()) == b""


# -- sending


def test_half_close_comes_behind_the_data() -> None:
    with opened() as (connection, peer):
        write(connection, b"x" * 100_000)
        connection.end(0)
        got = b"".join(peer.read_data() for _ in range(2))
        assert got == b"x" * 100_000
        assert peer.read_frame() == (BINARY, b"\xff\0")
        assert eventually(lambda: not connection._outbox)


def test_v4_cannot_half_close() -> None:
    with opened(subprotocol=V4) as (connection, peer):
        with pytest.raises(errors.HalfCloseUnsupported, match=r"stdin .* v4\.channel\.k8s\.io"):
            connection.end(0)
        write(connection, b"next")
        assert peer.read_data() == b"next"


def test_ctrl_c_behind_a_queued_frame_leaves_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with opened() as (connection, peer):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(connection._loop, "call_soon", interrupted)
            write(connection, b"one")
        write(connection, b"two")
        assert [peer.read_data(), peer.read_data()] == [b"one", b"two"]


def test_a_send_takes_one_frame_of_64_KiB() -> None:
    with opened() as (connection, peer):
        source = Unsent(bytes(140_000))
        offsets = []
        while not source.done:
            connection.send(0, source, soon())
            offsets.append(source.offset)
        assert offsets == [65536, 131_072, 140_000]
        assert [len(peer.read_data()) for _ in offsets] == [65536, 65536, 8928]
        assert len(set(peer.masks)) == 3


@pytest.mark.parametrize("pair", ["unix", "tls"])
def test_frames_of_many_writers_are_whole_and_in_order(pair: str) -> None:
    wrap = lambda sock: FaultySocket(sock, write_size=5000)  # noqa: E731
    with opened(pair, wrap=wrap, limits=Limits(outbound=1 << 16)) as (connection, peer):

        def writer(number: int) -> None:
            for count in range(60):
                size = (count * 997) % 32_000 + 8
                write(connection, b"%d %d " % (number, count) + bytes([number]) * size)

        writers = [in_thread(writer, number) for number in range(6)]
        seen = [0] * 6
        for index in range(360):
            if index % 20 == 0:
                peer.send(server_frame(b"", PING))
            opcode, payload = peer.read_frame()
            while opcode == PONG:
                opcode, payload = peer.read_frame()
            number, count, rest = payload[1:].split(b" ", 2)
            assert int(count) == seen[int(number)]
            assert rest == bytes([int(number)]) * ((int(count) * 997) % 32_000 + 8)
            seen[int(number)] += 1
        for thread in writers:
            thread.result()


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda connection, peer: connection.close(0), errors.StreamBroken),
        (lambda connection, peer: connection.abort(), errors.StreamBroken),
        (lambda connection, peer: peer.close(), errors.StreamBroken),
        (lambda connection, peer: peer.reset(), errors.StreamBroken),
        (lambda connection, peer: peer.send(data(3, SUCCESS)), errors.StreamBroken),
    ],
    ids=["close", "abort", "end", "reset", "status"],
)
def test_whoever_waits_for_room_is_woken(end: Any, error: type[Exception]) -> None:
    with opened("tcp") as (connection, peer):
        until_full(connection)

        def write() -> None:
            while True:  # the kernel may have taken some more in the meantime
                connection.send(0, Unsent(bytes(1 << 15)), soon())

        writers = [in_thread(write) for _ in range(3)]
        assert eventually(lambda: len(connection._outbox.writers.starving()) == 3)
        end(connection, peer)
        for writer in writers:
            with pytest.raises(error):
                writer.result()


def test_a_full_queue_takes_again_what_was_not_taken() -> None:
    with opened() as (connection, peer):
        source = until_full(connection)
        assert connection._outbox
        offset = source.offset
        reading = in_thread(
            lambda: sum(len(peer.read_data()) for _ in range(offset // MAX_DATA + 1))
        )
        connection.send(0, source, soon())
        assert reading.result() == source.offset == offset + MAX_DATA


def test_a_pong_does_not_wait_for_room_r16() -> None:
    """R-16: nor behind what writers have queued."""
    with opened() as (connection, peer):
        until_full(connection)
        peer.send(server_frame(b"now", PING))
        assert eventually(lambda: connection._outbox.control)
        opcodes = []
        while not opcodes or opcodes[-1] != PONG:
            opcodes.append(peer.read_frame()[0])
        assert len(opcodes) <= 1 + (64 << 10) // MAX_DATA + (1 << 19) // MAX_DATA, (
            "ahead of the queue"
        )


def test_a_writer_as_fast_as_the_peer_does_not_own_the_loop() -> None:
    class Endless(FaultySocket):
        def send(self, data: Any) -> int:
            connection._outbox.put_more(b"more")  # somebody was faster, again
            return len(data)

    with opened(wrap=Endless) as (connection, peer):
        connection.send(0, Unsent(b"x"), soon())
        peer.send(data(1, b"read"))
        assert connection.pipes[1].take(9, soon()) == b"read"
        started = time.monotonic()
        connection.abort()
        connection.closed.get(soon())
        assert time.monotonic() - started < seconds(1)


# -- liveness


def test_a_flood_of_pings_is_not_kept() -> None:
    wrap = lambda sock: FaultySocket(sock, refuse_after=None, write_size=1)  # noqa: E731
    with opened(wrap=wrap) as (connection, peer):
        until_full(connection)
        for start in range(0, 5000, 100):
            peer.send(*(server_frame(b"%d" % i, PING) for i in range(start, start + 100)))
        peer.send(data(1, b"done"))
        assert connection.pipes[1].take(9, soon()) == b"done"
        assert len(connection._outbox.control) <= 16


def test_pings_go_out_and_pongs_are_no_output() -> None:
    with opened(ping=seconds(0.02)) as (connection, peer):
        for _ in range(3):
            opcode, payload = peer.read_frame()
            assert opcode == PING
            peer.send(server_frame(payload, PONG))
        peer.send(server_frame(b"unasked", PONG), data(3, SUCCESS), close_frame())
        assert drain(connection) == b""


def test_a_silent_peer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(0.15))
    with opened(ping=seconds(0.03)) as (connection, _):
        started = time.monotonic()
        with pytest.raises(errors.ConnectionLost, match="no sign of life"):
            connection.status.get(soon())
        assert seconds(0.1) < time.monotonic() - started < seconds(1)


@pytest.mark.parametrize("sign", [server_frame(b"", PONG), data(1, b"x"), server_frame(b"", PING)])
def test_any_sign_of_life_will_do(monkeypatch: pytest.MonkeyPatch, sign: bytes) -> None:
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(1))
    with opened(ping=seconds(0.02)) as (connection, peer):
        for _ in range(12):
            time.sleep(seconds(0.1))
            peer.send(sign)
        assert not connection.closed.done()


def test_silence_proves_nothing_behind_unread_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    # v4: a process that does not read its stdin keeps the server from answering pings.
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(0.1))
    with opened(ping=seconds(0.02)) as (connection, peer):
        write(connection, b"x")
        time.sleep(seconds(0.4))
        assert not connection.closed.done()
        while peer.read_frame()[0] != BINARY:
            pass
        # The pong of a ping behind the data tells that it was read; from there on silence counts.
        peer.send(server_frame(peer.read_frame()[1], PONG))
        with pytest.raises(errors.ConnectionLost, match="no sign of life"):
            connection.status.get(soon())


def test_silence_proves_nothing_while_this_side_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(0.1))
    with opened(ping=seconds(0.02), limits=Limits(inbound=10)) as (connection, peer):
        peer.send(data(1, b"x" * 100))
        assert paused(connection)
        time.sleep(seconds(0.3))
        assert not connection.closed.done()
        connection.pipes[1].take_all()
        with pytest.raises(errors.ConnectionLost, match="no sign of life"):
            connection.status.get(soon())


def test_pings_do_not_pile_up_behind_a_stuck_peer() -> None:
    with opened(ping=0.001) as (connection, _):
        until_full(connection)
        time.sleep(seconds(0.2))
        assert len(connection._outbox.control) <= 20


@pytest.mark.parametrize("state", ["idle", "paused", "stuck", "broken"])
def test_the_loop_sleeps(state: str) -> None:
    # no wake-up without a reason, whatever is ready that nobody wants.
    wrap = lambda sock: FaultySocket(sock, refuse_after=0) if state == "broken" else sock  # noqa: E731
    with opened("tcp", wrap=wrap, limits=Limits(inbound=10)) as (connection, peer):
        if state == "paused":
            peer.send(*[data(1, b"x" * 100)] * 1000)
            assert paused(connection)
        if state == "stuck":
            until_full(connection)
        if state == "broken":
            peer.send(*[data(1, b"x" * 100)] * 1000)
            assert paused(connection)
            with pytest.raises(errors.StreamBroken):
                write(connection, bytes(2 << 20))
            connection._grace.cancel()  # type: ignore[union-attr]
            peer.reset()
        time.sleep(0.02)
        count = wakeups(connection)
        time.sleep(0.2)
        assert count() <= 2


# -- who waits for whom


def test_stderr_behind_a_full_stdout() -> None:
    with opened("tcp", limits=Limits(inbound=1000)) as (connection, peer):
        sending = in_thread(
            peer.send, *[data(1, b"o" * 1000)] * 3000, data(2, b"err"), data(3, SUCCESS)
        )
        assert paused(connection)
        assert connection.pipes[2].take(9, soon()) == b"err"
        assert connection.status.get(soon()).exit_code == 0
        sending.result()
        peer.send(close_frame())
        assert drain(connection) == b"o" * 3_000_000


def test_a_big_write_behind_a_full_stdout() -> None:
    with opened("tcp", limits=Limits(inbound=1000, outbound=1000)) as (connection, peer):

        def cat() -> None:
            for _ in range(300):
                peer.send(data(1, peer.read_data()))
            peer.send(data(3, SUCCESS), close_frame())

        echoing = in_thread(cat)
        sent = os.urandom(300 * MAX_DATA)
        write(connection, sent, soon(30))
        assert drain(connection) == sent
        echoing.result()


def test_nobody_waits_and_the_peer_is_stopped() -> None:
    with opened("tcp", limits=Limits(inbound=10_000)) as (connection, peer):
        peer.sock.settimeout(seconds(0.3))
        with pytest.raises(TimeoutError):
            peer.send(*[data(1, b"o" * 1000)] * 100_000)
        assert connection.pipes[1].size < 10_000 + 33 * 1000


def test_too_much_behind_the_awaited() -> None:
    limits = Limits(inbound=1000, total=100_000)
    with opened("tcp", limits=limits) as (connection, peer):
        sending = in_thread(
            peer.send, *[data(1, b"o" * 1000)] * 3000, data(2, b"err"), data(3, SUCCESS)
        )
        for call in (connection.status.get, lambda end: connection.pipes[2].take(9, end)):
            with pytest.raises(errors.BufferFull, match="stdout holds 100000 bytes"):
                call(soon())
        got = sum(len(connection.pipes[1].take(1 << 20, soon())) for _ in range(3000))
        sending.result()
        assert got == 3_000_000
        assert connection.pipes[2].take(9, soon()) == b"err"
        assert connection.status.get(soon()).exit_code == 0


@pytest.mark.parametrize("pair", ["unix", "tls"])
@pytest.mark.parametrize("order", ["send first", "drain first"])
def test_what_a_pause_left_behind_is_found(pair: str, order: str) -> None:
    # It lies in the read-ahead or inside TLS, where no selector sees it, and nothing more will come.
    with opened(pair, limits=Limits(inbound=100)) as (connection, peer):
        peer.send(*[data(1, b"x" * 100)] * 40, data(3, SUCCESS))
        assert paused(connection)
        got: list[bytes] = []
        held, go = threading.Event(), threading.Event()
        connection._loop.call_soon(lambda: (held.set(), go.wait(seconds(10))))
        assert held.wait(seconds(10))
        steps = [
            lambda: connection.send(0, Unsent(b"in"), soon()),
            lambda: got.append(connection.pipes[1].take_all()),
        ]
        for step in steps if order == "send first" else reversed(steps):
            step()
        go.set()
        while len(b"".join(got)) < 4000:
            got.append(connection.pipes[1].take(1 << 20, soon(2)))
        assert connection.status.get(soon(2)).exit_code == 0


def test_reading_on_is_posted_once() -> None:
    # Each batch may post the next one, and so may the selector: they must not multiply.
    with opened("tcp", limits=Limits(inbound=None)) as (connection, peer):
        most = 0

        def look() -> None:
            nonlocal most
            posted = [function for function, _ in connection._loop._posts]
            most = max(most, posted.count(connection._read_on))
            if not connection.status.done():
                connection._loop.call_soon(look)

        connection._loop.call_soon(look)
        sending = in_thread(peer.send, *[data(1, b"o" * 10)] * 60_000, data(3, SUCCESS))
        # It keeps a CPU busy, which may not be this test's alone.
        assert connection.status.get(soon(60)).exit_code == 0
        sending.result()
        assert most <= 1


@pytest.mark.parametrize("pair", ["tcp", "tls"])
def test_both_ways_at_once_with_slow_and_fast_readers(pair: str) -> None:
    chance = random.Random(1)
    sent = chance.randbytes(3 << 20)
    with opened(pair, limits=Limits(inbound=1 << 16, outbound=1 << 16)) as (connection, peer):
        out, err = Peer.read_data, sent[::-1]

        def echo() -> None:
            position = 0
            while position < len(sent):
                piece = out(peer)
                peer.send(data(1, piece), data(2, err[position : position + len(piece)]))
                position += len(piece)
            peer.send(data(3, SUCCESS), close_frame())

        def slow() -> bytes:
            gathered = bytearray()
            while piece := connection.pipes[2].take(chance.randrange(1, 5000), soon(30)):
                gathered += piece
            return bytes(gathered)

        threads = [in_thread(echo), in_thread(write, connection, sent), in_thread(slow)]
        assert drain(connection) == sent
        assert threads[2].result(30) == err
        for thread in threads:
            thread.result()


# -- close and abort


def test_close_sends_what_is_queued_and_says_goodbye() -> None:
    with opened("tls") as (connection, peer):
        write(connection, b"last words")
        closing = in_thread(connection.close, None)
        assert peer.read_data() == b"last words"
        assert peer.read_frame() == (CLOSE, b"\x03\xe8")
        peer.send(data(1, b"discarded"), close_frame())
        closing.result()
        assert connection.closed.done()
        assert peer.at_end()
        with pytest.raises(errors.ConnectionLost):
            connection.status.get(soon())


def test_close_counts_a_status_on_its_way() -> None:
    with opened() as (connection, peer):
        closing = in_thread(connection.close, None)
        assert peer.read_frame()[0] == CLOSE
        peer.send(data(3, EXIT_3), close_frame())
        closing.result()
        assert connection.status.get(soon()).exit_code == 3


@pytest.mark.parametrize("state", ["idle", "stuck", "paused", "reading"])
@pytest.mark.parametrize("timeout", [0, 0.1])
def test_close_with_a_dead_peer_is_bounded(state: str, timeout: float) -> None:
    # The best of three counts: a machine that is busy elsewhere is not what is tested.
    assert min(time_to_close(state, timeout) for _ in range(3)) < timeout + seconds(0.1)


def time_to_close(state: str, timeout: float) -> float:
    with opened("tcp", limits=Limits(inbound=10)) as (connection, peer):
        readers = []
        if state == "stuck":
            until_full(connection)
        if state == "paused":
            peer.send(*[data(1, b"x" * 100)] * 1000)
            assert paused(connection)
        if state == "reading":
            readers = [
                in_thread(connection.pipes[1].take, 1, NEVER),
                in_thread(connection.status.get, NEVER),
            ]
            assert eventually(lambda: bool(connection.status.waiters))
        started = time.monotonic()
        connection.close(timeout)
        took = time.monotonic() - started
        for reader in readers:
            with pytest.raises(errors.ConnectionLost):
                reader.result()
        assert not connection._loop._thread.is_alive()
        return took


def test_close_from_several_threads_and_again() -> None:
    with opened() as (connection, _):
        started = time.monotonic()
        for thread in [in_thread(connection.close, 0.2) for _ in range(8)]:
            thread.result()
        connection.close()
        connection.close(0)
        assert time.monotonic() - started < seconds(1)  # one after the other would take longer


@pytest.mark.parametrize("ends", [b"", END_OF_STDOUT], ids=["open", "ended"])
def test_close_behind_the_status_is_no_clean_end_of_what_it_drops(ends: bytes) -> None:
    """A reader that is in the middle would take what it has for all there was."""
    with opened() as (connection, peer):
        peer.send(data(1, b"half and half"), data(2, b"all"), ends, data(3, SUCCESS))
        connection.status.get(soon())
        stdout, stderr = connection.pipes[1], connection.pipes[2]
        assert stdout.take(4, soon()) == b"half"
        assert stderr.take(4, soon()) == b"all"
        closing = in_thread(connection.close, 0.2)
        assert peer.read_frame()[0] == CLOSE
        with pytest.raises(errors.ConnectionLost, match="not all of the output was read") as caught:
            while stdout.take(1, soon()):
                pass
        assert caught.value.received["stdout"] == 13
        assert stderr.take(1, soon()) == b""
        assert connection.status.get(soon()).exit_code == 0
        closing.result()


def test_what_comes_while_this_side_closes_is_missed_too() -> None:
    with opened() as (connection, peer):
        closing = in_thread(connection.close, seconds(10))
        assert peer.read_frame()[0] == CLOSE
        peer.send(data(1, b"late"), data(3, SUCCESS), close_frame())
        closing.result()
        with pytest.raises(errors.ConnectionLost):
            connection.pipes[1].take(1, soon())
        assert connection.pipes[2].take(1, soon()) == b""


def test_close_after_the_end_does_nothing() -> None:
    with opened() as (connection, peer):
        peer.close()
        connection.closed.get(soon())
        connection.close(None)
        connection.abort()


def test_the_loop_cannot_wait_for_itself() -> None:
    with opened() as (connection, _):
        caught: list[BaseException] = []

        def close() -> None:
            try:
                connection.close()
            except RuntimeError as exc:
                caught.append(exc)

        connection._loop.call_soon(close)
        assert eventually(lambda: caught)
        assert not connection.closed.done()


@pytest.mark.parametrize("pair", ["unix", "tls"])
def test_abort_from_everywhere_wakes_everybody(pair: str) -> None:
    for state in ("idle", "stuck", "loop", "twice"):
        with opened(pair) as (connection, peer):
            left = until_full(connection) if state == "stuck" else Unsent(b"")
            waiting = [
                in_thread(connection.status.get, NEVER),
                in_thread(connection.pipes[1].take, 1, NEVER),
                in_thread(connection.pipes[2].peek, NEVER),
            ]
            if state == "stuck":
                waiting.append(in_thread(connection.send, 0, left, NEVER))
                assert eventually(lambda: connection._outbox.writers)
            if state == "loop":
                connection._loop.call_soon(connection.abort)
            else:
                connection.abort("because")
            if state == "twice":
                connection.abort()
            connection.closed.get(soon())
            for thread in waiting:
                with pytest.raises((errors.ConnectionLost, errors.StreamBroken)):
                    thread.result()
            assert connection._wire.fileno() == -1
            connection.join(soon())
            peer.read_until_end()


def test_abort_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpreter may exit between the constructor's steps.
    go = threading.Event()

    def exiting(connection: Connection) -> None:
        connection._loop.call_soon(go.wait, seconds(10))
        connection.abort("the interpreter exits")

    monkeypatch.setattr(live, "add", exiting)
    with opened() as (connection, peer):
        go.set()
        with pytest.raises(errors.ConnectionLost, match="the interpreter exits"):
            connection.status.get(soon())
        connection.join(soon())
        assert peer.at_end()


def test_a_crash_of_the_loop_reaches_everybody() -> None:
    with opened() as (connection, peer):
        waiting = [
            in_thread(connection.status.get, NEVER),
            in_thread(connection.pipes[1].take, 1, NEVER),
        ]
        source = until_full(connection)
        waiting.append(in_thread(connection.send, 0, source, NEVER))
        assert eventually(lambda: connection._outbox.writers)

        def bug() -> None:
            raise ZeroDivisionError("a bug")

        connection._loop.call_soon(bug)
        for thread in waiting[:2]:
            with pytest.raises(errors.ConnectionLost, match="the loop's thread failed") as caught:
                thread.result()
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(errors.StreamBroken):
            waiting[2].result()
        connection.close()
        assert connection._wire.fileno() == -1
        peer.read_until_end()


def test_a_bug_in_the_codec_reaches_everybody() -> None:
    with opened() as (connection, peer):
        connection._codec.receive = lambda payload, start: 1 // 0  # type: ignore[method-assign]
        peer.send(data(1, b"x"))
        with pytest.raises(errors.ConnectionLost, match="the loop's thread failed"):
            connection.status.get(soon())


def test_a_loop_that_is_stopped_ends_the_connection() -> None:
    with opened() as (connection, _):
        assert eventually(lambda: connection._interest)
        connection._loop.stop()
        with pytest.raises(errors.ConnectionLost, match="the loop was stopped"):
            connection.status.get(soon())


def test_a_protocol_error_of_the_codec_is_a_loss() -> None:
    with opened() as (connection, peer):
        peer.send(server_frame(b"\xff\7"))
        with pytest.raises(errors.ConnectionLost, match="malformed end") as caught:
            connection.status.get(soon())
        assert isinstance(caught.value.__cause__, errors.RemoteProtocolError)


# -- who is told


def test_on_closed_before_and_after() -> None:
    with opened() as (connection, peer):
        calls: list[str] = []
        connection.on_closed(lambda: calls.append("before"))
        assert not calls
        peer.close()
        connection.closed.get(soon())
        connection.join(soon())
        connection.on_closed(lambda: calls.append("after"))
        assert calls == ["before", "after"]


def test_an_on_closed_that_raises_harms_nobody() -> None:
    with opened() as (connection, peer):
        calls: list[str] = []
        connection.on_closed(lambda: calls.append("first") or 1 // 0)  # type: ignore[func-returns-value]
        peer.send(data(1, b"x"), data(3, SUCCESS), close_frame())
        assert drain(connection) == b"x"
        connection.closed.get(soon())
        connection.close()
        assert calls == ["first"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_hang_up_when_unwanted(when: str) -> None:
    with opened() as (connection, peer):
        connection.pipes[1].close()
        if when == "before":
            connection.hang_up_when_unwanted()
        peer.send(data(2, b"wanted"))
        assert connection.pipes[2].take(9, soon()) == b"wanted"
        assert not connection.closed_here
        peer.send(data(1, b"unwanted"))
        if when == "after":
            assert eventually(lambda: connection.pipes[1].unwanted)
            connection.hang_up_when_unwanted()
        assert peer.read_frame() == (CLOSE, b"\x03\xe8")
        peer.send(close_frame())
        connection.closed.get(soon())
        assert connection.closed_here


def test_discarded_output_does_not_hang_up() -> None:
    with opened(limits=Limits(inbound=10)) as (connection, peer):
        connection.pipes[1].discard()
        connection.hang_up_when_unwanted()
        peer.send(*[data(1, b"x" * 100)] * 1000, data(3, SUCCESS), close_frame())
        assert connection.status.get(soon()).exit_code == 0
        connection.closed.get(soon())
        assert not connection.closed_here


# -- nothing is left


def cycle(end: int) -> None:
    near, far = socket.socketpair()
    peer = Peer(far)
    connection = Connection(
        Wire(unblocked(near), V5), Channels(V5), Loop("test"), inbound={1: 1, 2: 2}, where="pod a/b"
    )
    if end == 0:
        peer.send(data(1, b"x"), data(3, SUCCESS), close_frame())
        assert drain(connection) == b"x"
        connection.close()
    elif end == 1:
        connection.abort()
    elif end == 2:
        peer.close()
    else:
        connection.close(0)
    connection.join(soon())
    assert not connection._loop._thread.is_alive()
    far.close()


def test_a_thousand_connections_leave_nothing() -> None:
    cycle(0)
    before = resources()
    for number in range(1000):
        cycle(number % 4)
    assert resources() == before
    assert not live._connections


def test_a_reader_that_has_ended_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread tells nobody that it is gone, so who waits behind its full pipe looks for itself."""
    monkeypatch.setattr("kubews.transport.connection._LOOK_AGAIN", 0.05)
    go = threading.Event()

    def read_a_little() -> None:
        connection.pipes[1].take(10, soon())
        go.wait(seconds(10))

    with opened(limits=Limits(inbound=1000), ping=None) as (connection, peer):
        peer.send(data(1, b"o" * 100))
        reader = in_thread(read_a_little)
        assert eventually(lambda: connection.pipes[1].owner is reader.thread)
        peer.send(*[data(1, b"o" * 1000)] * 100, data(3, EXIT_3))
        waiter = in_thread(connection.status.get, soon())
        assert eventually(lambda: connection._looker is not None)
        assert waiter.running
        go.set()
        assert waiter.result().exit_code == 3
        reader.result()


def test_a_late_comer_and_the_loop_tell_each_function_once() -> None:
    class Raced(list[Any]):
        def __bool__(self) -> bool:
            return True  # though the other has just taken the last one

    with opened() as (connection, _):
        connection.abort()
        assert eventually(connection.closed.done)
        called: list[int] = []
        connection._on_closed = Raced()
        connection.on_closed(lambda: called.append(1))
        assert called == [1]


def test_who_waits_for_what_a_connection_brings_makes_it_read_on() -> None:
    """A copier is done when its channel has ended, and the end stands behind what nobody reads."""
    with opened(limits=Limits(inbound=10)) as (connection, peer):
        done = connection.outcome()
        peer.send(data(1, b"x" * 100), data(3, SUCCESS))
        assert connection.status.get(soon()).exit_code == 0
        assert paused(connection)
        waiting = in_thread(done.get, soon())
        peer.send(close_frame())
        connection.closed.get(soon())
        done.set(None)
        waiting.result()
        assert drain(connection) == b"x" * 100


def test_a_patient_thread_makes_nobody_read_on() -> None:
    with opened(limits=Limits(inbound=10)) as (connection, peer):
        threads = [
            PatientThread(connection.pipes[2].take, "test", (1, soon())),
            PatientThread(connection.status.get, "test", (soon(),)),
        ]
        for thread in threads:
            thread.start()
        peer.send(*[data(1, b"x" * 100)] * 100)
        assert paused(connection)
        time.sleep(0.1)
        assert connection.pipes[1].size <= 32 * 100
        assert connection._paused
        taking = in_thread(connection.pipes[2].take, 9, soon())
        peer.send(data(2, b"y"), data(2, b"z"), data(3, SUCCESS), close_frame())
        taking.result()
        for thread in threads:
            thread.join(seconds(10))
        assert connection.pipes[1].size == 100 * 100


def test_a_flush_that_is_posted_is_not_posted_again() -> None:
    with opened() as (connection, peer):
        connection._flush_posted = True
        connection._post_flush()
        connection._flush_posted = False
        write(connection, b"x")
        assert peer.read_frame() == (BINARY, b"\0x")


def test_the_grace_counts_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-12: what comes after the Status is read for as long as it comes."""
    monkeypatch.setattr(link_module, "_GRACE", 1000)
    with opened() as (connection, peer):
        peer.send(data(3, SUCCESS))
        connection.status.get(soon())
        for count in range(1, 13):
            peer.send(data(1, b"x"))
            assert eventually(lambda count=count: connection.pipes[1].size == count)
            pass_the_grace(connection)
            assert not connection.closed.done()
        pass_the_grace(connection)
        assert connection.closed.done()
        assert drain(connection) == b"x" * 12


def test_what_replaces_what_still_waits() -> None:
    """Of sizes that come faster than they go out, the last one counts; it goes before what is queued."""
    with opened() as (connection, peer):
        until_full(connection)
        for rows in (b"1", b"2", b"3"):
            connection.send_latest(4, rows)
        sizes = []
        while not sizes:
            _, payload = peer.read_frame()
            sizes += [payload[1:]] if payload[:1] == b"\4" else []
        assert sizes == [b"3"]
        connection.abort()
        assert eventually(connection.closed.done)
        with pytest.raises(errors.StreamBroken):
            connection.send_latest(4, b"4")


def test_a_key_behind_the_end_of_a_stream() -> None:
    """A terminal has no end behind which keys do nothing; a connection has."""
    with opened() as (connection, peer):
        connection.end(0)
        connection.press(0, b"\x03")
        assert peer.read_frame() == (BINARY, b"\xff\x00")
        assert peer.read_data() == b"\x03"
        connection.abort()
        assert eventually(connection.closed.done)
        with pytest.raises(errors.StreamBroken):
            connection.press(0, b"\x03")


def test_a_descriptor_that_somebody_else_closes_is_a_loss_and_no_hang() -> None:
    """``os.closerange`` in a program that wants to be a daemon, or a number that was closed twice."""
    with opened() as (connection, _):
        waiting = in_thread(connection.status.get, NEVER)
        assert eventually(lambda: bool(connection.status.waiters))
        os.close(connection._wire.fileno())
        connection._loop.call_soon(connection._on_ready, 1)
        with pytest.raises(errors.ConnectionLost, match="Bad file descriptor"):
            waiting.result()
        connection.closed.get(soon())
