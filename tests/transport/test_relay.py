"""A local socket on a loop: what the pod sends, what the local program does, and what each sees of the end."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from faults import reset
from peers import tcp_pair
from support import eventually, in_thread, seconds

from kubews.transport import relay as module
from kubews.transport.loop import Loop
from kubews.transport.relay import Relay

T = TypeVar("T")
KIB = 1024
LOST = ConnectionError("the tunnel is lost")

both = pytest.mark.parametrize("kind", ["unix", "tcp"])


class Pod:
    """What a relay has on its other side: notes what it is told, and has room while it is said so."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.max_data = 32 * KIB
        self.room = True
        #: Whether it ends, too, at once, when the local program does.
        self.final = False
        self.taken = bytearray()
        self.pieces = 0
        #: What was told, in order.
        self.calls: list[Any] = []

    def ready(self, relay: Relay) -> bool:
        return self.room

    def send(self, relay: Relay, data: bytes) -> None:
        self.note(None)
        self.taken += data
        self.pieces += 1

    def end(self, relay: Relay) -> None:
        self.note("end")
        if self.final:
            relay.finish()

    def give_up(self, relay: Relay) -> None:
        self.note("give up")

    def clogged(self, relay: Relay, clogged: bool) -> None:
        self.note("clogged" if clogged else "free")

    def released(self, relay: Relay) -> None:
        self.note("released")

    def ended(self, error: Exception | None) -> None:
        self.note(error or "ended")

    def note(self, what: Any) -> None:
        assert self.loop.is_current()
        if what is not None:
            self.calls.append(what)

    def told(self, *calls: Any) -> bool:
        """Wait until this, and nothing else, was told."""
        return eventually(lambda: self.calls == list(calls))


class Local:
    """A local program, its relay and the loop."""

    def __init__(self, kind: str, wrap: Callable[[Any], Any]) -> None:
        self.program, near = tcp_pair() if kind == "tcp" else socket.socketpair()
        self.program.settimeout(seconds(10))
        self.near = near
        self.loop = Loop("test")
        self.pod = Pod(self.loop)
        self.relay: Relay = self.run(lambda: Relay(wrap(near), self.pod, self.loop, self.pod.ended))
        self.run(self.relay.pump)

    def run(self, function: Callable[[], T]) -> T:
        """Run a function in the loop's thread, and return what it returns."""
        results: list[Any] = []

        def call() -> None:
            try:
                results.append((function(), None))
            except BaseException as exc:
                results.append((None, exc))

        self.loop.call_soon(call)
        assert eventually(lambda: results, 10)
        result, exc = results[0]
        if exc is not None:
            raise exc
        return result  # type: ignore[no-any-return]

    def feed(self, *pieces: bytes) -> None:
        def call() -> None:
            for piece in pieces:
                self.relay.feed(memoryview(piece))

        self.run(call)

    def finish(self, error: Exception | None = None) -> None:
        self.run(lambda: self.relay.finish(error))

    def abort(self, error: Exception = LOST) -> None:
        self.run(lambda: self.relay.abort(error))

    def queued(self) -> int:
        return self.relay._size

    def read(self, size: int) -> bytes:
        gathered = bytearray()
        while len(gathered) < size:
            piece = self.program.recv(min(65536, size - len(gathered)))
            if not piece:
                break
            gathered += piece
        return bytes(gathered)

    def rest(self) -> bytes:
        """Everything up to the end."""
        return self.read(1 << 30)


@contextmanager
def local(kind: str = "unix", wrap: Callable[[Any], Any] = lambda sock: sock) -> Iterator[Local]:
    made = Local(kind, wrap)
    try:
        yield made
        assert made.loop.ended.done() is False, "a callback has failed"
    finally:
        made.program.close()
        if not made.loop.ended.done():
            made.run(made.relay.close)
        made.loop.stop()
        made.loop.join(seconds(5))


@pytest.fixture(params=["unix", "tcp"])
def both_kinds(request: pytest.FixtureRequest) -> Iterator[Local]:
    """A local program over either kind of socket."""
    with local(request.param) as made:
        yield made


def much(made: Local, size: int = 8 << 20) -> bytes:
    """Feed more than the kernel takes; return it."""
    data = os.urandom(64 * KIB) * (size // (64 * KIB))
    made.feed(*(data[start : start + 32 * KIB] for start in range(0, size, 32 * KIB)))
    assert made.queued() > 0
    return data


# -- bytes


def test_bytes_both_ways(both_kinds: Local) -> None:
    made = both_kinds
    made.feed(b"from ", b"the pod")
    assert made.read(12) == b"from the pod"
    made.program.sendall(b"to the pod")
    assert eventually(lambda: made.pod.taken == b"to the pod")
    assert made.pod.calls == []


def test_what_was_sent_before_the_relay_was_made() -> None:
    program, near = socket.socketpair()
    loop = Loop("test")
    pod = Pod(loop)
    program.sendall(b"early")
    program.close()

    def make() -> None:
        Relay(near, pod, loop, pod.ended).pump()

    loop.call_soon(make)
    assert eventually(lambda: pod.calls == ["end"])
    assert pod.taken == b"early"
    loop.stop()
    loop.join(seconds(5))
    near.close()


def test_bytes_are_copied_by_nobody_but_the_kernel(both_kinds: Local) -> None:
    """Every piece fits into one frame."""
    made = both_kinds
    data = os.urandom(1 << 20)
    in_thread(made.program.sendall, data).result()
    assert eventually(lambda: len(made.pod.taken) == len(data))
    assert made.pod.taken == data
    assert made.pod.pieces >= len(data) // made.pod.max_data


def test_nothing_is_read_while_the_pod_takes_nothing(both_kinds: Local) -> None:
    made = both_kinds
    made.pod.room = False
    made.program.sendall(b"waits")  # one that was waited for may come
    made.run(made.relay.pump)
    before = bytes(made.pod.taken)
    sending = in_thread(made.program.sendall, bytes(32 << 20))
    assert not eventually(lambda: not sending.running, 0.2)
    assert len(made.pod.taken) - len(before) <= 8 * made.pod.max_data
    made.pod.room = True
    made.run(made.relay.pump)
    sending.result()
    assert eventually(lambda: len(made.pod.taken) == 5 + (32 << 20))


def test_a_fast_program_does_not_keep_the_loop() -> None:
    with local() as made:
        made.pod.room = False
        made.run(made.relay.pump)
        made.program.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                made.program.send(b"x" * 1024)

        def turn() -> int:
            made.pod.room, made.pod.max_data = True, 16
            made.relay.pump()
            return made.pod.pieces

        assert made.run(turn) <= 8 + 8


# -- a program that is slow


def test_a_program_that_does_not_read(both_kinds: Local) -> None:
    """R-43: above 256 KiB the pod has to wait, and below 64 KiB no more; no byte is lost."""
    made = both_kinds
    made.feed(b"x" * 100)
    sent = 100
    while made.queued() <= 256 * KIB:
        assert made.pod.calls == []
        made.feed(b"x" * 32 * KIB)
        sent += 32 * KIB
    assert made.pod.calls == ["clogged"]
    made.feed(b"x" * 32 * KIB)
    sent += 32 * KIB
    assert made.pod.calls == ["clogged"]
    got = 0
    while got < sent:
        before = made.run(made.queued)
        got += len(made.program.recv(min(8192, sent - got)))
        if before > 64 * KIB and made.pod.calls == ["clogged", "free"]:
            assert made.run(made.queued) < 64 * KIB
    assert made.pod.told("clogged", "free")
    made.program.sendall(b"still there")
    assert eventually(lambda: made.pod.taken == b"still there")


def test_order_is_kept_behind_what_waits(both_kinds: Local) -> None:
    made = both_kinds
    data = much(made)
    reading = in_thread(made.read, len(data) + 4)
    made.feed(b"tail")
    assert reading.result() == data + b"tail"


# -- the pod's end


@both
def test_an_end_in_order(kind: str) -> None:
    with local(kind) as made:
        made.feed(b"bye")
        made.finish()
        made.finish(LOST)
        assert made.pod.calls[0] == "ended"
        assert made.rest() == b"bye"
        made.program.close()
        assert made.pod.told("ended", "released")


@both
def test_the_end_comes_behind_what_waits(kind: str) -> None:
    with local(kind) as made:
        data = much(made)
        made.finish()
        made.feed(b"too late")
        assert "ended" not in made.pod.calls
        assert made.rest() == data
        made.program.close()
        assert made.pod.told("clogged", "free", "ended", "released")


def test_an_error_over_a_pair_is_an_end() -> None:
    """R-39: the program reads what came; why it ended was told before it can see the end."""
    with local("unix") as made:
        data = much(made)
        made.finish(LOST)
        assert LOST not in made.pod.calls
        assert made.rest() == data
        assert made.pod.told("clogged", "free", LOST, "released")
        with pytest.raises(BrokenPipeError):
            made.program.send(b"x")


def test_an_error_over_a_pair_does_not_reset_what_the_program_has_sent() -> None:
    """Bytes that nobody has read here would turn the program's end of file into a reset."""
    with local("unix") as made:
        made.pod.room = False
        made.run(made.relay.pump)
        made.program.sendall(b"x" * 10_000)
        made.program.sendall(b"x" * 10_000)
        made.feed(b"last words")
        made.finish(LOST)
        assert made.rest() == b"last words"
        assert made.pod.told(LOST, "released")


def test_an_error_over_tcp_is_a_reset() -> None:
    """R-39: behind what came before."""
    with local("tcp") as made:
        made.feed(b"so far")
        assert made.read(6) == b"so far"
        made.finish(LOST)
        with pytest.raises(ConnectionResetError):
            made.program.recv(1)
        assert made.pod.told(LOST, "released")


def test_an_error_over_tcp_waits_for_what_the_program_has_not_read() -> None:
    with local("tcp") as made:
        data = much(made)
        made.finish(LOST)
        assert made.pod.told("clogged")
        assert made.read(len(data) - 1000) == data[:-1000]
        assert made.read(1000) == data[-1000:]
        with pytest.raises(ConnectionResetError):
            made.rest()
        assert made.pod.told("clogged", "free", LOST, "released")


def filled(made: Local) -> int:
    """Feed what the kernel takes and the program has no room for, and nothing more; return how much."""
    made.program.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    size = 0
    while not made.run(made.relay._under_way) or size < 200 * KIB:
        made.feed(bytes(16 * KIB))
        size += 16 * KIB
    assert made.queued() == 0
    return size


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_an_error_over_tcp_waits_for_what_the_kernel_holds() -> None:
    """R-39: a reset would take it from the program."""
    with local("tcp") as made:
        size = filled(made)
        made.finish(LOST)
        assert not eventually(lambda: made.pod.calls, 0.2)
        assert made.read(size) == bytes(size)
        with pytest.raises(ConnectionResetError):
            made.rest()
        assert made.pod.told(LOST, "released")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("half", [False, True], ids=["sends", "has ended its half"])
def test_but_not_for_a_program_that_is_gone(half: bool) -> None:
    with local("tcp") as made:
        size = filled(made)
        if half:
            made.program.shutdown(socket.SHUT_WR)
            assert made.pod.told("end")
        made.finish(LOST)
        reset(made.program)
        assert size
        assert made.pod.told(*["end"] * half, LOST, "released")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_nor_when_it_is_aborted() -> None:
    with local("tcp") as made:
        filled(made)
        made.finish(LOST)
        made.abort()
        assert made.pod.calls == [LOST, "released"]


def test_an_error_over_tcp_where_the_kernel_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with local("tcp") as made:
        made.finish(LOST)
        assert made.pod.calls == [LOST, "released"]


def test_a_program_may_go_on_sending_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing at once would take from it what it has not read yet."""
    monkeypatch.setattr(module, "_LINGER", seconds(20))
    with local("tcp") as made:
        made.program.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        data = b"y" * (100 * KIB)
        made.feed(data)
        made.finish()
        for _ in range(50):
            made.program.sendall(b"x" * 10_000)
        assert made.rest() == data
        made.program.sendall(b"more")
        made.program.shutdown(socket.SHUT_WR)
        assert made.pod.told("ended", "released")
        assert made.pod.taken == b""


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER", 0.05)
    with local("tcp") as made:
        made.finish()
        assert made.rest() == b""
        assert made.pod.told("ended", "released")


@both
def test_a_program_that_ends_its_half_while_it_has_not_read_all(kind: str) -> None:
    """R-41: what the pod sent before its end is the program's, whatever that does with its own half."""
    with local(kind) as made:
        data = much(made)
        made.finish()
        made.program.shutdown(socket.SHUT_WR)
        made.run(made.relay.pump)
        assert made.pod.calls == ["clogged"]
        assert made.rest() == data
        assert made.pod.told("clogged", "free", "ended", "released")


def test_what_a_program_still_sends_while_it_has_not_read_all() -> None:
    with local("tcp") as made:
        data = much(made)
        made.finish()
        for _ in range(100):
            made.program.sendall(b"x" * 100_000)
        assert made.rest() == data
        assert made.pod.taken == b""
        made.program.close()
        assert made.pod.told("clogged", "free", "ended", "released")


# -- the program's end


@both
def test_a_half_close(kind: str) -> None:
    """R-41: the pod is told, and its bytes still come."""
    with local(kind) as made:
        made.program.sendall(b"ruok")
        made.program.shutdown(socket.SHUT_WR)
        assert made.pod.told("end")
        assert made.pod.taken == b"ruok"
        made.run(made.relay.pump)
        made.feed(b"imok")
        made.finish()
        assert made.rest() == b"imok"
        # There is nothing to wait for.
        assert made.pod.told("end", "ended", "released")


@both
def test_a_program_that_is_gone_when_the_pod_speaks(kind: str) -> None:
    with local(kind) as made:
        made.program.close()
        assert made.pod.told("end")

        def spoken() -> bool:
            made.feed(b"x")
            return made.pod.calls == ["end", "give up", "ended", "released"]

        assert eventually(spoken)
        made.feed(b"x")
        made.finish(LOST)
        made.abort()
        assert len(made.pod.calls) == 4


def test_a_reset_by_the_program() -> None:
    with local("tcp") as made:
        reset(made.program)
        assert made.pod.told("give up", "ended", "released")


def test_a_pair_closed_with_bytes_unread_is_a_reset() -> None:
    with local("unix") as made:
        made.feed(b"unread")
        made.program.close()
        assert made.pod.told("give up", "ended", "released")


@both
def test_a_program_that_goes_while_bytes_wait(kind: str) -> None:
    with local(kind) as made:
        much(made)
        reset(made.program)
        assert made.pod.told("clogged", "give up", "ended", "free", "released")


@both
@pytest.mark.parametrize("error", [None, LOST])
def test_a_program_that_goes_while_bytes_wait_after_the_end(
    kind: str, error: Exception | None
) -> None:
    """It is told that the connection is over, once, as for any other."""
    with local(kind) as made:
        much(made)
        made.finish(error)
        reset(made.program)
        assert made.pod.told("clogged", error or "ended", "free", "released")


def test_deserted() -> None:
    """A pair tells a close from a half-close."""
    with local("unix") as made:
        assert made.relay.deserted is False
        made.program.shutdown(socket.SHUT_WR)
        assert made.pod.told("end")
        assert made.relay.deserted is False
        made.program.close()
        assert made.relay.deserted is True
    with local("tcp") as made:
        made.program.close()
        assert made.pod.told("end")
        assert made.relay.deserted is False


def test_deserted_where_there_is_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    with local("unix") as made:
        made.program.close()
        assert made.pod.told("end")
        monkeypatch.delattr(select, "poll")
        assert made.relay.deserted is False


def test_a_reset_by_a_program_that_was_told_the_end() -> None:
    with local("tcp") as made:
        made.finish()
        assert made.rest() == b""
        reset(made.program)
        assert made.pod.told("ended", "released")


@both
def test_a_pod_that_ends_as_the_program_does(kind: str) -> None:
    with local(kind) as made:
        made.pod.final = True
        made.program.shutdown(socket.SHUT_WR)
        assert made.rest() == b""
        assert made.pod.told("end", "ended", "released")


# -- closing and aborting


@both
def test_close(kind: str) -> None:
    with local(kind) as made:
        much(made)
        made.run(made.relay.close)
        made.run(made.relay.close)
        made.run(made.relay.pump)
        assert made.relay.fileno() == -1
        assert made.pod.calls == ["clogged", "free", "released"]


def test_abort_over_a_pair() -> None:
    with local("unix") as made:
        data = much(made)
        made.abort()
        made.abort(OSError())
        # What the kernel has is the program's.
        got = made.rest()
        assert len(got) < len(data)
        assert data.startswith(got)
        assert made.pod.calls == ["clogged", LOST, "free", "released"]


def test_abort_over_tcp() -> None:
    with local("tcp") as made:
        much(made)
        made.abort()
        with pytest.raises(ConnectionResetError):
            made.rest()
        assert made.pod.calls == ["clogged", LOST, "free", "released"]


@both
@pytest.mark.parametrize("error", [None, OSError("before")])
def test_abort_of_one_that_has_ended_but_is_not_read(kind: str, error: Exception | None) -> None:
    with local(kind) as made:
        much(made)
        made.finish(error)
        made.abort()
        assert made.pod.calls == ["clogged", error or LOST, "free", "released"]


def test_abort_of_one_that_only_waits_for_the_program() -> None:
    with local("tcp") as made:
        made.finish()
        made.abort()
        assert made.pod.calls == ["ended", "released"]
        assert made.rest() == b""


# -- what a kernel may do


class Kernel:
    """A socket whose calls fail when told so."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fail: dict[str, list[BaseException]] = {}

    def __getattr__(self, name: str) -> Any:
        if self.fail.get(name):
            raise self.fail[name].pop(0)
        return getattr(self._sock, name)


def test_interrupted_calls() -> None:
    kernels: list[Kernel] = []

    def wrap(sock: socket.socket) -> Kernel:
        kernels.append(Kernel(sock))
        return kernels[0]

    with local(wrap=wrap) as made:
        kernels[0].fail = {
            "send": [InterruptedError(), BlockingIOError()],
            "recv": [InterruptedError(), BlockingIOError()],
        }
        made.feed(b"a", b"b", b"c")
        made.program.sendall(b"x")
        assert made.read(3) == b"abc"
        assert eventually(lambda: made.pod.taken == b"x")


def test_an_end_that_comes_as_the_program_goes() -> None:
    """Nothing is left to shut down: no harm."""
    kernels: list[Kernel] = []

    def wrap(sock: socket.socket) -> Kernel:
        kernels.append(Kernel(sock))
        return kernels[0]

    with local(wrap=wrap) as made:
        kernels[0].fail = {"shutdown": [OSError("not connected")]}
        made.finish()
        assert made.pod.calls == ["ended", "released"]


def test_reset_of_a_socket_without_a_relay() -> None:
    """R-39: the program sees a reset, whatever the state of the socket."""
    near, far = tcp_pair()
    far.settimeout(seconds(5))
    with far:
        Relay.reset(near)
        with pytest.raises(ConnectionResetError):
            far.recv(1)
    Relay.reset(near)
    assert near.fileno() == -1
