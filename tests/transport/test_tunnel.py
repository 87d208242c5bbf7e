"""Forwarded connections over one WebSocket: what programs on one side and pods on the other do to each other."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
from faults import reset
from peers import PING, PONG, close_frame, server_frame
from support import eventually, in_thread, seconds
from tunnels import (
    V4,
    Ended,
    PairPod,
    TunnelPod,
    World,
    forwarded,
    paired,
    read_all,
    world,
)

from kubews.errors import ConnectionLost, PortRefused
from kubews.protocol.spdy import CANCEL
from kubews.transport import forks, heartbeat
from kubews.transport import tunnel as module
from kubews.transport.loop import Loop

KIB = 1024
TEXT = b"error forwarding port 80 to pod 0123, uid : connection refused"

both = pytest.mark.parametrize("kind", ["unix", "tcp"])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits for words that do not come."""
    monkeypatch.setattr(module, "_WORD", 0.1)
    monkeypatch.setattr(module, "_SILENCE", 0.2)
    monkeypatch.setattr(module, "_GOODBYE", 0.2)


def closes(made: World) -> bool:
    """Whether all is over: the local sockets, the WebSocket and the loop."""
    return eventually(lambda: made.done and made.loop.ended.done())


def refuses(program: socket.socket, kind: str) -> None:
    """The program sees an error over TCP, and an end over a pair, whose socket knows why."""
    if kind == "tcp":
        with pytest.raises(ConnectionResetError):
            read_all(program)
    else:
        assert read_all(program) == b""


# -- bytes


@both
@pytest.mark.parametrize("pair", ["unix", "tcp", "tls"])
def test_bytes_both_ways(kind: str, pair: str) -> None:
    with forwarded(kind, pair=pair) as (made, pod, program, ended):
        program.sendall(b"to the pod")
        pod.heard(b"to the pod")
        pod.say(pod.bytes(b"from the pod"), pod.end())
        assert read_all(program) == b"from the pod"
        program.close()
        pod.until(lambda: pod.goodbye)
        made.peer.send(close_frame())
        assert ended.error is None
        assert closes(made)


def test_what_the_program_sent_before_it_was_attached() -> None:
    with world() as made:
        program, near = socket.socketpair()
        program.sendall(b"early")
        program.shutdown(socket.SHUT_WR)
        made.programs.append(program)
        made.tunnel.attach(near, 80, Ended(made.loop))
        made.tunnel.begin()
        pod = TunnelPod(made.peer)
        pod.accept()
        pod.until(lambda: pod.ids[0][0] in pod.ended)
        pod.heard(b"early")


def test_a_lot_both_ways_at_once() -> None:
    up, down = os.urandom(5 << 20), os.urandom(5 << 20)
    with forwarded("tcp", pair="tcp") as (_, pod, program, _):
        sending = in_thread(program.sendall, up)
        hearing = in_thread(pod.until, lambda: len(pod.data[pod.ids[0][0]]) == len(up))

        def say() -> None:
            for start in range(0, len(down), 100_000):
                pod.say(pod.bytes(down[start : start + 100_000]))

        saying = in_thread(say)
        got = bytearray()
        while len(got) < len(down):
            got += program.recv(1 << 16)
        for future in (sending, hearing, saying):
            future.result(30)
        assert got == down
        pod.heard(up)


# -- refused ports, and other ends


@both
@pytest.mark.parametrize(
    "order",
    [
        "text reset-data reset-error",
        "reset-data text reset-error",
        "end-data text end-error",
        "text end-error end-data",
        "text reset-error reset-data",
    ],
)
def test_a_refused_port(kind: str, order: str) -> None:
    """R-39: an error for this program, with the server's text; the tunnel goes on."""
    with forwarded(kind, lasting=True) as (made, pod, program, ended):
        data, error = pod.ids[0]
        for step in order.split():
            if step == "text":
                pod.say(pod.session.data_to_send(error, TEXT))
            elif step.startswith("end"):
                pod.say(pod.session.end_to_send(data if "data" in step else error))
            else:
                pod.session.reset(data if "data" in step else error, CANCEL)
                pod.say()
        refuses(program, kind)
        assert isinstance(ended.error, PortRefused)
        assert str(ended.error) == f"port 80 of pod shop/web-0: {TEXT.decode()}"
        other, _ = made.attach(kind)
        pod.accept(1)
        pod.say(pod.bytes(b"fine", 1), pod.end(1))
        assert read_all(other) == b"fine"


def test_text_behind_a_connection_that_is_over() -> None:
    with forwarded() as (_made, pod, program, ended):
        late = pod.session.data_to_send(pod.ids[0][1], TEXT)
        last = pod.bytes(b"last words")
        pod.say(last, pod.end(), late, last)
        assert read_all(program) == b"last words"
        assert ended.error is None


@both
def test_bytes_and_then_an_error(kind: str) -> None:
    """R-39: a copy that failed half way; what came is read first."""
    with forwarded(kind) as (_made, pod, program, ended):
        pod.say(pod.bytes(b"half of it"))
        assert program.recv(100) == b"half of it"
        pod.say(pod.end(text=TEXT))
        refuses(program, kind)
        assert isinstance(ended.error, PortRefused)


@pytest.mark.usefixtures("hasty")
def test_an_end_without_a_word() -> None:
    """The end of the pod's bytes is taken for an end in order after a second."""
    with forwarded() as (_, pod, program, ended):
        pod.say(pod.bytes(b"x"), pod.session.end_to_send(pod.ids[0][0]))
        assert read_all(program) == b"x"
        assert ended.error is None


def test_which_is_a_second() -> None:
    assert module._WORD == 1.0
    assert module._SILENCE == 5.0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("stream", ["data", "error"])
def test_half_a_reset(stream: str) -> None:
    """R-39: one of the two streams is reset, and of the other nothing is heard."""
    with forwarded() as (_, pod, program, ended):
        pod.session.reset(pod.ids[0][stream == "error"], CANCEL)
        pod.say()
        with contextlib.suppress(BrokenPipeError):  # the wait for a word may be over by now
            program.sendall(b"nobody takes this")
        assert read_all(program) == b""
        assert isinstance(ended.error, PortRefused)
        assert "reset" in str(ended.error)


def test_what_a_program_sends_where_nobody_takes_it() -> None:
    """R-39: the word why is on its way, and the program is not to meet anything else before."""
    with forwarded() as (made, pod, program, ended):
        pod.session.reset(pod.ids[0][0], CANCEL)
        pod.say()
        assert eventually(lambda: made.tunnel._words)
        program.sendall(b"nobody takes this")
        program.shutdown(socket.SHUT_WR)
        made.call(lambda: None)
        pod.say(pod.session.data_to_send(pod.ids[0][1], TEXT, fin=True))
        assert read_all(program) == b""
        assert TEXT.decode() in str(ended.error)


@pytest.mark.usefixtures("hasty")
def test_a_text_without_its_end() -> None:
    """R-39: the data ends; the text comes, and the end of the text never does."""
    with forwarded() as (_, pod, program, ended):
        data, error = pod.ids[0]
        pod.say(pod.session.end_to_send(data), pod.session.data_to_send(error, TEXT))
        assert read_all(program) == b""
        assert TEXT.decode() in str(ended.error)


@pytest.mark.usefixtures("hasty")
def test_the_word_may_wait_behind_what_is_not_read() -> None:
    """R-39: while the tunnel is paused nobody can say that it has not come."""
    with forwarded(lasting=True, pair="tcp") as (made, pod, program, ended):
        stuck, _ = made.attach()
        pod.accept(1)
        pod.say(pod.session.end_to_send(pod.ids[0][0]), pod.bytes(b"x" * (1 << 20), 1))
        assert eventually(lambda: made.tunnel._paused)
        pod.say(pod.session.data_to_send(pod.ids[0][1], TEXT, fin=True))
        time.sleep(0.3)
        assert ended.errors == []
        got = 0
        while got < 1 << 20:
            got += len(stuck.recv(1 << 20))
        assert read_all(program) == b""
        assert TEXT.decode() in str(ended.error)


# -- what a program does


def test_a_half_close() -> None:
    """R-41: the pod is told at once, and its answer comes."""
    with forwarded("tcp") as (_, pod, program, ended):
        program.sendall(b"ruok")
        program.shutdown(socket.SHUT_WR)
        pod.until(lambda: pod.ids[0][0] in pod.ended)
        pod.heard(b"ruok")
        time.sleep(0.1)
        pod.say(pod.bytes(b"imok"), pod.end())
        assert read_all(program) == b"imok"
        assert ended.error is None


@both
def test_a_program_that_closes(kind: str) -> None:
    """The pod hears of the end, and once it speaks, that nobody listens; then all is closed."""
    with forwarded(kind) as (made, pod, program, ended):
        program.close()
        data, error = pod.ids[0]
        late = pod.bytes(b"late")
        pod.until(lambda: data in pod.ended)
        for _ in range(2):  # over TCP the first brings the reset
            pod.say(pod.bytes(b"x"))
            time.sleep(0.05)
        pod.until(lambda: pod.goodbye)
        assert pod.resets == [data, error]
        assert ended.error is None
        pod.say(late)
        made.peer.send(close_frame())
        assert closes(made)


def test_a_program_that_resets() -> None:
    with forwarded("tcp", lasting=True) as (made, pod, program, ended):
        late = pod.bytes(b"late")
        reset(program)
        pod.until(lambda: pod.resets == list(pod.ids[0]))
        assert ended.error is None
        # It is over on this side alone: the tunnel serves the next.
        other, _ = made.attach()
        pod.accept(1)
        pod.say(late, pod.bytes(b"x", 1))
        assert other.recv(10) == b"x"


def test_a_program_that_has_gone_before_it_is_attached() -> None:
    with world() as made:
        program, ended = made.attach("tcp")
        reset(program)
        made.tunnel.begin()
        pod = TunnelPod(made.peer)
        pod.until(lambda: pod.goodbye)
        assert ended.error is None


@both
def test_a_program_that_never_reads(kind: str) -> None:
    """R-43: the pod has to wait when some 256 KiB wait here; and goes on when the program does."""
    with forwarded(kind, pair="unix") as (made, pod, program, _ended):
        sent = 0
        made.peer.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while sent < 64 << 20:
                made.peer.send(server_frame(pod.bytes(b"x" * 16384)))
                sent += 16384
        made.peer.sock.settimeout(seconds(10))
        assert made.tunnel._paused
        (relay,) = made.tunnel._relays
        assert 256 * KIB < relay._size < 256 * KIB + 32 * 16384 + 1
        got = 0
        while got < sent:
            got += len(program.recv(1 << 20))
        assert eventually(lambda: not made.tunnel._paused)


def test_a_program_that_never_reads_closes() -> None:
    with forwarded(lasting=True, pair="tcp") as (made, pod, program, ended):
        other, _ = made.attach()
        pod.accept(1)
        pod.say(pod.bytes(b"x" * (1 << 20)))
        assert eventually(lambda: made.tunnel._paused)
        pod.say(pod.bytes(b"for the other", 1))
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.recv(1)
        other.settimeout(seconds(10))
        program.close()
        assert other.recv(100) == b"for the other"
        pod.until(lambda: pod.resets == list(pod.ids[0]))
        assert ended.error is None


def test_a_pod_that_takes_nothing_makes_programs_wait() -> None:
    """R-43: a few hundred KiB in all, however many they are; then all of them get on."""
    with forwarded(lasting=True) as (made, pod, program, _):
        programs = [program]
        for number in range(1, 4):
            programs.append(made.attach()[0])
            pod.accept(number)

        def stuck(count: int) -> bool:
            return (
                len(made.tunnel._held) == count
                and not select.select([], programs[:count], [], 0.1)[1]
            )

        # The first one fills what is between the tunnel and the pod.
        sizes = [8 << 20, 1 << 20, 1 << 20, 1 << 20]
        contents = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
        sending = [in_thread(program.sendall, contents[0])]
        assert eventually(lambda: stuck(1))
        sending += map(in_thread, [one.sendall for one in programs[1:]], contents[1:])
        assert eventually(lambda: stuck(4))
        assert all(one.running for one in sending)
        queued = sum(map(len, made.tunnel._outbox._frames))
        assert queued < 1 << 20
        streams = [pod.data[data] for data, _ in pod.ids]
        # Whoever came first does not push the others aside.
        pod.until(lambda: min(map(len, streams)) >= 128 * KIB)
        assert len(streams[0]) < sizes[0] // 2
        pod.until(lambda: [*map(len, streams)] == sizes)
        for one in sending:
            one.result()
        assert streams == contents


def test_a_program_that_goes_while_the_pod_takes_nothing() -> None:
    with forwarded("tcp", lasting=True) as (made, pod, program, ended):
        program.setblocking(False)

        def filled() -> bool:
            try:
                return not program.send(bytes(64 * KIB))
            except BlockingIOError:
                return bool(made.tunnel._held)

        assert eventually(filled)
        reset(program)
        # Nobody looks at a socket that has to wait; it shows once there is room.
        pod.until(lambda: pod.resets == list(pod.ids[0]))
        assert ended.error is None
        assert not made.tunnel._held


# -- several at once


def test_many_connections_over_one_tunnel() -> None:
    """R-39, R-43: in any order, and one that fails leaves the others alone."""
    with world(lasting=True) as made:
        programs = [made.attach("tcp" if number % 2 else "unix")[0] for number in range(20)]
        made.tunnel.begin()
        pod = TunnelPod(made.peer)
        for number, program in enumerate(programs):
            pod.accept(number)
            program.sendall(b"%d" % number)
        for number in reversed(range(20)):
            pod.heard(b"%d" % number, number)
            pod.say(
                *([pod.bytes(b"%d" % number, number)] if number % 3 else []),
                pod.end(number, TEXT if number % 3 == 0 else b""),
            )
        for number, program in enumerate(programs):
            if number % 3:
                assert read_all(program) == b"%d" % number
            else:
                refuses(program, "tcp" if number % 2 else "unix")
        for ended in made.ends:
            assert (ended.error is None) == bool(made.ends.index(ended) % 3)
        assert made.done == []


def test_one_that_is_stuck_stops_a_shared_tunnel_until_it_gets_on() -> None:
    """R-43: the tunnel has no windows, so this is documented; no byte is lost."""
    with forwarded(lasting=True, pair="tcp") as (made, pod, stuck, _):
        other, _ = made.attach()
        pod.accept(1)
        pod.say(pod.bytes(b"x" * (1 << 20)))
        assert eventually(lambda: made.tunnel._paused)
        # The way up is not concerned.
        other.sendall(b"question")
        pod.heard(b"question", 1)
        pod.say(pod.bytes(b"answer", 1))
        got = 0
        while got < 1 << 20:
            got += len(stuck.recv(1 << 20))
        assert other.recv(100) == b"answer"


def test_two_that_are_stuck() -> None:
    with forwarded(lasting=True, pair="tcp") as (made, pod, first, _):
        second, _ = made.attach()
        pod.accept(1)
        pod.say(pod.bytes(b"x" * (1 << 20)), pod.bytes(b"y" * (1 << 20), 1))
        assert eventually(lambda: made.tunnel._paused)
        for program in (first, second, first, second):
            got = 0
            while got < 1 << 19:
                got += len(program.recv((1 << 19) - got))
        pod.say(pod.bytes(b"on", 1))
        assert second.recv(10) == b"on"


@pytest.mark.parametrize("lasting", [False, True])
def test_the_last_one_closes_a_tunnel_that_is_not_to_last(lasting: bool) -> None:
    with forwarded(lasting=lasting) as (made, pod, program, _ended):
        other, _ = made.attach()
        pod.accept(1)
        pod.say(pod.end())
        assert read_all(program) == b""
        pod.say(pod.bytes(b"still there", 1))
        assert other.recv(100) == b"still there"
        pod.say(pod.end(1))
        assert read_all(other) == b""
        if lasting:
            third, _ = made.attach()
            pod.accept(2)
            made.call(made.tunnel.retire)
            pod.say(pod.bytes(b"a third", 2), pod.end(2))
            assert read_all(third) == b"a third"
        pod.until(lambda: pod.goodbye)
        made.peer.send(close_frame())
        assert eventually(lambda: made.done)
        assert eventually(lambda: not made.loop._on_end)  # which may serve thousands after it


def test_a_tunnel_that_retires_while_it_is_idle() -> None:
    with world(lasting=True) as made:
        made.tunnel.begin()
        made.call(made.tunnel.retire)
        TunnelPod(made.peer).read()
        made.peer.send(close_frame())
        assert eventually(lambda: made.done)


def test_two_ends_in_one_frame_and_more_behind() -> None:
    """Closing begins amid a frame whose rest is still to be handled."""
    with forwarded() as (made, pod, program, ended):
        other, other_ended = made.attach()
        pod.accept(1)
        advancing = 0
        advance = made.tunnel._advance

        def watched(events: int) -> None:
            nonlocal advancing
            advancing += 1
            assert advancing == 1, "a step within a step"
            advance(events)
            advancing -= 1

        made.tunnel._advance = watched  # type: ignore[method-assign]
        pod.session.ping()
        pod.say(pod.bytes(b"a"), pod.bytes(b"b", 1), pod.end(), pod.end(1), pod.frames())
        made.peer.send(close_frame())
        assert read_all(program) == b"a"
        assert read_all(other) == b"b"
        assert (ended.error, other_ended.error) == (None, None)
        assert closes(made)
        assert made.tunnel.closed.done()


# -- the tunnel is lost


LOSSES = {
    "end": lambda made: made.peer.close(),
    "reset": lambda made: made.peer.reset(),
    "close": lambda made: made.peer.send(close_frame()),
    "close 1011": lambda made: made.peer.send(close_frame(1011)),
    "nonsense": lambda made: made.peer.send(server_frame(b"\x80\x03\x00\x05" + bytes(8))),
    "no frame": lambda made: made.peer.send(b"\xff\xff" + bytes(20)),
}


@both
@pytest.mark.parametrize("loss", LOSSES)
def test_a_tunnel_that_is_lost(kind: str, loss: str) -> None:
    """R-39: what came is read, then an error; on a tunnel even a WebSocket closed in order is a loss."""
    with forwarded(kind, pair="tcp") as (made, pod, program, ended):
        other, other_ended = made.attach(kind)
        pod.accept(1)
        pod.say(pod.bytes(b"so far"))
        assert program.recv(100) == b"so far"
        LOSSES[loss](made)
        for one, its in ((program, ended), (other, other_ended)):
            refuses(one, kind)
            assert isinstance(its.error, ConnectionLost)
            assert "port 80 of pod shop/web-0: connection lost" in str(its.error)
            assert "SPDY/3.1" in str(its.error)
        assert closes(made)


@both
def test_bytes_that_the_program_has_not_taken_outlive_the_tunnel(kind: str) -> None:
    """R-39: bytes first, then the error."""
    data = os.urandom(200 * KIB)
    with forwarded(kind, pair="tcp") as (made, pod, program, ended):
        for _ in range(5):
            pod.say(pod.bytes(data))
        if kind == "unix":
            assert eventually(lambda: made.tunnel._clogged)
        else:
            time.sleep(0.1)
        made.peer.close()
        got = bytearray()
        last: Any = pytest.raises(ConnectionResetError) if kind == "tcp" else nullcontext()
        with last:
            while len(got) < 5 * len(data) or kind == "tcp":
                piece = program.recv(30_000)
                if not piece:
                    break
                got += piece
                assert ended.errors == [] or kind == "tcp" or len(got) > 500 * KIB
        if kind == "unix":
            assert program.recv(1) == b""
        assert got == data * 5
        assert isinstance(ended.error, ConnectionLost)
        assert closes(made)


def test_a_program_that_goes_after_the_tunnel() -> None:
    with forwarded(pair="tcp") as (made, pod, program, ended):
        pod.say(pod.bytes(bytes(300 * KIB)))
        assert eventually(lambda: [1 for one in made.tunnel._relays if one._size])
        made.peer.close()
        assert eventually(lambda: made.tunnel.closed.done())
        assert made.done == []
        program.close()
        assert isinstance(ended.error, ConnectionLost)
        assert closes(made)


def test_an_end_outlives_the_tunnel() -> None:
    """R-41: a connection that had ended in order is not lost with the tunnel."""
    data = bytes(1 << 20)
    with forwarded(pair="tcp") as (made, pod, program, ended):
        program.shutdown(socket.SHUT_WR)
        pod.say(pod.bytes(data), pod.end())
        reading = in_thread(read_all, program)
        made.peer.send(close_frame())
        assert reading.result() == data
        assert ended.error is None
        assert closes(made)


def test_goaway() -> None:
    """Whoever is behind the server ends: nothing new, and after some silence nothing at all."""
    with forwarded(lasting=True) as (made, pod, program, ended):
        pod.session.goaway()
        pod.say(pod.bytes(b"last words"))
        assert program.recv(100) == b"last words"
        seen: list[bool] = []
        made.call(lambda: seen.append(made.tunnel.can_open))
        assert seen == [False]
        late, late_ended = made.attach("tcp")
        refuses(late, "tcp")
        assert "before the connection was made" in str(late_ended.error)
        assert ended.errors == []
        assert read_all(program) == b""
        assert "going away" in str(ended.error)
        assert eventually(lambda: made.done)


def test_goaway_behind_the_last_end() -> None:
    with forwarded() as (made, pod, program, ended):
        pod.session.goaway()
        goaway = pod.frames()
        pod.say(pod.bytes(b"x"), pod.end(), goaway)
        assert read_all(program) == b"x"
        assert ended.error is None
        made.peer.send(close_frame())
        assert closes(made)


# -- signs of life


def test_pings_reach_whoever_is_behind_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-20: pings of the tunnel, not of the WebSocket; no answer for long is the end."""
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", 1.0)
    monkeypatch.setattr("kubews.transport.link.DEAD_AFTER", 1.0)
    with forwarded(ping=0.05) as (_made, pod, program, ended):
        stop = time.monotonic() + 1.5
        while time.monotonic() < stop:
            pod.read()  # the session answers by itself
            pod.say()
        assert ended.errors == []
        assert read_all(program) == b""
        assert "no sign of life" in str(ended.error)


def test_the_server_answers_and_the_pod_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-20: bytes that the pod was sent, and a server that only sends pongs nobody asked for."""
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", 1.0)
    with forwarded(ping=0.05) as (_made, pod, program, ended):
        program.sendall(b"x")
        pod.heard(b"x")
        # Up to here the pod has answered, so that what it was sent counts as read.
        pod.say()
        while pod.session._answers == 0:
            pod.read()
        pod.say()
        while not ended.errors:
            try:
                pod.read()
            except (EOFError, OSError):
                break
            pod.session.pending_to_send()
        assert "no sign of life" in str(ended.error)


def test_channel_pairs_have_pings_of_the_websocket() -> None:
    with paired(ping=0.05) as (made, _pod, program, _):
        opcode, payload = made.peer.read_frame()
        assert opcode == PING
        made.peer.send(server_frame(payload, PONG))
        program.sendall(b"x")
        while opcode == PING:
            opcode, payload = made.peer.read_frame()
        assert payload == b"\x00x"


def test_pings_of_the_server_are_answered() -> None:
    with forwarded() as (made, pod, _, _):
        made.peer.send(server_frame(b"hello", PING))
        assert made.peer.read_frame() == (PONG, b"hello")
        pod.session.ping()
        pod.say()
        pod.read()
        assert pod.session._pings == set()


# -- this side closes


@both
def test_shut(kind: str) -> None:
    """Every connection is over soon, with an error; the server is told goodbye."""
    with forwarded(kind, lasting=True) as (made, pod, program, ended):
        made.loop.call_soon(made.tunnel.shut)
        pod.until(lambda: pod.goodbye)
        made.peer.send(close_frame())
        refuses(program, kind)
        assert isinstance(ended.error, ConnectionLost)
        assert "closed on this side" in str(ended.error)
        assert eventually(lambda: made.done)


@pytest.mark.usefixtures("hasty")
def test_shut_without_an_answer() -> None:
    with forwarded(lasting=True) as (made, _pod, program, ended):
        made.loop.call_soon(made.tunnel.shut)
        assert read_all(program) == b""
        assert "did not answer the goodbye" in str(ended.error)
        assert eventually(lambda: made.done)


@pytest.mark.parametrize("state", ["open", "ended", "ends meanwhile", "lost"])
def test_shut_does_not_wait_for_a_program_that_does_not_read(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GOODBYE", 0.5)
    with forwarded(lasting=True, pair="tcp") as (made, pod, _program, ended):
        pod.say(pod.bytes(bytes(400 * KIB)), *([pod.end()] if state == "ended" else []))
        assert eventually(lambda: [1 for one in made.tunnel._relays if one._size])
        if state == "ended":
            assert eventually(lambda: not made.tunnel._by_id)
        if state == "lost":
            made.peer.close()
            assert eventually(lambda: made.tunnel.closed.done())
        made.loop.call_soon(made.tunnel.shut)
        if state == "ends meanwhile":
            pod.until(lambda: pod.goodbye)
            pod.say(pod.end())
            assert eventually(lambda: not made.tunnel._by_id)
        assert eventually(lambda: made.done, 2)
        assert ended.error is not None


@pytest.mark.usefixtures("hasty")
def test_close_from_another_thread() -> None:
    with forwarded() as (made, _, program, ended):
        made.tunnel.close()
        assert made.tunnel.closed_here
        assert read_all(program) == b""
        assert isinstance(ended.error, ConnectionLost)
        assert closes(made)


@both
def test_attach_after_close(kind: str) -> None:
    with world(lasting=True) as made:
        made.tunnel.begin()
        made.tunnel.abort()
        assert eventually(lambda: made.tunnel.closed.done())
        program, ended = made.attach(kind)
        refuses(program, kind)
        assert isinstance(ended.error, ConnectionLost)
        assert "closed before the connection was made" in str(ended.error)


def test_attach_while_it_closes() -> None:
    with forwarded(lasting=True) as (made, _pod, _, _):
        made.call(made.tunnel.shut)
        program, ended = made.attach("tcp")
        refuses(program, "tcp")
        assert "before the connection was made" in str(ended.error)
        made.peer.send(close_frame())


def test_attach_after_the_loop_has_ended() -> None:
    """Nobody is left to take the socket, and its program must not wait."""
    with world(lasting=True) as made:
        made.tunnel.begin()
        made.call(lambda: None)
        made.loop.stop()
        made.loop.join(seconds(5))
        program, ended = made.attach()
        assert read_all(program) == b""
        assert "before the connection was made" in str(ended.error)


@both
@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_loop_that_ends(kind: str, how: str) -> None:
    """Every program is told, also one that has not read what came, and nothing is left open."""

    def fail() -> None:
        raise ZeroDivisionError

    with forwarded(kind, lasting=True, pair="tcp") as (made, pod, program, ended):
        slow, slow_ended = made.attach()
        done, done_ended = made.attach("tcp")
        pod.accept(1)
        pod.accept(2)
        pod.say(pod.bytes(bytes(300 * KIB), 1), pod.end(2))
        assert read_all(done) == b""
        assert eventually(lambda: [1 for one in made.tunnel._relays if one._size])
        if how == "stopped":
            made.loop.stop()
        else:
            made.loop.call_soon(fail)
        assert eventually(lambda: made.loop.ended.done())
        refuses(program, kind)
        assert len(read_all(slow)) < 300 * KIB
        for one in (ended, slow_ended):
            assert isinstance(one.error, ConnectionLost)
            assert "loop" in str(one.error)
            assert isinstance(one.error.__cause__, ZeroDivisionError) == (how == "failed")
        assert done_ended.error is None
        assert len(made.done) == 1


def test_a_relay_that_outlives_its_tunnel_hears_of_the_end_of_the_loop() -> None:
    with forwarded() as (made, pod, program, ended):
        pod.say(pod.bytes(bytes(400 * KIB)), pod.end())
        made.peer.send(close_frame(1011))
        assert eventually(lambda: made.tunnel.closed.done())
        assert made.tunnel._relays
        made.loop.call_soon(divmod, 1, 0)
        assert eventually(lambda: made.loop.ended.done())
        assert 0 < len(read_all(program)) < 400 * KIB
        assert isinstance(ended.error, ConnectionLost)
        assert not made.tunnel._relays


def test_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-52: the child has no hand on the local sockets, nor on the WebSocket; the parent goes on."""
    monkeypatch.setattr(forks, "_descriptors", weakref.WeakSet())
    monkeypatch.setattr(forks, "_known", weakref.WeakSet())
    with world(pair="tcp") as made:
        program, near = socket.socketpair()
        twin = forks.own(lambda: near)
        ended = Ended(made.loop)
        made.programs.append(program)
        program.settimeout(seconds(5))
        made.tunnel.attach(twin, 80, ended)
        made.tunnel.begin()
        pod = TunnelPod(made.peer)
        pod.accept()
        pid = os.fork() if hasattr(os, "fork") else 0
        if not pid and hasattr(os, "fork"):
            good = twin.fileno() == -1 and made.tunnel.inherited
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pod.say(pod.bytes(b"the parent's"), pod.end())
        assert read_all(program) == b"the parent's"
        assert ended.error is None


# -- channel pairs


@both
def test_a_pair_both_ways(kind: str) -> None:
    with paired(kind) as (made, pod, program, ended):
        program.sendall(b"to the pod")
        pod.heard(b"to the pod")
        pod.say(b"from the pod")
        made.peer.send(server_frame(b"\x00 in", final=False), server_frame(b" pieces", 0))
        made.peer.send(close_frame())
        assert read_all(program) == b"from the pod in pieces"
        assert ended.error is None
        program.close()
        assert closes(made)


@both
def test_a_pair_that_is_refused(kind: str) -> None:
    with paired(kind) as (made, pod, program, ended):
        pod.say(TEXT, 1)
        made.peer.send(close_frame())
        refuses(program, kind)
        assert isinstance(ended.error, PortRefused)
        assert TEXT.decode() in str(ended.error)


@pytest.mark.parametrize("loss", ["end", "reset", "close 1011", "no frame"])
def test_a_pair_that_is_lost(loss: str) -> None:
    """R-39: only a WebSocket closed in order is an end in order."""
    with paired(pair="tcp") as (made, pod, program, ended):
        pod.say(b"x")
        assert program.recv(1) == b"x"
        LOSSES[loss](made)
        assert read_all(program) == b""
        assert isinstance(ended.error, ConnectionLost)
        assert closes(made)


def test_a_second_connection_over_a_pair() -> None:
    with paired() as (made, pod, program, _):
        other, ended = made.attach("tcp")
        refuses(other, "tcp")
        assert isinstance(ended.error, ConnectionLost)
        program.sendall(b"x")
        pod.heard(b"x")


@pytest.mark.usefixtures("hasty")
def test_a_half_close_of_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-41: it cannot be told, so the pod's bytes come until there is silence."""
    monkeypatch.setattr(module, "_SILENCE", 1.0)
    with paired("tcp") as (made, pod, program, ended):
        program.sendall(b"ruok")
        program.shutdown(socket.SHUT_WR)
        pod.heard(b"ruok")
        for _ in range(5):
            pod.say(b"x")
            time.sleep(0.25)
        assert read_all(program) == b"xxxxx"
        assert ended.error is None
        assert made.peer.read_frame()[0] == 8
        made.peer.send(close_frame())
        assert closes(made)


def test_a_half_close_of_a_pair_that_the_pod_ends() -> None:
    with paired("tcp") as (made, pod, program, ended):
        program.shutdown(socket.SHUT_WR)
        pod.say(b"x")
        made.peer.send(close_frame())
        assert read_all(program) == b"x"
        assert ended.error is None
        assert closes(made)


@pytest.mark.usefixtures("hasty")
def test_a_half_close_of_a_pair_with_a_text() -> None:
    """R-39: silence after an error text is no end in order."""
    with paired("tcp") as (_made, pod, program, ended):
        pod.say(TEXT, 1)
        program.shutdown(socket.SHUT_WR)
        refuses(program, "tcp")
        assert isinstance(ended.error, PortRefused)


@pytest.mark.usefixtures("hasty")
def test_silence_while_the_program_does_not_read_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.7)
    with paired("unix", pair="tcp") as (made, pod, program, ended):
        program.shutdown(socket.SHUT_WR)
        total = 2 << 20
        for _ in range(total // 32768):
            pod.say(bytes(32768)) if not made.tunnel._paused else None
            if made.tunnel._paused:
                break
        assert eventually(lambda: made.tunnel._paused)
        time.sleep(1.5)
        assert ended.errors == []
        made.peer.send(close_frame())
        assert set(read_all(program)) == {0}
        assert ended.error is None


def test_a_program_that_closes_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for silence: what it has sent goes out, then the goodbye."""
    monkeypatch.setattr(module, "_SILENCE", 100.0)
    with paired() as (made, pod, program, ended):
        program.sendall(b"last words")
        program.close()
        pod.heard(b"last words")
        assert made.peer.read_frame()[0] == 8
        made.peer.send(close_frame())
        assert ended.error is None
        assert closes(made)


def test_a_program_that_closes_its_pair_and_a_pod_that_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-41: the goodbye has a deadline, so it waits until all is on the way."""
    monkeypatch.setattr(module, "_GOODBYE", 0.2)
    data = os.urandom(1 << 20)
    with paired() as (made, _pod, program, ended):
        sending = in_thread(lambda: (program.sendall(data), program.close()))
        time.sleep(0.3)
        got = b""
        while len(got) < len(data) // 2:
            got += made.peer.read_data()
        sending.thread.join(0.3)
        time.sleep(0.5)
        while len(got) < len(data):
            got += made.peer.read_data()
        sending.result()
        assert got == data
        assert made.peer.read_frame()[0] == 8
        assert ended.error is None


def test_a_pair_that_is_shut_is_not_an_end_in_order() -> None:
    """The server's answer to this side's goodbye says nothing of the pod."""
    with paired("tcp", lasting=True) as (made, _pod, program, ended):
        made.loop.call_soon(made.tunnel.shut)
        assert made.peer.read_frame()[0] == 8
        made.peer.send(close_frame())
        refuses(program, "tcp")
        assert isinstance(ended.error, ConnectionLost)


def test_what_a_pair_is_told_after_its_program_is_gone() -> None:
    with paired("tcp", lasting=True) as (made, pod, program, ended):
        reset(program)
        assert ended.error is None
        pod.say(b"nobody reads this")
        made.peer.send(close_frame())
        assert eventually(lambda: made.done)
        assert made.tunnel.closed.done()


@pytest.mark.usefixtures("hasty")
def test_silence_after_the_end_of_a_pair() -> None:
    with paired("tcp", lasting=True) as (made, _, program, ended):
        program.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        made.peer.send(close_frame())
        assert read_all(program) == b""
        time.sleep(0.3)
        made.call(lambda: None)
        assert ended.error is None


def test_data_that_nobody_asked_for() -> None:
    with world(V4) as made:
        pod = PairPod(made.peer)
        pod.say(b"x")
        made.tunnel.begin()
        assert eventually(lambda: made.done)


# -- threads


def test_threads_that_attach_at_once() -> None:
    with world(lasting=True) as made:
        made.tunnel.begin()
        barrier = threading.Barrier(8)

        def attach() -> None:
            barrier.wait(seconds(5))
            for _ in range(5):
                made.attach()[0].sendall(b"x")

        futures = [in_thread(attach) for _ in range(8)]
        pod = TunnelPod(made.peer)
        pod.accept(39)
        for future in futures:
            future.result()
        for number in range(40):
            pod.heard(b"x", number)


def test_a_loop_of_its_own_that_serves_several_tunnels() -> None:
    """The end of one is not the end of the loop."""
    with forwarded(lasting=True) as (first, pod, program, _):
        assert isinstance(first.loop, Loop)
        first.peer.close()
        assert read_all(program) == b""
        assert eventually(lambda: first.done)
        assert not first.loop.ended.done()
        assert pod.ids


def test_an_end_behind_what_nobody_takes(hasty: None) -> None:
    """In one message: bytes for a program that has gone, and the end. The neighbours go on."""
    with forwarded("unix", lasting=True) as (made, pod, gone, ended):
        stays, _ = made.attach()
        pod.accept(1)
        gone.close()
        pod.until(lambda: pod.ids[0][0] in pod.ended)
        pod.say(pod.bytes(b"for nobody"), pod.session.end_to_send(pod.ids[0][0]))
        assert ended.error is None
        time.sleep(0.3)
        assert not made.loop.ended.done()
        pod.say(pod.bytes(b"goes on", 1))
        assert stays.recv(100) == b"goes on"


def test_an_end_that_is_told_twice(hasty: None) -> None:
    """The end of the data, then its reset, then the end of the errors. The neighbours go on."""
    with forwarded("unix", lasting=True) as (made, pod, first, ended):
        stays, _ = made.attach()
        data, error = pod.ids[0]
        pod.accept(1)
        end = pod.session.end_to_send(data)
        pod.session.reset(data, CANCEL)
        pod.say(end + pod.session.pending_to_send() + pod.session.end_to_send(error))
        assert read_all(first) == b""
        assert isinstance(ended.error, PortRefused)
        time.sleep(0.3)
        assert not made.loop.ended.done()
        pod.say(pod.bytes(b"goes on", 1))
        assert stays.recv(100) == b"goes on"


def test_a_server_that_takes_nothing_more_is_not_written_to() -> None:
    """Between the end of what can be sent and the end of the relays, which it tells."""
    with forwarded() as (made, pod, _program, ended):
        pod.until(lambda: pod.ids)
        (relay,) = made.tunnel._relays
        told: list[bool] = []

        def look() -> None:
            told.append(made.tunnel.ready(relay))
            made.tunnel._outbox.break_off("cut")
            told.append(made.tunnel.ready(relay))
            made.tunnel.abort()

        made.call(look)
        assert told == [True, False]
        assert eventually(lambda: isinstance(ended.error, ConnectionLost))
