"""The loop: posts from anywhere, timers in order, descriptors, and an end that everybody hears of."""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Optional

import pytest
from support import eventually, in_thread, resources, seconds

from kubews.transport import forks
from kubews.transport import loop as module
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.loop import Loop, Timer, Waker
from kubews.transport.wait import Outcome

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def soon() -> Deadline:
    return Deadline(seconds(10))


@pytest.fixture(params=["eventfd", "socketpair"])
def waking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to wake; the second is that of systems without eventfd."""
    if request.param == "socketpair":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("no eventfd here")
    return str(request.param)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("loop under test")
    yield loop
    loop.stop()
    loop.join(seconds(10))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def run_in(loop: Loop, function: Callable[[], Any]) -> Any:
    """Run in the loop's thread and return the result."""
    result: Outcome[Any] = Outcome()

    def run() -> None:
        try:
            result.set(function())
        except Exception as exc:
            result.set_exception(exc)

    loop.call_soon(run)
    return result.get(soon())


def end_of(loop: Loop) -> Outcome[Optional[BaseException]]:
    """Return what the loop will tell when it ends."""
    told: Outcome[Optional[BaseException]] = Outcome()
    run_in(loop, lambda: loop.on_end(lambda exc: told.set(exc) and None))
    return told


# -- posts


def test_posts_run_in_order_in_the_thread_of_the_loop(loop: Loop) -> None:
    seen: list[Any] = []
    for number in range(100):
        loop.call_soon(seen.append, number)
    thread = run_in(loop, threading.current_thread)
    assert seen == list(range(100))
    assert (thread.name, thread.daemon) == ("loop under test", True)
    assert run_in(loop, loop.is_current)
    assert not loop.is_current()


def test_posts_of_posts(loop: Loop) -> None:
    """A post runs after those that were there, and a flood of them does not keep descriptors waiting."""
    ready: Outcome[int] = Outcome()
    count = [0]

    def again() -> None:
        count[0] += 1
        if not ready.done():
            loop.call_soon(again)

    ends = socket.socketpair()
    run_in(loop, lambda: loop.register(ends[0], READ, ready.set))
    loop.call_soon(again)
    ends[1].send(b"x")
    assert ready.get(soon()) == READ
    run_in(loop, lambda: loop.register(ends[0], 0, lambda _: None))
    for end in ends:
        end.close()


def test_no_post_is_lost(waking: str) -> None:
    """Each post finds the loop about to sleep; a lost wake-up would never be answered."""
    loop = Loop("x")
    for _ in range(1500):
        answer: Outcome[bool] = Outcome()
        loop.call_soon(answer.set, True)
        assert answer.get(soon())
    loop.stop()
    loop.join(seconds(10))
    assert loop.ended.done()


def test_posts_from_many_threads(loop: Loop) -> None:
    seen: list[tuple[int, int]] = []

    def post(number: int) -> None:
        for count in range(500):
            loop.call_soon(seen.append, (number, count))

    for poster in [in_thread(post, number) for number in range(6)]:
        poster.result()
    run_in(loop, lambda: None)
    assert len(seen) == 3000
    for number in range(6):
        assert [count for who, count in seen if who == number] == list(range(500))


def test_post_from_a_signal_handler(loop: Loop) -> None:
    done: Outcome[bool] = Outcome()
    previous = signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon(done.set, True))
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert done.get(soon())
    finally:
        signal.signal(signal.SIGUSR1, previous)


class Forgotten:
    """Posts when it is collected; in a cycle, so that the collector decides when."""

    def __init__(self, post: Callable[[], None]) -> None:
        self.post = post
        self.cycle = self

    def __del__(self) -> None:
        self.post()


def test_post_from_a_finalizer(loop: Loop) -> None:
    done: Outcome[bool] = Outcome()
    Forgotten(lambda: loop.call_soon(done.set, True))
    gc.collect()
    assert done.get(soon())


def test_nothing_waits_in_the_thread_of_the_loop(loop: Loop) -> None:
    """As a finalizer of the user's might, which the collector runs in whatever thread it likes."""
    with pytest.raises(RuntimeError, match="may wait for that thread"):
        run_in(loop, partial(Outcome[int]().get, NEVER))
    assert run_in(loop, lambda: 5) == 5


def test_post_after_the_end() -> None:
    """It never runs, raises nothing, and keeps nothing alive."""
    loop = Loop("x")
    loop.stop()
    loop.join(seconds(10))
    ran: list[int] = []

    class Owner:
        def method(self) -> None:
            ran.append(1)

    owner = Owner()
    remembered = weakref.ref(owner)
    loop.call_soon(owner.method)
    loop.stop()
    del owner
    gc.collect()
    assert remembered() is None
    assert not ran


# -- timers


def test_timers_in_order(loop: Loop) -> None:
    seen: list[str] = []
    done: Outcome[bool] = Outcome()

    def start() -> None:
        # So far from one another that this thread may stand still for a moment between them.
        loop.call_later(0.6, lambda: done.set(True) and None)
        loop.call_later(0.4, lambda: seen.append("c"))
        loop.call_later(0.0, lambda: seen.append("a"))
        loop.call_later(0.2, lambda: seen.append("b1"))
        loop.call_later(0.2, lambda: seen.append("b2"))
        loop.call_later(-5, lambda: seen.append("at once"))

    began = time.monotonic()
    run_in(loop, start)
    assert done.get(soon())
    assert time.monotonic() - began >= 0.6
    assert seen == ["at once", "a", "b1", "b2", "c"]


def test_timers_of_the_same_instant_are_fair(loop: Loop) -> None:
    """Nothing but the sequence decides, for functions cannot be compared."""
    seen: list[int] = []

    def start() -> None:
        for number in range(50):
            timer = Timer(0.0, lambda number=number: seen.append(number))
            module.heapq.heappush(loop._timers, (0.0, next(loop._sequence), timer))

    run_in(loop, start)
    assert eventually(lambda: seen == list(range(50)))


def test_cancel(loop: Loop) -> None:
    seen: list[str] = []
    done: Outcome[bool] = Outcome()

    def start() -> None:
        first = loop.call_later(0.0, lambda: seen.append("first"))
        second = loop.call_later(0.3, lambda: seen.append("second"))
        loop.call_later(0.3, lambda: done.set(True) and None)
        loop.call_later(0.05, second.cancel)
        first.cancel()
        first.cancel()

    run_in(loop, start)
    assert done.get(soon())
    assert seen == []


def test_timer_cancelled_by_another_of_the_same_round(loop: Loop) -> None:
    seen: list[str] = []

    def start() -> None:
        victim: list[Timer] = []
        loop.call_later(0.0, lambda: victim[0].cancel())
        victim.append(loop.call_later(0.0, lambda: seen.append("victim")))
        loop.call_later(0.0, lambda: seen.append("third"))

    run_in(loop, start)
    assert eventually(lambda: seen)
    assert seen == ["third"]


def test_cancelled_timers_do_not_wake(loop: Loop) -> None:
    run_in(loop, lambda: loop.call_later(0.5, lambda: None).cancel())
    run_in(loop, lambda: None)
    assert eventually(lambda: not loop._timers)


@pytest.mark.parametrize("delay", [1e7, 1e12, float("inf")])
def test_timer_in_a_distant_future(loop: Loop, delay: float) -> None:
    """No selector takes such a timeout: the loop must not die of it."""
    timer = run_in(loop, lambda: loop.call_later(delay, lambda: None))
    assert eventually(lambda: loop._sleeping)
    assert run_in(loop, lambda: loop._until_timer()) == 3600
    run_in(loop, timer.cancel)


# -- descriptors


def test_register_modify_unregister(loop: Loop, pair: Any) -> None:
    near, far = pair
    events: list[int] = []
    done: list[Outcome[int]] = [Outcome(), Outcome()]

    def writable(ready: int) -> None:
        events.append(ready)
        loop.register(near, READ, readable)
        done[0].set(ready)

    def readable(ready: int) -> None:
        events.append(ready)
        assert near.recv(10) == b"hello"
        loop.register(near, 0, readable)
        loop.register(near, 0, readable)  # not watched: nothing
        done[1].set(ready)

    run_in(loop, lambda: loop.register(near, WRITE, writable))
    assert done[0].get(soon()) == WRITE
    far.send(b"hello")
    assert done[1].get(soon()) == READ
    far.send(b"unseen")
    run_in(loop, lambda: None)
    run_in(loop, lambda: None)
    assert events == [WRITE, READ]


def test_both_events_at_once(loop: Loop, pair: Any) -> None:
    near, far = pair
    far.send(b"x")
    ready: Outcome[int] = Outcome()

    def callback(events: int) -> None:
        ready.set(events)
        loop.register(near, 0, callback)

    run_in(loop, lambda: loop.register(near, READ | WRITE, callback))
    assert ready.get(soon()) == READ | WRITE


@pytest.mark.parametrize("closing", [False, True])
def test_callback_that_takes_another_out(loop: Loop, closing: bool) -> None:
    """Two are ready in one round: whoever is first takes the other out, and may close it."""
    pairs = [socket.socketpair() for _ in range(2)]
    ran: list[int] = []

    def callback(number: int) -> Callable[[int], None]:
        def run(events: int) -> None:
            ran.append(number)
            other = pairs[1 - number][0]
            loop.register(other, 0, run)
            loop.register(pairs[number][0], 0, run)
            if closing:
                other.close()

        return run

    def start() -> None:
        for number in range(2):
            loop.register(pairs[number][0], READ, callback(number))
        for _, far in pairs:
            far.send(b"x")

    told = end_of(loop)
    run_in(loop, start)
    assert eventually(lambda: ran)
    run_in(loop, lambda: None)
    assert len(ran) == 1
    assert not told.done()
    for ends in pairs:
        for end in ends:
            end.close()


def test_a_number_that_is_used_again(loop: Loop) -> None:
    """The descriptor of a closed socket may be another's within the round; its readiness is not."""
    pairs = [socket.socketpair() for _ in range(2)]
    ran: list[str] = []
    replaced: list[socket.socket] = []

    def first(number: int) -> Callable[[int], None]:
        def run(events: int) -> None:
            ran.append("first")
            other = pairs[1 - number][0]
            where, ends = other.fileno(), socket.socketpair()
            for end in (other, pairs[number][0]):
                loop.register(end, 0, run)
            other.close()
            os.dup2(ends[0].fileno(), where)
            again = socket.socket(fileno=where)
            replaced.extend([*ends, again])
            loop.register(again, READ, lambda _: ran.append("stranger"))

        return run

    def start() -> None:
        for number in range(2):
            loop.register(pairs[number][0], READ, first(number))
        for _, far in pairs:
            far.send(b"x")

    run_in(loop, start)
    assert eventually(lambda: ran)
    run_in(loop, lambda: None)
    assert ran == ["first"]
    run_in(loop, lambda: loop.register(replaced[2], 0, lambda _: None))
    for end in [*replaced, *(end for ends in pairs for end in ends)]:
        end.close()


def test_callback_changed_within_the_round(loop: Loop) -> None:
    """What is registered now is what is called."""
    pairs = [socket.socketpair() for _ in range(2)]
    ran: list[str] = []

    def old(number: int) -> Callable[[int], None]:
        def run(events: int) -> None:
            ran.append("old")
            other = pairs[1 - number][0]
            loop.register(pairs[number][0], 0, run)
            loop.register(other, READ, lambda _: (ran.append("new"), loop.register(other, 0, run)))

        return run

    def start() -> None:
        for number in range(2):
            loop.register(pairs[number][0], READ, old(number))
        for _, far in pairs:
            far.send(b"x")

    run_in(loop, start)
    assert eventually(lambda: len(ran) == 2)
    assert ran == ["old", "new"]
    for ends in pairs:
        for end in ends:
            end.close()


# -- the end


def test_stop(waking: str) -> None:
    before = resources()
    loop = Loop("x")
    told = end_of(loop)
    assert not loop.ended.done()
    loop.stop()
    loop.stop()
    loop.join(seconds(10))
    assert told.get(soon()) is None
    assert loop.ended.get(soon()) is None
    assert resources() == before


def test_stop_from_within(loop: Loop) -> None:
    """What is running is finished; what is posted behind it is not begun."""
    seen: list[str] = []

    def last() -> None:
        loop.stop()
        loop.join(None)  # from within: at once
        loop.call_soon(seen.append, "too late")
        seen.append("last")

    loop.call_soon(last)
    loop.join(seconds(10))
    assert loop.ended.done()
    assert seen == ["last"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["post", "timer", "descriptor"])
def test_exception_ends_the_loop(kind: type[BaseException], where: str, pair: Any) -> None:
    loop = Loop("x")
    told = end_of(loop)
    failure = kind("bug")

    def fail(*_: Any) -> None:
        raise failure

    def start() -> None:
        if where == "timer":
            loop.call_later(0, fail)
        elif where == "descriptor":
            loop.register(pair[0], WRITE, fail)
        else:
            loop.call_soon(fail)

    loop.call_soon(start)
    assert told.get(soon()) is failure
    loop.join(seconds(10))
    assert loop.ended.done()


def test_all_are_told_of_the_end_in_the_thread_of_the_loop() -> None:
    loop = Loop("x")
    threads: list[Any] = []
    for _ in range(3):
        run_in(loop, lambda: loop.on_end(lambda _: threads.append(threading.current_thread())))
    loop.stop()
    loop.join(seconds(10))
    assert [thread.name for thread in threads] == ["x"] * 3


def test_exception_of_who_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug there is shown, and neither descriptors nor waiters are left."""
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_value))
    before = resources()
    loop = Loop("x")
    failure = ValueError("bug")

    def fail(_: Any) -> None:
        raise failure

    run_in(loop, lambda: loop.on_end(fail))
    loop.stop()
    loop.ended.get(soon())
    loop.join(seconds(10))
    assert shown == [failure]
    shown.clear()
    assert eventually(lambda: resources() == before)


def test_what_is_posted_at_the_end_is_let_go() -> None:
    loop = Loop("x")
    started, go_on = threading.Event(), threading.Event()

    class Owner:
        def method(self) -> None:
            raise AssertionError("ran")

    def block() -> None:
        started.set()
        go_on.wait(seconds(10))
        loop.stop()

    owner = Owner()
    remembered = weakref.ref(owner)
    loop.call_soon(block)
    assert started.wait(seconds(10))
    loop.call_soon(owner.method)
    run = [loop.call_soon]  # the bound method keeps the loop, not the owner
    go_on.set()
    loop.join(seconds(10))
    del owner
    gc.collect()
    assert remembered() is None
    assert run


def test_loops_leave_nothing_behind(waking: str) -> None:
    before = resources()
    for _ in range(20):
        loop = Loop("x")
        run_in(loop, lambda: None)
        loop.stop()
        loop.join(seconds(10))
    assert resources() == before


def test_thread_that_cannot_be_started(waking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many threads, or the interpreter exits: no descriptor may be lost with it."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = resources()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        Loop("x")
    assert resources() == before


# -- the waker


def readable(waker: Waker) -> bool:
    with selectors.PollSelector() as selector:
        selector.register(waker.fileno, READ)
        return bool(selector.select(0))


def test_waker(waking: str) -> None:
    waker = Waker()
    assert not readable(waker)
    waker.drain()
    for _ in range(3):
        waker.wake()
    assert readable(waker)
    waker.drain()
    assert not readable(waker)
    waker.close()
    waker.close()
    waker.wake()


def test_waker_is_never_full(waking: str) -> None:
    waker = Waker()
    if waking == "eventfd":
        os.eventfd_write(waker.fileno, 2**64 - 2)
    for _ in range(3000 if waking == "socketpair" else 3):
        waker.wake()
    assert readable(waker)
    while readable(waker):
        waker.drain()
    waker.close()


def test_late_wake_spares_a_stranger_with_the_same_number(waking: str) -> None:
    waker = Waker()
    number = waker.fileno
    near, far = socket.socketpair()
    waker.close()
    os.dup2(near.fileno(), number)
    try:
        waker.wake()
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)
    finally:
        os.close(number)
        near.close()
        far.close()


def test_wake_within_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or a signal handler may wake in the middle of a wake."""
    waker = Waker()
    write, inner = os.eventfd_write, [1]

    def eventfd_write(fd: int, value: int) -> None:
        if inner:
            inner.pop()
            waker.wake()
        write(fd, value)

    monkeypatch.setattr(os, "eventfd_write", eventfd_write)
    waker.wake()
    assert os.eventfd_read(waker.fileno) == 2
    waker.close()


def test_descriptors_are_not_inherited(waking: str) -> None:
    waker = Waker()
    assert not os.get_inheritable(waker.fileno)
    waker.close()


def test_a_loop_that_is_started_later() -> None:
    loop = Loop("later", start=False)
    ran = threading.Event()
    loop.call_soon(ran.set)
    loop.join(1)  # there is nothing to wait for
    assert not ran.is_set()
    loop.start()
    assert ran.wait(seconds(5))
    loop.stop()
    loop.join(seconds(5))


def test_a_loop_that_never_starts_keeps_no_descriptor() -> None:
    Loop("never", start=False).stop()


def test_an_interrupted_start_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop("interrupted", start=False)
    original = loop._thread.start

    def start() -> None:
        original()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        loop.start()
    loop.join(seconds(5))
    assert not loop._thread.is_alive()


def test_a_waker_that_nobody_closes_closes_itself() -> None:
    Waker()


@pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="there are no such alarms on this system"
)
def test_an_interrupted_join_takes_no_living_thread_for_dead(loop: Loop) -> None:
    """Or nobody would wait for it any more, when the interpreter exits above all."""

    class Alarm(BaseException):
        pass

    def handler(*_: object) -> None:
        raise Alarm

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Alarm):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            loop.join(seconds(10))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert loop._thread.is_alive()
    started = time.monotonic()
    loop.join(0.05)
    assert time.monotonic() - started >= 0.05


def test_what_a_signal_handler_raises_during_a_start_is_not_taken_for_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = module.ServingThread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise RuntimeError("of the handler")

    monkeypatch.setattr(module.ServingThread, "start", interrupted)
    loop = Loop("test", start=False)
    with pytest.raises(RuntimeError, match="of the handler"):
        loop.start()
    loop.ended.get(Deadline(seconds(5)))
    loop.join(seconds(5))


def test_who_is_forgotten_is_not_told_of_the_end() -> None:
    loop, told = Loop("test"), []

    def prepare() -> None:
        for function in (told.append, print, lambda exc: told.append("second")):
            loop.on_end(function)
        loop.forget(told.append)
        loop.forget(print)
        loop.forget(print)

    loop.call_soon(prepare)
    loop.call_soon(loop.stop)
    loop.join(seconds(5))
    assert told == ["second"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_before_a_close_finds_what_to_close() -> None:
    waker = Waker()
    with forks.lock:  # as around a fork
        closing = in_thread(waker.close)
        time.sleep(0.1)
        assert closing.running
        waker.wake()  # as a finalizer might
        assert waker._close_fds.alive
    closing.result()
    assert not waker._close_fds.alive


def test_a_finalizer_amid_a_waker_may_take_the_lock_of_the_forks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector may run one wherever it is: neither lock is waited for under the other."""
    monkeypatch.delattr(os, "eventfd", raising=False)
    waker, within, go = Waker(), threading.Event(), threading.Event()
    us, other = waker._sockets

    class Slow:
        def send(self, data: bytes) -> None:
            other.send(data)
            within.set()
            go.wait()
            forks.tell(waker)  # what the finalizer does

        def close(self) -> None:
            other.close()

    waker._sockets = (us, Slow())  # type: ignore[assignment]
    waking = in_thread(waker.wake)
    assert within.wait(seconds(10))
    closing = in_thread(waker.close)
    time.sleep(0.1)
    go.set()
    waking.result()
    closing.result()
