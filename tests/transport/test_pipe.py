"""The pipe, against a bytearray as oracle, under many readers, and under Ctrl-C at every point."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import Interrupted, interrupt, points, run_with, storm, undisturbed
from support import eventually, in_thread, seconds

from kubews.errors import BufferFull, ConnectionLost
from kubews.transport import wait
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.pipe import DEFAULT_LIMIT, Pipe
from kubews.transport.wait import Expired, Outcome, Ticket

NOW = Deadline(0)


def feed(pipe: Pipe, data: bytes) -> None:
    pipe.feed(memoryview(data))
    pipe.wake()


def take_everything(pipe: Pipe) -> bytes:
    pieces = []
    while piece := pipe.take(10_000, Deadline(seconds(10))):
        pieces.append(piece)
    return b"".join(pieces)


# -- one thread


def test_short_takes() -> None:
    pipe = Pipe()
    feed(pipe, b"abcdef")
    assert pipe.take(2, NEVER) == b"ab"
    assert pipe.peek(NEVER) == b"cdef"
    assert pipe.take(100, NEVER) == b"cdef"
    with pytest.raises(TimeoutError):
        pipe.take(1, NOW)
    with pytest.raises(TimeoutError):
        pipe.peek(NOW)
    assert not pipe.wait_data(NOW)
    assert not pipe.wait_end(NOW)


def test_readinto() -> None:
    pipe, buffer = Pipe(), bytearray(b"........")
    feed(pipe, b"abcdef")
    assert pipe.readinto(memoryview(buffer)[1:3], NEVER) == 2
    assert pipe.readinto(memoryview(buffer)[3:], NEVER) == 4
    assert buffer == b".abcdef."
    with pytest.raises(TimeoutError):
        pipe.readinto(memoryview(buffer), NOW)
    assert buffer == b".abcdef."


def test_a_read_goes_on_over_the_end_of_a_frame() -> None:
    """As of a pipe of the system: as many bytes as are there, in however many pieces they came."""
    pipe = Pipe()
    frames = [bytes([number]) * 5000 for number in range(4)]
    for frame in frames:
        pipe.feed(memoryview(frame))
    assert pipe.take(7000, NEVER) == frames[0] + frames[1][:2000]
    buffer = bytearray(3500)
    assert pipe.readinto(memoryview(buffer), NEVER) == 3500
    assert buffer == frames[1][2000:] + frames[2][:500]
    pipe.put_back([b"back"])
    assert pipe.take(100_000, NEVER) == b"back" + frames[2][500:] + frames[3]
    assert pipe.size == 0


def test_a_view_of_the_tail_that_is_alive_does_not_stop_the_loop() -> None:
    """A reader that Ctrl-C stops leaves one in its traceback, and a bytearray does not grow meanwhile."""
    pipe = Pipe()
    feed(pipe, b"ab")
    alive = memoryview(pipe._chunks[-1])
    feed(pipe, b"cd")
    assert alive == b"ab"
    assert pipe.take(100, NEVER) == b"abcd"


def test_a_read_leaves_the_lock_after_some_frames() -> None:
    pipe = Pipe(limit=None)
    for number in range(200):
        pipe.feed(memoryview(bytes([number]) * 2048))
    assert len(pipe.take(1 << 30, NEVER)) == 64 * 2048
    assert pipe.size == 136 * 2048


def test_zero_length() -> None:
    """Asking for nothing gives nothing at once, and an empty chunk is no end."""
    pipe = Pipe()
    assert pipe.take(0, NEVER) == pipe.take(-1, NEVER) == b""
    assert pipe.readinto(memoryview(bytearray()), NEVER) == 0
    feed(pipe, b"")
    assert pipe.size == 0
    assert not pipe.starving
    with pytest.raises(TimeoutError):
        pipe.take(1, NOW)
    pipe.put_back([b""])
    assert pipe.take_all() == pipe.buffered() == b""
    assert not pipe.wait_data(NOW)


def test_end() -> None:
    """R-5: whatever was buffered comes before the end, and the end stays."""
    pipe = Pipe()
    feed(pipe, b"last line")
    pipe.finish()
    pipe.finish(ConnectionLost("too late"))
    assert pipe.ended
    assert pipe.error is None
    assert pipe.wait_end(NEVER)
    assert pipe.wait_data(NEVER)
    assert take_everything(pipe) == b"last line"
    for _ in range(2):
        assert pipe.take(1, NEVER) == pipe.peek(NEVER) == b""
        assert pipe.readinto(memoryview(bytearray(1)), NEVER) == 0
        assert pipe.wait_data(NEVER)


def test_loss() -> None:
    """R-5, R-3: the buffered bytes first, then the loss at each call, a new instance each time."""
    pipe, lost = Pipe(), ConnectionLost("gone")
    feed(pipe, b"ab")
    pipe.finish(lost)
    pipe.finish()
    assert pipe.error is lost
    assert pipe.take(9, NEVER) == b"ab"
    caught = []
    for call in (
        lambda: pipe.take(1, NEVER),
        lambda: pipe.peek(NEVER),
        lambda: pipe.readinto(memoryview(bytearray(1)), NEVER),
        lambda: pipe.wait_data(NEVER),
    ):
        with pytest.raises(ConnectionLost, match="gone") as info:
            call()
        caught.append(info.value)
    assert len(set(map(id, [lost, *caught]))) == 5
    assert pipe.wait_end(NEVER)
    pipe.put_back([b"again"])
    assert pipe.take(9, NEVER) == b"again"


def test_put_back() -> None:
    pipe = Pipe()
    feed(pipe, b"cd")
    pipe.put_back([b"ab"])
    assert pipe.size == 4
    assert pipe.buffered() == b"abcd"
    assert pipe.take_all() == b"abcd"
    assert pipe.size == 0


def test_discard() -> None:
    pipe = Pipe(limit=4)
    feed(pipe, b"abcd")
    assert not pipe.has_room(False)
    pipe.discard()
    assert pipe.has_room(True)
    feed(pipe, b"ef")
    pipe.put_back([b"x"])
    assert (pipe.size, pipe.buffered(), pipe.unwanted) == (0, b"", False)
    with pytest.raises(TimeoutError):
        pipe.take(1, NOW)
    pipe.finish()
    assert pipe.take(1, NEVER) == b""


def test_close() -> None:
    pipe = Pipe()
    feed(pipe, b"abcd")
    pipe.close()
    pipe.close()
    assert not pipe.unwanted
    feed(pipe, b"")
    assert not pipe.unwanted
    feed(pipe, b"ef")
    assert pipe.unwanted
    assert pipe.size == 0
    for call in (
        lambda: pipe.take(1, NEVER),
        lambda: pipe.peek(NEVER),
        lambda: pipe.readinto(memoryview(bytearray(1)), NEVER),
        lambda: pipe.wait_data(NEVER),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 1000])
def test_limit(limit: int) -> None:
    """Full at the limit; room again only when half is free, and always when empty."""
    pipe = Pipe(limit=limit)
    for size in range(limit + 3):
        assert pipe.size == size
        assert pipe.has_room(resuming=False) == (size < limit)
        assert pipe.has_room(resuming=True) == (size <= limit // 2)
        feed(pipe, b"x")
    pipe.take_all()
    assert pipe.has_room(resuming=True)


def test_no_limit() -> None:
    changes: list[int] = []
    pipe = Pipe(limit=5, changed=lambda: changes.append(1))
    feed(pipe, bytes(100))
    assert not pipe.has_room(False)
    pipe.unlimit()
    assert changes == [1]
    assert pipe.has_room(False)
    assert pipe.has_room(True)
    assert Pipe().limit == DEFAULT_LIMIT


@pytest.mark.parametrize("resuming", [False, True])
def test_the_limit_may_go_at_any_moment(resuming: bool) -> None:
    """As when the loop asks while another thread calls communicate()."""
    for number in points():
        pipe = Pipe(limit=100)
        pipe.feed(bytes(200))
        unlimit = partial(undisturbed, pipe.unlimit)
        _, there_was = run_with(lambda pipe=pipe: pipe.has_room(resuming), number, unlimit)
        assert pipe.limit is None or not there_was
        if not there_was:
            break
    assert number > 0


def test_changed_is_told_of_every_drain() -> None:
    changes: list[int] = []
    pipe = Pipe(changed=lambda: changes.append(pipe.size))
    feed(pipe, b"abcdefgh")
    pipe.take(1, NEVER)
    pipe.readinto(memoryview(bytearray(2)), NEVER)
    pipe.peek(NEVER)
    pipe.take_all()
    feed(pipe, b"x")
    pipe.discard()
    assert changes == [7, 5, 0, 0]
    with pytest.raises(TimeoutError):
        pipe.take(1, NOW)
    assert len(changes) == 5  # it parked


def test_owner_is_who_last_took() -> None:
    pipe = Pipe()
    feed(pipe, b"abcd")
    pipe.peek(NEVER)
    assert pipe.owner is None
    pipe.take(1, NEVER)
    assert pipe.owner is threading.current_thread()
    other = in_thread(pipe.readinto, memoryview(bytearray(1)), NEVER)
    assert other.result() == 1
    assert pipe.owner is other.thread


def test_owner_is_not_kept_alive_by_what_it_has_taken_from() -> None:
    pipe = Pipe()
    feed(pipe, b"ab")
    other = in_thread(pipe.take, 1, NEVER)
    other.result()
    pipe.take(1, NEVER)
    feed(pipe, b"c")
    other = in_thread(pipe.take, 1, NEVER)
    other.result()
    other.thread.join(seconds(5))
    assert pipe.owner is other.thread
    del other
    assert eventually(lambda: gc.collect() is not None and pipe.owner is None)


def test_fed_bytes_may_be_views_that_change_owner() -> None:
    """Large chunks are kept as they came; a small one is copied, for its frame may be large."""
    pipe, small, large = Pipe(), bytearray(b"s" * 10), bytes(5000)
    pipe.feed(memoryview(small))
    small[:] = b"?" * 10
    pipe.feed(memoryview(large))
    assert pipe._chunks[-1].obj is large  # type: ignore[union-attr]
    assert pipe.take_all() == b"s" * 10 + large


# -- against an oracle

BLOB = random.Random(5).randbytes(1 << 16)
sizes = st.sampled_from([0, 1, 2, 3, 100, 2047, 2048, 2049, 16_383, 16_384, 20_000])
operations = st.lists(
    st.tuples(st.sampled_from(["feed", "feed", "put_back", "take", "readinto"]), sizes)
    | st.tuples(
        st.sampled_from(["peek", "take_all", "buffered", "wait_data", "wait_end"]), st.just(0)
    )
    | st.tuples(st.sampled_from(["discard", "close", "finish", "lose"]), st.just(0)),
    max_size=25,
)


class Oracle:
    """What a pipe is, in the plainest words."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.discards = self.closed = self.ended = False
        self.lost = False

    def empty(self) -> Any:
        if self.closed:
            return ValueError
        if not self.ended:
            return Expired
        return ConnectionLost if self.lost else b""

    def add(self, data: bytes, place: int) -> None:
        if not self.discards:
            self.data[place:place] = data

    def end(self, lost: bool) -> None:
        if not self.ended:
            self.ended, self.lost = True, lost

    def drop(self, closed: bool) -> None:
        self.discards = True
        self.closed = self.closed or closed
        self.data.clear()


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ValueError, TimeoutError, ConnectionLost) as exc:
        return type(exc)


def check_step(pipe: Pipe, oracle: Oracle, name: str, size: int, offset: int) -> None:
    data = BLOB[offset % 40_000 :][:size]
    if name == "feed":
        if oracle.ended:  # the loop feeds nothing then
            return
        feed(pipe, data)
        oracle.add(data, len(oracle.data))
    elif name == "put_back":
        pipe.put_back([data])
        oracle.add(data, 0)
    elif name in ("take", "readinto", "peek"):
        buffer = bytearray(size)
        got = {
            "take": lambda: outcome(lambda: pipe.take(size, NOW)),
            "readinto": lambda: outcome(lambda: pipe.readinto(memoryview(buffer), NOW)),
            "peek": lambda: outcome(lambda: pipe.peek(NOW)),
        }[name]()
        if name != "peek" and not size:
            assert got in (b"", 0)
            return
        if not oracle.data:
            assert got == (oracle.empty() or 0) or got == oracle.empty()
            return
        if name == "readinto":
            assert buffer[got:] == bytes(size - got)
            got = bytes(buffer[:got])
        assert got
        assert oracle.data.startswith(got)
        if name != "peek":
            assert len(got) <= size
            del oracle.data[: len(got)]
    elif name == "take_all":
        assert pipe.take_all() == oracle.data
        oracle.data.clear()
    elif name == "buffered":
        assert pipe.buffered() == oracle.data
    elif name == "wait_data":
        expected = (
            True if oracle.data else {Expired: False, b"": True}.get(oracle.empty(), oracle.empty())
        )
        assert outcome(lambda: pipe.wait_data(NOW)) == expected
    elif name == "wait_end":
        assert pipe.wait_end(NOW) == oracle.ended
    elif name == "finish":
        pipe.finish()
        oracle.end(lost=False)
    elif name == "lose":
        pipe.finish(ConnectionLost("x"))
        oracle.end(lost=True)
    elif name == "discard":
        pipe.discard()
        oracle.drop(closed=False)
    elif name == "close":
        pipe.close()
        oracle.drop(closed=True)


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(steps=operations)
def test_against_an_oracle(steps: list[tuple[str, int]]) -> None:
    """R-5: whichever mix of calls is used, the bytes are all there, once, in order."""
    pipe, oracle, offset = Pipe(), Oracle(), 0
    for name, size in steps:
        check_step(pipe, oracle, name, size, offset)
        offset += 997
        assert pipe.size == len(oracle.data)
        assert pipe.ended == oracle.ended
        assert (pipe.error is not None) == oracle.lost
        assert not pipe.readers
    assert pipe.buffered() == oracle.data


# -- memory and time


@pytest.mark.parametrize("size", [1, 2, 100, 2047])
def test_small_chunks_cost_little_memory(size: int) -> None:
    """A process that flushes each byte: 355 bytes of memory for each without merging."""
    pipe, chunk, total = Pipe(limit=None), memoryview(bytes(size)), 1 << 17
    tracemalloc.start()
    try:
        for _ in range(total // size):
            pipe.feed(chunk)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 1.5 * total
    assert pipe.size == total // size * size


def cost_per_byte(size: int, total: int) -> float:
    """Return the seconds for a byte that is fed in chunks, counted for each of them, and taken."""
    pipe, chunk = Pipe(limit=None), memoryview(bytes(size))
    began = time.process_time()
    for _ in range(total // size):
        pipe.feed(chunk)
        assert pipe.size
    while pipe.size:
        pipe.take(4096, NEVER)
        pipe.peek(NOW) if pipe.size else None
    return (time.process_time() - began) / total


@pytest.mark.parametrize("size", [1, 2048])
def test_the_cost_of_a_byte_does_not_grow(size: int) -> None:
    """The loop asks for the size after each batch: counting the chunks made this quadratic."""
    few, many = 256 * size, 16_384 * size
    base = min(cost_per_byte(size, few) for _ in range(5))
    assert min(cost_per_byte(size, many) for _ in range(2)) < 6 * base


def test_peek_at_a_huge_frame_is_cheap() -> None:
    """A reader of lines peeks for each: that copied all of a frame, and a v4 frame may be any size."""
    pipe = Pipe(limit=None)
    feed(pipe, bytes(32 << 20))
    began = time.process_time()
    for _ in range(100):
        assert 0 < len(pipe.peek(NEVER)) <= 1 << 20
    assert time.process_time() - began < seconds(0.5)  # two seconds and more, once


# -- threads


def test_reader_waits_for_wake() -> None:
    """Feeding alone wakes nobody: the loop does it once for a batch."""
    pipe = Pipe()
    reader = in_thread(pipe.take, 10, NEVER)
    assert eventually(lambda: pipe.starving)
    pipe.feed(memoryview(b"ab"))
    assert not pipe.starving
    assert reader.running
    pipe.feed(memoryview(b"cd"))
    pipe.wake()
    assert reader.result() == b"abcd"
    assert not pipe.readers


CALLS: dict[str, Callable[[Pipe], Any]] = {
    "take": lambda pipe: pipe.take(1, NEVER),
    "readinto": lambda pipe: pipe.readinto(memoryview(bytearray(1)), NEVER),
    "peek": lambda pipe: pipe.peek(NEVER),
    "wait_data": lambda pipe: pipe.wait_data(NEVER),
}


@pytest.mark.parametrize("name", CALLS)
def test_close_turns_a_parked_reader_away(name: str) -> None:
    pipe = Pipe()
    readers = [in_thread(CALLS[name], pipe) for _ in range(3)]
    assert eventually(lambda: len(pipe.readers.starving()) == 3)
    pipe.close()
    for reader in readers:
        with pytest.raises(ValueError, match="closed"):
            reader.result()
    assert not pipe.readers


@pytest.mark.parametrize("name", CALLS)
def test_the_end_wakes_a_parked_reader(name: str) -> None:
    pipe, lost = Pipe(), Pipe()
    readers = [in_thread(CALLS[name], pipe) for _ in range(3)]
    unlucky = in_thread(CALLS[name], lost)
    assert eventually(lambda: len(pipe.readers.starving()) == 3 and lost.starving)
    pipe.finish()
    lost.finish(ConnectionLost("gone"))
    assert [reader.result() for reader in readers] == [CALLS[name](pipe)] * 3
    with pytest.raises(ConnectionLost):
        unlucky.result()


def test_wait_end_outlasts_data_and_close() -> None:
    pipe = Pipe()
    waiter = in_thread(pipe.wait_end, NEVER)
    assert eventually(lambda: pipe.readers)
    feed(pipe, b"x")
    pipe.close()
    assert waiter.running
    pipe.finish(ConnectionLost("x"))
    assert waiter.result() is True


def test_what_is_put_back_wakes_another_reader() -> None:
    pipe = Pipe()
    reader = in_thread(pipe.take, 10, NEVER)
    assert eventually(lambda: pipe.starving)
    pipe.put_back([b"ab"])
    assert reader.result() == b"ab"


def test_parked_reader_gets_buffer_full_and_may_come_again() -> None:
    pipe = Pipe()
    reader = in_thread(pipe.take, 1, NEVER)
    assert eventually(lambda: pipe.starving)
    pipe.readers.wake_all(BufferFull("stdout"))
    with pytest.raises(BufferFull):
        reader.result()
    feed(pipe, b"x")
    assert pipe.take(1, NOW) == b"x"


def test_readers_divide_the_bytes() -> None:
    """Every byte reaches one reader, in pieces that are in order."""
    pipe, count = Pipe(limit=None), 40_000
    start = threading.Barrier(5)

    def reader(number: int) -> list[int]:
        start.wait(seconds(10))
        buffer, got = bytearray(1000), []
        while True:
            if number % 2:
                piece = pipe.take(400, Deadline(seconds(20)))
            else:
                piece = bytes(buffer[: pipe.readinto(memoryview(buffer), Deadline(seconds(20)))])
            if not piece:
                return got
            got += memoryview(piece).cast("I").tolist()

    readers = [in_thread(reader, number) for number in range(4)]
    numbers = memoryview(b"".join(n.to_bytes(4, "little") for n in range(count)))
    start.wait(seconds(10))
    position, rng = 0, random.Random(7)
    while position < len(numbers):
        for _ in range(rng.randrange(1, 5)):
            size = 4 * rng.choice([1, 3, 100, 511, 512, 800])
            pipe.feed(numbers[position : position + size])
            position += size
        pipe.wake()
    pipe.finish()
    got = [reader.result(30) for reader in readers]
    for mine in got:
        assert mine == sorted(mine)
    assert sorted(n for mine in got for n in mine) == list(range(count))
    assert pipe.size == 0


# -- Ctrl-C, and handlers that use the pipe

DATA = b"0123456789abcdefghijABCDEFGHIJ"


def filled(**options: Any) -> Pipe:
    pipe = Pipe(**options)
    pipe.feed(memoryview(DATA[:10]))
    pipe.put_back([b""])
    pipe._chunks.append(memoryview(DATA[10:20]))  # as a chunk of its own
    pipe._chunks.append(bytearray(DATA[20:]))
    pipe._fed += 20
    return pipe


def readinto(pipe: Pipe, size: int) -> bytes:
    buffer = bytearray(size)
    count = pipe.readinto(memoryview(buffer), NOW)
    return bytes(buffer[:count])


def take_all(pipe: Pipe) -> bytes:
    taken: list[bytes] = []
    try:
        return pipe.take_all(taken)
    except BaseException:
        pipe.put_back(taken)
        raise


TAKES: dict[str, Callable[[Pipe], Any]] = {
    "take a part": lambda pipe: pipe.take(4, NOW),
    "take a chunk": lambda pipe: pipe.take(50, NOW),
    "read a part": lambda pipe: readinto(pipe, 4),
    "read a chunk": lambda pipe: readinto(pipe, 50),
    "take all": take_all,
}
OTHERS: dict[str, Callable[[Pipe], Any]] = {
    "peek": lambda pipe: pipe.peek(NOW),
    "buffered": lambda pipe: pipe.buffered(),
    "size": lambda pipe: pipe.size,
    "put back": lambda pipe: pipe.put_back([b""]),
}


def no_lock_no_ticket(pipe: Pipe) -> bool:
    return not pipe.readers and not pipe._lock._is_owned()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [*TAKES, *OTHERS])
def test_interrupt_loses_nothing(name: str) -> None:
    """Ctrl-C at any point of a call: what it does not return is still in the pipe, and counted."""
    call = {**TAKES, **OTHERS}[name]
    for number in points():
        pipe = filled(changed=lambda: None)
        taken = b""
        try:
            result, reached = run_with(lambda pipe=pipe: call(pipe), number, interrupt)
            taken = result if name in TAKES else b""
        except Interrupted:
            reached = True
        assert no_lock_no_ticket(pipe), number
        assert taken + pipe.buffered() == DATA, number
        assert pipe.size == len(pipe.buffered()), number
        if not reached:
            assert number >= 1
            return


def park_under_interrupt(name: str, number: int) -> bool:
    """Take from an empty pipe that is fed once the call parks; return whether it was interrupted."""
    fed: list[int] = []
    taken = b""

    def changed() -> None:
        if not fed:
            fed.append(1)
            undisturbed(lambda: feed(pipe, DATA))

    pipe = Pipe(changed=changed)
    try:
        if name == "take":
            taken, reached = run_with(lambda: pipe.take(9, NEVER), number, interrupt)
        else:
            taken, reached = run_with(lambda: readinto(pipe, 9), number, interrupt)
    except Interrupted:
        reached = True
    assert no_lock_no_ticket(pipe)
    assert taken + pipe.buffered() == (DATA if fed else b"")
    assert pipe.size == len(pipe.buffered())
    return reached


@pytest.mark.parametrize("name", ["take", "readinto"])
def test_interrupt_of_a_parked_reader_loses_nothing(name: str) -> None:
    number = next(number for number in points() if not park_under_interrupt(name, number))
    assert number >= 10


def test_an_interrupted_put_back_can_be_made_again() -> None:
    """By who calls whom Ctrl-C stopped in it: nothing is there twice then."""
    for number in points():
        pipe, taken = filled(), [b"xy", b"z"]
        try:
            _, reached = run_with(
                lambda pipe=pipe, taken=taken: pipe.put_back(taken), number, interrupt
            )
        except Interrupted:
            reached = True
        pipe.put_back(taken)
        assert not taken
        assert pipe.buffered() == b"xyz" + DATA
        if not reached:
            assert number >= 3
            return


@pytest.mark.parametrize("name", ["put back", "discard", "close", "finish"])
def test_interrupt_of_a_change_is_all_or_nothing(name: str) -> None:
    call: Callable[[Pipe], Any] = {
        "put back": lambda pipe: pipe.put_back([b"xyz"]),
        "discard": lambda pipe: pipe.discard(),
        "close": lambda pipe: pipe.close(),
        "finish": lambda pipe: pipe.finish(),
    }[name]
    allowed = {b"", DATA, b"xyz" + DATA}
    for number in points():
        pipe, ticket = filled(), Ticket()
        pipe.readers.add(ticket)
        try:
            _, reached = run_with(lambda pipe=pipe: call(pipe), number, interrupt)
        except Interrupted:
            reached = True
        assert not pipe._lock._is_owned()  # type: ignore[attr-defined]
        assert pipe.buffered() in allowed
        assert pipe.size == len(pipe.buffered()), number
        call(pipe)  # again, to the end
        assert name == "discard" or ticket.park(NOW), number
        if not reached:
            assert number >= 3
            return


@pytest.mark.parametrize("name", [*TAKES, *OTHERS])
def test_a_handler_that_waits_for_the_peer_is_answered_or_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``process.wait()`` in one for SIGTERM: what it waits for may come behind what this very call holds up."""
    monkeypatch.setattr(wait, "_SLICE", 0.02)
    ends = {"answered": 0, "told": 0}
    peers: list[Any] = []

    def handler(pipe: Pipe) -> None:
        outcome: Outcome[int] = Outcome()
        peers.append(in_thread(lambda: (pipe.feed(memoryview(b"x")), outcome.set(1))))
        try:
            ends["answered"] += outcome.get(NEVER)
        except RuntimeError as exc:
            ends["told"] += "raise an exception in the handler" in str(exc)
            raise Interrupted from exc

    for number in points():
        pipe = filled()
        with contextlib.suppress(Interrupted, TimeoutError):
            _, reached = run_with(
                partial({**TAKES, **OTHERS}[name], pipe), number, partial(handler, pipe)
            )
            if not reached:
                break
        while peers:
            peers.pop().result()
        assert no_lock_no_ticket(pipe)
    assert ends["answered"]
    # These make no call under the lock that a profile function sees.
    assert ends["told"] or name in {"size", "put back"}


def use_in_handler(outer: str, inner: str, number: int) -> bool:
    """Let a handler use the pipe in the middle of a call; return whether it came to run."""
    pipe, got = filled(), list[bytes]()

    def handler() -> None:
        result = {**TAKES, **OTHERS}[inner](pipe)
        if inner in TAKES:
            got.append(result)

    def call() -> bytes:
        try:
            return TAKES[outer](pipe)
        except TimeoutError:  # the handler took everything
            return b""

    result, reached = run_with(call, number, handler)
    got += [result, pipe.buffered()]
    assert sorted(b"".join(got)) == sorted(DATA), number
    assert pipe.size == len(pipe.buffered()), number
    assert no_lock_no_ticket(pipe)
    return reached


@pytest.mark.parametrize("outer", TAKES)
def test_handler_that_uses_the_pipe(outer: str) -> None:
    """A signal handler or a finalizer may run inside the critical section of its own thread."""
    for inner in [*TAKES, *OTHERS]:
        assert next(n for n in points() if not use_in_handler(outer, inner, n)) >= 3


def end_in_handler(outer: str, inner: str, number: int) -> bool:
    pipe = filled()
    _, reached = run_with(
        lambda: outcome(lambda: {**TAKES, **OTHERS}[outer](pipe)), number, getattr(pipe, inner)
    )
    assert no_lock_no_ticket(pipe)
    assert pipe.size == len(pipe.buffered()), number
    return reached


@pytest.mark.parametrize("inner", ["close", "discard", "finish"])
def test_handler_that_ends_the_pipe(inner: str) -> None:
    for outer in [*TAKES, *OTHERS]:
        assert next(n for n in points() if not end_in_handler(outer, inner, n)) >= 1


def test_storm_of_interrupts_loses_nothing() -> None:
    """One second of Ctrl-C over a reader at full speed: all bytes, in order, no lock, no ticket."""
    pipe = Pipe(limit=None)
    source = random.Random(3).randbytes(1 << 16)
    stop = threading.Event()
    sent: list[bytes] = []

    def feeder() -> None:
        rng = random.Random(4)
        while not stop.is_set():
            for _ in range(8):
                start = rng.randrange(60_000)
                chunk = source[start : start + rng.choice([1, 100, 3000, 5000])]
                sent.append(chunk)
                pipe.feed(memoryview(chunk))
            pipe.wake()
            while pipe.size > 1 << 20 and not stop.is_set():
                time.sleep(0)
        pipe.finish()

    feeding = in_thread(feeder)
    got: list[bytes] = []
    buffer = bytearray(3000)
    view = memoryview(buffer)
    with storm(0.0003) as weather:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            weather.armed = True
            try:
                if len(got) % 2:
                    got.append(pipe.take(2500, NEVER))
                else:
                    count = pipe.readinto(view, NEVER)
                    got.append(bytes(buffer[:count]))
            except Interrupted:
                pass
            if pipe.readers.tickets or pipe._lock._is_owned():  # type: ignore[attr-defined]
                break
    assert weather.raised > 10
    stop.set()
    got.append(take_everything(pipe))
    feeding.result()
    assert no_lock_no_ticket(pipe)
    same = b"".join(got) == b"".join(sent)
    assert same
