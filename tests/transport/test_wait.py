"""Waiting: no wake-up is lost, and neither a lock nor a ticket is left behind, whatever interrupts."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest
from interrupts import Interrupted, interrupt, points, run_with, storm
from support import eventually, in_thread, seconds, time_limit

from kubews.errors import BufferFull, ConnectionLost
from kubews.transport import forks, wait
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.wait import (
    DaemonThread,
    Expired,
    Outcome,
    PatientThread,
    Ticket,
    WaitQueue,
    fresh,
    nothing,
    wait_for,
)


class Owner(NamedTuple):
    """What a lock guards."""

    lock: AbstractContextManager[object]

    @property
    def _lock(self) -> AbstractContextManager[object]:
        return self.lock


def parked(queue: WaitQueue, count: int = 1) -> bool:
    return eventually(lambda: len(queue.starving()) == count)


# -- tickets


def test_ticket_times_out() -> None:
    began = time.monotonic()
    assert not Ticket().park(Deadline(0.05))
    assert time.monotonic() - began >= 0.05
    assert not Ticket().park(Deadline(0))
    assert not Ticket().park(Deadline(-1))
    assert not Ticket().park(Deadline(math.nan))


def test_ticket_released_before_it_is_parked() -> None:
    ticket = Ticket()
    ticket.release()
    assert ticket.park(Deadline(0))
    assert not ticket.park(Deadline(0))


def test_ticket_released_twice_lets_one_park_return() -> None:
    ticket = Ticket()
    ticket.release()
    ticket.release()
    assert ticket.park(NEVER)
    assert not ticket.park(Deadline(0))


@pytest.mark.parametrize("timeout", [None, math.inf, 1e12])
def test_ticket_parks_for_ever(timeout: float | None) -> None:
    ticket = Ticket()
    waiter = in_thread(ticket.park, Deadline(timeout))
    assert waiter.running
    ticket.release()
    assert waiter.result() is True


def test_ticket_parks_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where Ctrl-C does not interrupt a lock."""
    monkeypatch.setattr(wait, "_SLICE", 0.001)
    assert not Ticket().park(Deadline(0.02))
    ticket = Ticket()
    waiter = in_thread(ticket.park, NEVER)
    waiter.thread.join(0.02)
    assert waiter.running
    ticket.release()
    assert waiter.result() is True


# -- the queue


def test_queue() -> None:
    queue = WaitQueue()
    assert not queue
    assert queue.starving() == []
    queue.wake_all()
    first, second = Ticket(), Ticket()
    queue.add(first)
    queue.add(second)
    assert queue
    assert queue.starving() == [threading.current_thread()] * 2
    queue.wake_all()
    assert not queue
    assert first.park(Deadline(0))
    assert second.park(Deadline(0))


class Recording(Ticket):
    """A ticket that tells when it is released."""

    __slots__ = ("on_release",)

    def __init__(self, on_release: Callable[[Ticket], None]) -> None:
        super().__init__()
        self.on_release = on_release

    def release(self) -> None:
        self.on_release(self)
        super().release()


def test_wake_in_the_order_of_arrival() -> None:
    queue, woken = WaitQueue(), list[Ticket]()
    tickets = [Recording(woken.append) for _ in range(5)]
    for ticket in tickets:
        queue.add(ticket)
    queue.wake_all()
    assert woken == tickets


def test_who_comes_back_at_once_is_not_woken_again() -> None:
    """A waker that took newcomers too would go round for ever with those who find nothing."""
    queue, woken = WaitQueue(), list[Ticket]()

    def release(ticket: Ticket) -> None:
        woken.append(ticket)
        assert len(woken) < 10
        queue.add(Recording(release))

    queue.add(Recording(release))
    queue.wake_all()
    assert len(woken) == 1
    assert len(queue.starving()) == 1


def test_two_wakers_at_once() -> None:
    """Both may hold the same ticket."""
    queue, ticket = WaitQueue(), Recording(lambda _: queue_again())

    def queue_again() -> None:
        ticket.on_release = lambda _: None
        queue.wake_all(BufferFull("x"))

    queue.add(ticket)
    queue.wake_all()
    assert not queue
    assert ticket.park(Deadline(0))
    assert isinstance(ticket.error, BufferFull)


def test_interrupted_waker() -> None:
    """Ctrl-C in a waker: whom it has not woken the next one wakes."""
    for number in points():
        queue, tickets = WaitQueue(), [Ticket() for _ in range(3)]
        for ticket in tickets:
            queue.add(ticket)
        try:
            _, reached = run_with(queue.wake_all, number, interrupt)
        except Interrupted:
            reached = True
        queue.wake_all()
        assert [ticket.park(Deadline(0)) for ticket in tickets] == [True] * 3
        assert not queue
        if not reached:
            assert number > 5
            return


# -- wait_for


def test_what_is_there_is_not_waited_for() -> None:
    lock, queue, calls = threading.RLock(), WaitQueue(), list[str]()

    def look() -> int:
        assert lock._is_owned()  # type: ignore[attr-defined]
        calls.append("look")
        return 0  # anything but None

    assert wait_for(Owner(lock), queue, look, Deadline(0), lambda: calls.append("park")) == 0
    assert calls == ["look"]


def test_a_value_that_comes_with_the_deadline_is_taken() -> None:
    """The last look is taken when the time is up, so what came unannounced is found."""
    lock, queue, looks = threading.RLock(), WaitQueue(), iter([None, None, "late"])
    assert wait_for(Owner(lock), queue, lambda: next(looks), Deadline(0), nothing) == "late"
    assert not queue


def test_timeout_leaves_nothing() -> None:
    lock, queue = threading.RLock(), WaitQueue()
    assert wait_for(Owner(lock), queue, lambda: None, Deadline(0.01), nothing) is None
    assert not queue
    assert not lock._is_owned()  # type: ignore[attr-defined]


def test_parking_is_called_without_the_lock_and_before_each_park() -> None:
    lock, queue, values = threading.RLock(), WaitQueue(), list[int]()

    def parking() -> None:
        assert not lock._is_owned()  # type: ignore[attr-defined]
        assert len(queue.starving()) == 1
        values.append(0)
        queue.wake_all()

    found = wait_for(
        Owner(lock), queue, lambda: len(values) if len(values) == 3 else None, NEVER, parking
    )
    assert found == 3


@pytest.mark.parametrize("round_", [0, 1, 2])
def test_exception_of_a_look(round_: int) -> None:
    lock, queue, looks = threading.RLock(), WaitQueue(), list[int]()

    def look() -> None:
        looks.append(0)
        if len(looks) > round_:
            raise ValueError

    with pytest.raises(ValueError):
        wait_for(Owner(lock), queue, look, Deadline(0), nothing)
    assert not queue
    assert not lock._is_owned()  # type: ignore[attr-defined]


def test_exception_of_parking() -> None:
    lock, queue = threading.RLock(), WaitQueue()

    def parking() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        wait_for(Owner(lock), queue, lambda: None, NEVER, parking)
    assert not queue


def test_error_through_the_queue() -> None:
    """BufferFull comes out of the parked call, a copy for each, and the call can be made again."""
    lock, queue, value = threading.RLock(), WaitQueue(), list[int]()
    error = BufferFull("nobody reads stdout")
    error.__cause__ = OSError("x")

    def call() -> Any:
        try:
            return wait_for(Owner(lock), queue, lambda: value or None, NEVER, nothing)
        except BufferFull as exc:
            return exc

    waiters = [in_thread(call) for _ in range(3)]
    assert parked(queue, 3)
    queue.wake_all(error)
    caught = [waiter.result() for waiter in waiters]
    assert len({*map(id, caught), id(error)}) == 4
    assert {exc.args for exc in caught} == {error.args}
    assert {exc.__cause__ for exc in caught} == {error.__cause__}
    assert not queue
    again = in_thread(call)
    assert parked(queue)
    value.append(7)
    queue.wake_all()
    assert again.result() == [7]


def test_no_wake_up_is_lost() -> None:
    """Two threads move a counter from hand to hand; a lost wake-up would leave both waiting."""
    lock, queue, count = threading.RLock(), WaitQueue(), [0]
    rounds = 1500

    def player(mine: int) -> None:
        for turn in range(mine, rounds, 3):
            found = wait_for(
                Owner(lock),
                queue,
                lambda turn=turn: True if count[0] == turn else None,
                Deadline(seconds(20)),
                nothing,
            )
            assert found
            with lock:
                count[0] += 1
            queue.wake_all()

    for waiter in [in_thread(player, mine) for mine in range(3)]:
        waiter.result(30)
    assert count == [rounds]
    assert not queue


def wait_under_interrupt(deadline: Deadline, number: int) -> bool:
    """Wait, with an interrupt at a point; return whether there was such a point."""
    lock, queue, value = threading.RLock(), WaitQueue(), list[int]()

    def parking() -> None:
        if deadline is NEVER:
            value.append(1)
            queue.wake_all()

    try:
        _, reached = run_with(
            lambda: wait_for(Owner(lock), queue, lambda: value or None, deadline, parking),
            number,
            interrupt,
        )
    except Interrupted:
        reached = True
    assert not queue, number
    assert not lock._is_owned(), number  # type: ignore[attr-defined]
    return reached


@pytest.mark.parametrize("deadline", [NEVER, Deadline(0)], ids=["woken", "timeout"])
def test_interrupted_at_every_point(deadline: Deadline) -> None:
    """Ctrl-C anywhere in a wait leaves no lock and no ticket, also where the wait was over."""
    for number in points():
        if not wait_under_interrupt(deadline, number):
            assert number > 10
            return


def answer_in_handler(number: int) -> bool:
    """Let a signal handler change at one point what is waited for; return whether there was such a point."""
    owner, queue, values = Owner(threading.RLock()), WaitQueue(), list[str]()

    def change(name: str) -> None:
        if not values:
            values.append(name)
            queue.wake_all()

    with time_limit(10):
        _, reached = run_with(
            lambda: wait_for(
                owner, queue, lambda: values or None, NEVER, lambda: change("as usual")
            ),
            number,
            lambda: change("by the handler"),
        )
    return reached


def test_a_handler_of_the_same_thread_wakes_it_wherever_it_comes() -> None:
    """For the lock keeps the other threads out only."""
    assert next(number for number in points() if not answer_in_handler(number)) > 10


def test_storm_of_interrupts() -> None:
    """R-9: a wait is interrupted at once, over and over, and leaves no lock and no ticket."""
    outcome: Outcome[int] = Outcome()
    lost = 0
    with storm(0.0005) as weather:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            weather.armed = True
            try:
                outcome.get(Deadline(random.uniform(0, 0.002)))
            except Interrupted:
                lost += 1
            except TimeoutError:
                pass
            if outcome.waiters.tickets or outcome._lock._is_owned():  # type: ignore[attr-defined]
                break
    assert not outcome.waiters
    assert not outcome._lock._is_owned()  # type: ignore[attr-defined]
    assert lost == weather.raised > 10
    in_thread(outcome.set, 5).result()
    assert outcome.get(NEVER) == 5


def test_a_wait_within_the_lock_of_the_forks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that would answer begins with that lock; one that has a deadline may keep it."""
    monkeypatch.setattr(wait, "_SLICE", 0.02)

    def waits() -> None:
        with forks.lock:
            with pytest.raises(RuntimeError, match="raise an exception in the handler"):
                Outcome[int]().get(NEVER)
            with pytest.raises(Expired):
                Outcome[int]().get(Deadline(0.1))

    waits()
    in_thread(waits).result()  # any thread runs finalizers


# -- outcomes


def test_outcome() -> None:
    outcome: Outcome[str] = Outcome()
    assert not outcome.done()
    with pytest.raises(TimeoutError):
        outcome.get(Deadline(0))
    assert outcome.set("first")
    assert outcome.done()
    assert not outcome.set("second")
    assert not outcome.set_exception(OSError())
    assert outcome.get(Deadline(0)) == outcome.get(NEVER) == "first"


def test_outcome_of_none() -> None:
    outcome: Outcome[None] = Outcome()
    outcome.set(None)
    assert outcome.get(Deadline(0)) is None


def test_outcome_of_an_exception() -> None:
    """Each ``get`` raises a copy, so that tracebacks do not gather and threads do not share one."""
    outcome: Outcome[str] = Outcome()
    lost = ConnectionLost("gone", received={"stdout": 3})
    lost.__cause__ = EOFError("x")
    assert outcome.set_exception(lost)
    assert not outcome.set("value")
    caught = []
    for _ in range(3):
        with pytest.raises(ConnectionLost) as info:
            outcome.get(NEVER)
        caught.append(info.value)
    assert len(set(map(id, [lost, *caught]))) == 4
    assert {str(exc) for exc in caught} == {"gone"}
    assert caught[0].received == {"stdout": 3}
    assert caught[0].__cause__ is lost.__cause__
    assert lost.__traceback__ is None


def test_outcome_wakes_all() -> None:
    parks: list[int] = []
    outcome: Outcome[int] = Outcome(lambda: parks.append(1))
    waiters = [in_thread(outcome.get, NEVER) for _ in range(8)]
    assert parked(outcome.waiters, 8)
    assert outcome.set(3)
    assert [waiter.result() for waiter in waiters] == [3] * 8
    assert len(parks) == 8
    assert not outcome.waiters


def test_outcome_has_one_winner() -> None:
    for _ in range(50):
        outcome: Outcome[int] = Outcome()
        start = threading.Barrier(4)

        def contend(number: int, outcome: Any = outcome, start: Any = start) -> tuple[int, bool]:
            start.wait(seconds(10))
            return number, outcome.set(number)

        results = [waiter.result() for waiter in [in_thread(contend, n) for n in range(4)]]
        assert [number for number, won in results if won] == [outcome.get(NEVER)]


def test_interrupted_set() -> None:
    """Ctrl-C in ``set``: either nothing is set, or setting again wakes whom the first did not."""
    for number in points():
        outcome: Outcome[int] = Outcome()
        ticket = Ticket()
        outcome.waiters.add(ticket)
        try:
            _, reached = run_with(lambda outcome=outcome: outcome.set(1), number, interrupt)
        except Interrupted:
            reached = True
        assert not outcome._lock._is_owned()  # type: ignore[attr-defined]
        outcome.set(1)
        assert ticket.park(Deadline(0)), number
        assert outcome.get(NEVER) == 1
        if not reached:
            assert number > 5
            return


# -- copies of exceptions


class Picky(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.hint = hint


class Prefixed(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"failed: {text}")


def exceptions() -> Iterator[Exception]:
    yield OSError(2, "no such file", "x")
    yield ValueError()
    yield ConnectionLost("gone", received={"a": 1}, partial=b"x")
    with pytest.raises(UnicodeDecodeError) as info:
        b"\xff".decode()
    yield info.value


def test_fresh() -> None:
    for exc in exceptions():
        exc.__cause__ = KeyError()
        twin = fresh(exc)
        assert twin is not exc
        assert (type(twin), twin.args, str(twin)) == (type(exc), exc.args, str(exc))
        assert twin.__dict__ == exc.__dict__
        assert twin.__cause__ is exc.__cause__
        assert twin.__traceback__ is None


@pytest.mark.parametrize("exc", [Picky(3, hint="x"), Prefixed("x")])
def test_exception_that_cannot_be_copied(exc: Exception) -> None:
    """As other people's often cannot: it comes as it is, and not as a TypeError in its place."""
    assert fresh(exc) is exc
    outcome: Outcome[None] = Outcome()
    outcome.set_exception(exc)
    with pytest.raises(type(exc)) as info:
        outcome.get(NEVER)
    assert info.value is exc


# -- threads


@pytest.mark.parametrize("kind", [DaemonThread, PatientThread])
def test_ctrl_c_in_the_start_of_a_thread_is_ctrl_c_r49(
    kind: type[DaemonThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-49: CPython's own lock may turn it into another exception."""
    start, ran = threading.Thread.start, threading.Event()

    def interrupted(self: threading.Thread) -> None:
        start(self)
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kind(ran.set, "test").start()
    assert ran.wait(seconds(10))


def test_a_thread_that_cannot_be_started_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    try:
        raise ValueError
    except ValueError:  # whatever it stands in the context of
        with pytest.raises(RuntimeError, match="can't start new thread"):
            DaemonThread(print, "test").start()
