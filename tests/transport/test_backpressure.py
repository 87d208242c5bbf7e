"""The rule by which a connection reads on or lets its peer wait, as a table."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest
from support import eventually, in_thread, seconds

from kubews.errors import BufferFull
from kubews.transport.backpressure import DEFAULT_LIMITS, Backpressure, Limits
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.pipe import DEFAULT_LIMIT, Pipe
from kubews.transport.wait import PatientThread, Ticket, WaitQueue

OUT, ERR = 1, 2
LIMIT = 100


class Someone(PatientThread):
    """A thread that is alive until told otherwise; as patient as each test says."""

    def __init__(self) -> None:
        self.over = threading.Event()
        super().__init__(self.over.wait, "test", (seconds(30),))
        self.start()

    def end(self) -> None:
        self.over.set()
        self.join(seconds(10))


def give(pipe: Pipe, owner: threading.Thread | None, idle: float = 0.0) -> None:
    pipe._owner = lambda: owner
    pipe._when = time.monotonic() - idle


@dataclass
class Scene:
    """Two pipes, a queue of others, and three threads."""

    total: Any = 10_000
    pipes: dict[int, Pipe] = field(
        default_factory=lambda: {OUT: Pipe(limit=LIMIT), ERR: Pipe(limit=LIMIT)}
    )
    others: WaitQueue = field(default_factory=WaitQueue)
    anna: Someone = field(default_factory=Someone)
    ben: Someone = field(default_factory=Someone)

    def rule(self) -> Backpressure:
        return Backpressure(
            self.pipes,
            {0: "stdin", OUT: "stdout", ERR: "stderr"},
            [self.others],
            Limits(inbound=LIMIT, total=self.total),
            "pod shop/web-0",
        )

    def fill(self, *ids: int, size: int = LIMIT) -> None:
        for stream_id in ids:
            self.pipes[stream_id].feed(memoryview(bytes(size)))

    def park(self, thread: threading.Thread, queue: WaitQueue) -> Ticket:
        ticket = Ticket()
        ticket.thread = thread
        ticket.patient = False
        queue.add(ticket)
        return ticket


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.anna.end()
    scene.ben.end()


def test_limits() -> None:
    assert Limits(inbound=DEFAULT_LIMIT, total=256 << 20, outbound=1 << 20) == DEFAULT_LIMITS
    assert DEFAULT_LIMIT == 4 << 20


@pytest.mark.parametrize("resuming", [False, True])
def test_nobody_is_full(scene: Scene, resuming: bool) -> None:
    assert scene.rule().may_read(resuming)
    scene.fill(OUT, ERR, size=LIMIT // 2)
    assert scene.rule().may_read(resuming)


def test_half_must_be_free_to_resume(scene: Scene) -> None:
    scene.fill(OUT, size=LIMIT // 2 + 1)
    assert scene.rule().may_read(resuming=False)
    assert not scene.rule().may_read(resuming=True)
    scene.fill(OUT, size=LIMIT)
    assert not scene.rule().may_read(resuming=False)


# who owns the full stdout; who waits, and for what; whether it owns it elsewhere; the verdict
TABLE: dict[str, tuple[Any, list[tuple[str, Any]], bool]] = {
    "nobody waits": (None, [], False),
    "nobody waits, an owner at work": ("anna", [], False),
    "one waits for stderr": (None, [("anna", ERR)], True),
    "one waits for the status": (None, [("anna", "others")], True),
    "the owner itself waits for stderr": ("anna", [("anna", ERR)], True),
    "the owner itself waits for the status": ("anna", [("anna", "others")], True),
    "another waits while the owner is at work": ("anna", [("ben", ERR)], False),
    "another waits for the status while the owner is at work": ("anna", [("ben", "others")], False),
    "owner and another wait": ("anna", [("anna", "others"), ("ben", ERR)], True),
    "another waits, the owner has died": ("dead", [("ben", ERR)], True),
    "one waits for what is there": (None, [("anna", OUT)], False),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("resuming", [False, True])
def test_full_pipe(scene: Scene, name: str, resuming: bool) -> None:
    owner, waiting, verdict = TABLE[name]
    dead = Someone()
    dead.end()
    threads = {"anna": scene.anna, "ben": scene.ben, "dead": dead}
    scene.fill(OUT)
    give(scene.pipes[OUT], threads.get(owner))
    for who, what in waiting:
        queue = scene.others if what == "others" else scene.pipes[what].readers
        scene.park(threads[who], queue)
    assert scene.rule().may_read(resuming) == verdict


def test_an_owner_of_a_pipe_with_room_does_not_count(scene: Scene) -> None:
    scene.fill(OUT)
    give(scene.pipes[ERR], scene.anna)
    scene.park(scene.ben, scene.others)
    assert scene.rule().may_read(False)


def test_of_two_full_pipes_one_owner_at_work_is_enough(scene: Scene) -> None:
    scene.fill(OUT, ERR)
    scene.park(scene.anna, scene.others)
    assert scene.rule().may_read(False)
    give(scene.pipes[ERR], scene.ben)
    assert not scene.rule().may_read(False)


def test_who_waits_for_an_ended_pipe_does_not_starve(scene: Scene) -> None:
    scene.fill(OUT)
    scene.park(scene.anna, scene.pipes[ERR].readers)
    scene.pipes[ERR]._ended = True  # finish() would have woken it
    assert not scene.rule().may_read(False)


@pytest.mark.parametrize("change", ["discard", "close", "unlimit", "take_all"])
def test_a_pipe_that_is_let_go_is_not_full(scene: Scene, change: str) -> None:
    scene.fill(OUT)
    assert not scene.rule().may_read(False)
    getattr(scene.pipes[OUT], change)()
    scene.fill(OUT, size=0 if change == "take_all" else 1000)
    assert scene.rule().may_read(True)


# -- the total


def test_total(scene: Scene) -> None:
    """Memory is bounded: those who wait are told which channel nobody reads, and may call again."""
    scene.fill(OUT, size=9_000)
    scene.fill(ERR, size=99)
    reader = in_thread(scene.pipes[ERR].wait_end, NEVER)  # starves for the end, not for bytes
    tickets = [scene.park(scene.anna, scene.others), scene.park(scene.ben, scene.others)]
    assert eventually(lambda: scene.pipes[ERR].readers)
    assert scene.rule().may_read(False)
    scene.fill(OUT, size=901)
    assert not scene.rule().may_read(False)
    for ticket in tickets:
        assert ticket.park(Deadline(0))
        assert isinstance(ticket.error, BufferFull)
        message = str(ticket.error)
        assert "pod shop/web-0" in message
        assert "stdout" in message
        assert "stderr" not in message
        assert "10000" in message
    assert not scene.others
    assert not scene.rule().may_read(False)  # nobody waits any more
    scene.pipes[ERR].finish()
    assert reader.result() is True


def test_total_names_all_full_channels(scene: Scene) -> None:
    scene.fill(OUT, ERR, size=6_000)
    ticket = scene.park(scene.anna, scene.others)
    assert not scene.rule().may_read(False)
    assert "stdout, stderr" in str(ticket.error)


def test_buffer_full_comes_out_of_a_parked_read(scene: Scene) -> None:
    scene.fill(OUT, size=10_000)
    reader = in_thread(scene.pipes[ERR].take, 1, NEVER)
    assert eventually(lambda: scene.pipes[ERR].starving)
    assert not scene.rule().may_read(True)
    with pytest.raises(BufferFull, match="stdout"):
        reader.result()
    assert scene.pipes[OUT].size == 10_000  # nothing is lost
    again = in_thread(scene.pipes[ERR].take, 1, NEVER)
    assert eventually(lambda: scene.pipes[ERR].starving)
    scene.pipes[OUT].take_all()
    assert scene.rule().may_read(True)
    scene.fill(ERR, size=1)
    scene.pipes[ERR].wake()
    assert again.result() == b"\0"


def test_an_owner_at_work_is_waited_for_even_beyond_the_total(scene: Scene) -> None:
    scene.fill(OUT, size=20_000)
    give(scene.pipes[OUT], scene.anna)
    ticket = scene.park(scene.ben, scene.others)
    assert not scene.rule().may_read(False)
    assert ticket.error is None


def test_who_has_read_long_ago_need_not_come_back(scene: Scene) -> None:
    """An idle worker of a pool does not; but a slow reader may, and is waited for at the total."""
    reader = threading.main_thread()
    scene.fill(OUT, ERR)
    ticket = scene.park(scene.ben, scene.others)
    give(scene.pipes[OUT], scene.anna, idle=3600)  # this one serves a file, which may be slow
    assert not scene.rule().may_read(False)
    give(scene.pipes[OUT], reader, idle=3600)
    assert scene.rule().may_read(False)
    scene.pipes[OUT].moved = True  # the thread of the loop takes, for somebody who may be slow
    assert not scene.rule().may_read(False)
    scene.pipes[OUT].moved = False
    give(scene.pipes[ERR], reader, idle=1)
    assert not scene.rule().may_read(False)
    give(scene.pipes[ERR], reader, idle=3600)
    scene.fill(OUT, size=20_000)
    assert not scene.rule().may_read(False)
    assert ticket.error is None


def test_to_take_is_to_be_at_work() -> None:
    pipe = Pipe()
    pipe.feed(memoryview(b"two"))
    assert pipe.idle > 10
    pipe.take(1, NEVER)
    assert pipe.idle < seconds(10)


def test_no_total(scene: Scene) -> None:
    scene.total = None
    scene.fill(OUT, size=1 << 20)
    ticket = scene.park(scene.anna, scene.others)
    assert scene.rule().may_read(False)
    assert ticket.error is None


def test_no_limit(scene: Scene) -> None:
    scene.pipes[OUT] = Pipe(limit=None)
    scene.fill(OUT, size=1 << 20)
    assert scene.rule().may_read(False)


def test_who_is_patient_is_neither_starving_nor_told(scene: Scene) -> None:
    scene.total = 2 * LIMIT
    scene.fill(OUT, size=3 * LIMIT)
    ticket = scene.park(scene.anna, scene.others)
    ticket.patient = True
    assert not scene.rule().starving()
    assert not scene.rule().may_read(False)
    hurried = scene.park(scene.ben, scene.others)
    assert scene.rule().starving()
    assert not scene.rule().may_read(False)
    assert isinstance(hurried.error, BufferFull)
    assert ticket.error is None
    assert not ticket.park(Deadline(0))


def test_a_thread_that_python_did_not_start_and_that_has_ended_is_not_at_work(scene: Scene) -> None:
    """On some versions it is among the living for ever."""
    found: list[threading.Thread] = []
    _thread.start_new_thread(lambda: found.append(threading.current_thread()), ())
    assert eventually(lambda: found and found[0].ident not in sys._current_frames())
    rule = scene.rule()
    scene.fill(OUT)
    give(scene.pipes[OUT], found[0])
    scene.park(scene.ben, scene.pipes[ERR].readers)
    assert rule.may_read(resuming=False)
    threading._active.pop(found[0].ident, None)


def test_ctrl_c_makes_no_dead_thread_of_one_that_is_looked_at(scene: Scene) -> None:
    """It is the user's, who may want to join it."""

    class Interrupted(BaseException):
        pass

    rule = scene.rule()
    scene.fill(OUT)
    give(scene.pipes[OUT], scene.anna)
    scene.park(scene.ben, scene.pipes[ERR].readers)
    for number in range(100):
        left = number

        def profile(frame: FrameType, event: str, arg: Any) -> None:
            nonlocal left
            if event != "c_call" and frame.f_code.co_filename == threading.__file__:
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise Interrupted

        sys.setprofile(profile)
        try:
            assert not rule.may_read(resuming=False)
        except Interrupted:
            assert scene.anna.is_alive(), number
        else:
            return
        finally:
            sys.setprofile(None)
