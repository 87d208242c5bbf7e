"""Frames on their way out: whole, in order, and told to nobody twice."""

from __future__ import annotations

import array
import random
import threading
import time
from typing import Any

import pytest
from interrupts import Interrupted, interrupt, points, run_with, storm
from support import eventually, in_thread, seconds

from kubews.errors import BufferFull, StreamBroken
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.outbox import Outbox, Unsent
from kubews.transport.wait import Expired, ServingThread, nothing

NOW = Deadline(0)
KIB32 = bytes(32 * 1024)


def put(outbox: Outbox, frame: bytes, deadline: Deadline = NOW) -> None:
    source = Unsent(frame)
    outbox.put(1, frame, deadline, source, len(frame))
    assert source.done


def fill(outbox: Outbox, frame: bytes = KIB32) -> int:
    """Queue until there is no room; return how many."""
    count = 0
    while True:
        try:
            put(outbox, frame)
        except TimeoutError:
            return count
        count += 1


def sent(outbox: Outbox) -> bytes:
    """Send everything, as the loop does."""
    pieces = []
    while outbox.take():
        assert outbox.head is not None
        pieces.append(bytes(outbox.head))
        outbox.head = None
        outbox.writers.wake_all()
    return b"".join(pieces)


# -- what only the newest counts of


def test_of_what_replaces_one_another_one_waits_at_most() -> None:
    """In the place of the first, whether there is room or not."""
    outbox = Outbox(1 << 20, nothing)
    put(outbox, b"a")
    outbox.put_latest(b"1")
    put(outbox, b"b")
    for number in (b"2", b"3"):
        outbox.put_latest(number)
    assert sent(outbox) == b"a3b"
    outbox.put_latest(b"4")
    assert sent(outbox) == b"4"
    fill(outbox)
    outbox.put_latest(b"5")
    outbox.put_latest(b"6")
    assert sent(outbox).endswith(b"\0006")
    outbox.break_off("over")
    with pytest.raises(StreamBroken, match="over"):
        outbox.put_latest(b"7")


# -- what is to be sent


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abc"),
        array.array("H", [1, 2, 3]),
        b"",
        array.array("I"),
    ],
)
def test_unsent(data: Any) -> None:
    source = Unsent(data)
    assert source.view.format == "B"
    assert bytes(source.view) == bytes(memoryview(data).tobytes())
    assert source.offset == 0
    assert source.done == (not source.view)
    source.offset = len(source.view)
    assert source.done


def test_unsent_wants_one_run_of_bytes() -> None:
    with pytest.raises(TypeError):
        Unsent(memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError):
        Unsent("text")  # type: ignore[arg-type]


# -- the queue


def test_frames_leave_in_order_and_whole() -> None:
    outbox = Outbox(1 << 20, nothing)
    assert not outbox
    assert not outbox.take()
    for frame in (b"a", b"bb", b"ccc"):
        put(outbox, frame)
    outbox.put_last(1, b"dddd")
    assert outbox
    assert sent(outbox) == b"abbcccdddd"
    assert not outbox


def test_small_frames_are_joined() -> None:
    outbox = Outbox(1 << 20, nothing)
    for _ in range(3):
        put(outbox, KIB32)
    put(outbox, b"x")
    lengths = []
    while outbox.take():
        assert outbox.head is not None
        lengths.append(len(outbox.head))
        outbox.head = None
    assert lengths == [65_536, 32_769]


def test_a_frame_of_any_size_is_taken() -> None:
    outbox, large = Outbox(1 << 20, nothing), bytes(3 << 20)
    put(outbox, large)
    put(outbox, b"x")
    assert outbox.take()
    assert outbox.head is not None
    assert outbox.head.obj is large  # a frame alone is not copied


def test_offset_moves_with_the_frame_and_not_otherwise() -> None:
    outbox = Outbox(1 << 20, nothing)
    source = Unsent(bytes(100))
    outbox.put(1, b"frame 1", NOW, source, 60)
    assert (source.offset, source.done) == (60, False)
    fill(outbox)
    with pytest.raises(TimeoutError):
        outbox.put(1, b"frame 2", NOW, source, 100)
    assert source.offset == 60
    outbox.break_off("over")
    with pytest.raises(StreamBroken):
        outbox.put(1, b"frame 2", NOW, source, 100)
    assert source.offset == 60


def test_room() -> None:
    """A megabyte of large frames; some frames always, however large; never endlessly many small ones."""
    assert fill(Outbox(1 << 20, nothing)) == 32
    assert fill(Outbox(1 << 20, nothing), bytes(1 << 20)) == 16
    assert fill(Outbox(1 << 20, nothing), b"x") == 512
    assert fill(Outbox(0, nothing), b"x") == 16


def test_writer_waits_for_room() -> None:
    parks: list[int] = []
    outbox = Outbox(1 << 20, lambda: parks.append(1))
    fill(outbox)
    parks.clear()
    writer = in_thread(put, outbox, b"last", NEVER)
    assert eventually(lambda: parks)
    assert writer.running
    data = sent(outbox)
    writer.result()
    data += sent(outbox)
    assert data.endswith(b"last")
    assert len(data) == 32 * len(KIB32) + 4
    assert not outbox.writers


def test_who_makes_room_does_not_wait_for_it() -> None:
    """As a writer that the collector finalizes in the loop's own thread; with a time limit it may."""
    outbox = Outbox(1 << 20, nothing)
    fill(outbox)
    late: list[bool] = []

    def finalize() -> None:
        with pytest.raises(Expired):
            put(outbox, b"not at once")
        put(outbox, b"last", NEVER)
        late.append(outbox.has_room())

    thread = ServingThread(finalize, "loop")
    thread.start()
    thread.join(seconds(10))
    assert late == [False]
    assert sent(outbox).endswith(b"last")


def test_put_last_needs_no_room() -> None:
    outbox = Outbox(1 << 20, nothing)
    fill(outbox)
    outbox.put_last(1, b"end")
    outbox.put_last(1, b"end")
    assert sent(outbox).endswith(b"\0end")


def test_an_end_makes_waiting_writers_of_its_stream_give_up() -> None:
    """What another thread still had to write does not follow the end, on this stream only."""
    outbox = Outbox(1 << 20, nothing)
    fill(outbox)
    writer = in_thread(put, outbox, b"too late", NEVER)
    assert eventually(lambda: outbox.writers)
    outbox.put_last(1, b"end")
    with pytest.raises(StreamBroken, match="ended on this side"):
        writer.result()
    outbox.put_more(b"a key")
    source = Unsent(b"x")
    with pytest.raises(TimeoutError):
        outbox.put(2, b"other", NOW, source, 1)
    assert sent(outbox).endswith(b"enda key")
    outbox.put(2, b"other", NOW, source, 1)
    assert sent(outbox) == b"other"


def test_writers_get_buffer_full_and_may_come_again() -> None:
    outbox = Outbox(1 << 20, nothing)
    fill(outbox)
    writer = in_thread(put, outbox, b"x", NEVER)
    assert eventually(lambda: outbox.writers)
    outbox.writers.wake_all(BufferFull("stdout"))
    with pytest.raises(BufferFull):
        writer.result()
    assert len(sent(outbox)) == 1 << 20
    put(outbox, b"x")


# -- the end


def test_break_off() -> None:
    """R-21: what is queued still goes out, and nothing after it."""
    outbox = Outbox(1 << 20, nothing)
    outbox.check()
    put(outbox, b"a")
    outbox.break_off("the process has ended", b"goodbye")
    outbox.break_off("something else")
    for call in (
        outbox.check,
        lambda: put(outbox, b"x"),
        lambda: outbox.put_last(1, b"x"),
        lambda: outbox.put_more(b"x"),
    ):
        with pytest.raises(StreamBroken, match="the process has ended"):
            call()
        with pytest.raises(BrokenPipeError):
            call()
    assert sent(outbox) == b"agoodbye"


def test_break_off_wakes_writers() -> None:
    """R-21: a writer that waits for room gets BrokenPipeError at once."""
    outbox = Outbox(1 << 20, nothing)
    fill(outbox)
    writers = [in_thread(put, outbox, b"x", NEVER) for _ in range(3)]
    assert eventually(lambda: len(outbox.writers.starving()) == 3)
    outbox.break_off("gone")
    for writer in writers:
        with pytest.raises(StreamBroken, match="gone"):
            writer.result()


def test_drop() -> None:
    outbox = Outbox(1 << 20, nothing)
    put(outbox, b"a")
    put(outbox, b"b")
    outbox.take()
    put(outbox, b"c")
    outbox.drop()
    assert not outbox
    assert outbox.head is None
    assert sent(outbox) == b""


# -- flushing


class Kernel:
    """Takes a few bytes at a time, and nothing when told so."""

    def __init__(self, most: int = 1 << 20) -> None:
        self.taken = bytearray()
        self.most = most

    def send(self, data: memoryview) -> int:
        if not self.most:
            raise BlockingIOError
        piece = data[: self.most]
        self.taken += piece
        return len(piece)


def test_nothing_to_flush() -> None:
    kernel = Kernel()
    assert Outbox(1 << 20, nothing).flush(kernel.send) is False
    assert kernel.taken == b""


def test_a_partial_send_goes_on_with_the_same_bytes() -> None:
    outbox, kernel = Outbox(1 << 20, nothing), Kernel(3)
    put(outbox, b"0123456789")
    waiter = in_thread(lambda: eventually(lambda: not outbox))
    assert outbox.flush(kernel.send) is False
    assert kernel.taken == b"0123456789"
    assert waiter.result() is True
    kernel.most = 0
    put(outbox, b"abc")
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            outbox.flush(kernel.send)
        assert outbox.head == b"abc"


def test_control_frames_pass_the_queue_but_not_what_was_begun() -> None:
    told: list[str] = []
    outbox, kernel = Outbox(1 << 20, nothing, lambda: told.append("data")), Kernel(0)
    put(outbox, b"begun;")
    with pytest.raises(BlockingIOError):
        outbox.flush(kernel.send)
    put(outbox, b"queued")
    outbox.put_control(b"ping;")
    kernel.most = 100
    assert outbox.flush(kernel.send) is False
    assert kernel.taken == b"begun;ping;queued"
    assert told == ["data", "data"]


def test_a_flood_of_control_frames_is_not_kept() -> None:
    outbox = Outbox(1 << 20, nothing)
    for _ in range(1000):
        outbox.put_control(b"pong")
    assert len(outbox.control) == 16
    outbox.drop()
    outbox.put_control(b"late")
    outbox.break_off("x", b"farewell")
    assert not outbox.control
    assert outbox.flush(Kernel().send) is False


def test_a_peer_that_takes_everything_does_not_keep_the_loop() -> None:
    outbox, kernel = Outbox(1 << 20, nothing), Kernel(1)
    put(outbox, b"x" * 100)
    turns = 1
    while outbox.flush(kernel.send):
        turns += 1
        assert turns < 100
    assert turns > 2
    assert kernel.taken == b"x" * 100


# -- threads and interrupts


def test_many_writers() -> None:
    """Every frame of every writer leaves once, and each writer's in its order."""
    outbox, each = Outbox(4096, nothing), 400

    def writer(number: int) -> None:
        for count in range(each):
            frame = number.to_bytes(1, "big") + count.to_bytes(3, "big") + bytes(96)
            put(outbox, frame, Deadline(seconds(20)))

    writers = [in_thread(writer, number) for number in range(6)]
    data = b""
    end = time.monotonic() + seconds(20)
    while len(data) < 6 * each * 100 and time.monotonic() < end:
        data += sent(outbox)
    for one in writers:
        one.result()
    frames = [data[start : start + 100] for start in range(0, len(data), 100)]
    for number in range(6):
        counts = [int.from_bytes(frame[1:4], "big") for frame in frames if frame[0] == number]
        assert counts == list(range(each))
    assert not outbox.writers


def queued(outbox: Outbox) -> bytes:
    return b"".join(outbox._frames)


@pytest.mark.parametrize("full", [False, True], ids=["room", "no room"])
def test_interrupt_queues_all_or_nothing(full: bool) -> None:
    """R-21: Ctrl-C anywhere in a write: frame and offset move together, so the call can be made again."""
    for number in points():
        outbox, source = Outbox(1 << 20, nothing), Unsent(b"0123456789")
        if full:
            fill(outbox)
            number_before = len(queued(outbox))
        else:
            number_before = 0

        def call(outbox: Outbox = outbox, source: Unsent = source) -> None:
            outbox.put(1, b"01234", NOW, source, 5)

        try:
            _, reached = run_with(call, number, interrupt)
        except Interrupted:
            reached = True
        except TimeoutError:
            assert full
            reached = False
        assert not outbox.writers, number
        assert not outbox._lock._is_owned()  # type: ignore[attr-defined]
        new = queued(outbox)[number_before:]
        assert (new, source.offset) in [(b"01234", 5), (b"", 0)], number
        if not reached:
            assert number >= 5
            return


def test_storm_of_interrupts() -> None:
    """A writer that tries again after each Ctrl-C neither loses nor repeats a byte."""
    outbox = Outbox(8192, nothing)
    data = random.Random(9).randbytes(1 << 20)
    got: list[bytes] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set() or outbox:
            got.append(sent(outbox))
            time.sleep(0.0002)

    sending = in_thread(loop)
    copies = 0
    with storm(0.0003) as weather:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            source = Unsent(data)
            copies += 1
            while not source.done:
                chunk = bytes(source.view[source.offset : source.offset + 1000])
                weather.armed = True
                try:
                    outbox.put(1, chunk, NEVER, source, source.offset + len(chunk))
                except Interrupted:
                    pass
                weather.armed = False
    stop.set()
    sending.result()
    assert weather.raised > 10
    same = b"".join(got) == data * copies
    assert same
    assert not outbox.writers
