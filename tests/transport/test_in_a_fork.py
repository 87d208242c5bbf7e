"""What happens in a forked child, piece by piece and in this process; tests/test_forks.py has real forks."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from interrupts import Interrupted, interrupt, points, run_with, signalled
from peers import V5, opened, tcp_pair, unblocked
from support import eventually, in_thread, seconds

from kubews.errors import ConnectionLost, StreamBroken
from kubews.protocol.channels import Channels
from kubews.protocol.events import Status
from kubews.transport import forks, live
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER
from kubews.transport.loop import Loop, Waker
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Ticket
from kubews.transport.wire import Wire

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def test_no_fork_comes_into_a_close() -> None:
    """Where the object has forgotten its descriptor, and the kernel has not closed it yet."""
    stop = threading.Event()

    def open_and_close() -> None:
        while not stop.is_set():
            forks.close(forks.own(socket.socket))

    before = sockets()
    busy = [in_thread(open_and_close) for _ in range(3)]
    kept = 0
    for _ in range(60):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork of more than one thread
            pid = os.fork()
        if not pid:
            os._exit(bool(sockets() - before))
        kept += os.waitpid(pid, 0)[1]
    stop.set()
    for one in busy:
        one.result(seconds(10))
    assert kept == 0


def sockets() -> set[tuple[int, int]]:
    """Return which sockets this process has open."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            state = os.fstat(int(name))
            if stat.S_ISSOCK(state.st_mode):
                found.add((state.st_dev, state.st_ino))
    return found


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that does to what is made in a test what a fork would."""
    monkeypatch.setattr(forks, "_descriptors", weakref.WeakSet())
    monkeypatch.setattr(forks, "_known", weakref.WeakSet())

    def after_fork() -> None:
        with forks.lock:
            forks._begun.clear()
            forks._after_in_child()

    return after_fork


def test_descriptors_are_closed_and_things_told(child: Any) -> None:
    sockets = [forks.own(socket.socket) for _ in range(3)]
    sockets[0].close()
    os.close(sockets[1].fileno())  # somebody has closed it behind its back
    told = []

    class Thing:
        def _after_fork(self) -> None:
            told.append(self)

    thing = Thing()
    forks.tell(thing)
    child()
    assert [sock.fileno() for sock in sockets] == [-1, -1, -1]
    assert told == [thing]

    def free() -> bool:
        with forks.lock:
            return True

    assert in_thread(free).result()


def test_one_that_fails_keeps_nothing_from_the_others(child: Any) -> None:
    told: list[int] = []

    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

        def _after_fork(self) -> None:
            told.append(self.number)
            if self.number < 4:
                raise LookupError("mine")

    things = [Thing(number) for number in range(5)]
    for thing in things:
        forks.tell(thing)
    with pytest.raises(LookupError, match="mine"):
        child()
    assert sorted(told) == [0, 1, 2, 3, 4]
    with pytest.raises(LookupError, match="mine"):
        forks._after_in_child()  # it is registered twice
    assert sorted(told) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_there_need_be_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    names = runpy.run_path(str(forks.__file__))
    assert names["own"](socket.socket).close() is None


def test_a_peer_sees_nothing_of_a_close(child: Any) -> None:
    near, far = tcp_pair()
    with near, far:
        twin = forks.own(lambda: socket.socket(fileno=os.dup(near.fileno())))
        child()
        assert twin.fileno() == -1
        near.sendall(b"still there")
        assert far.recv(100) == b"still there"


def unserved() -> tuple[Connection, socket.socket]:
    """A connection whose thread does not run, as none does in a fork."""
    near, far = tcp_pair()
    connection = Connection(
        Wire(unblocked(near), V5),
        Channels(V5),
        Loop("test", start=False),
        inbound={1: 1, 2: 2},
        where="pod shop/web-0",
    )
    connection.pipes[1].feed(memoryview(b"the parent's"))
    return connection, far


def hold_everything(connection: Connection) -> None:
    """Take every lock in a thread that then ends, and leave tickets of threads that do not exist."""
    pipes = list(connection.pipes.values())
    holders: list[Any] = [
        connection._outbox,
        connection.status,
        connection.closed,
        connection._loop._waker,
        connection._loop.ended,
        *pipes,
    ]
    for holder in holders:
        in_thread(holder._lock.acquire).result()
    queues = [connection._outbox.writers, connection.status.waiters]
    for queue in queues + [pipe.readers for pipe in pipes]:
        queue.add(Ticket())


def test_a_live_connection_is_dead_in_the_child(child: Any) -> None:
    connection, far = unserved()
    more = connection.outcome()
    connection.on_closed(lambda: pytest.fail("this would reach the parent's thread"))
    hold_everything(connection)
    child()
    assert connection.inherited
    for call in (
        lambda: connection.status.get(NEVER),
        lambda: connection.pipes[1].take(1, NEVER),
        lambda: connection.pipes[2].wait_data(NEVER),
        lambda: more.get(NEVER),
    ):
        with pytest.raises(ConnectionLost, match="this process is a fork"):
            call()
    with pytest.raises(StreamBroken, match="this process is a fork"):
        connection.send(0, Unsent(b"x"), NEVER)
    connection.closed.get(NEVER)
    connection.abort()
    connection.close()
    connection.join(NEVER)
    assert connection not in live._connections
    assert not connection._loop._posts
    with far:
        far.settimeout(seconds(5))
        assert far.recv(1) == b""  # here nobody else has the descriptor


def test_what_ctrl_c_has_stopped_of_that_is_done_again_r49_r52() -> None:
    for number in points():
        connection, far = unserved()
        try:
            _, reached = run_with(connection._after_fork, number, interrupt)
        except Interrupted:
            reached = True
        connection._after_fork()
        assert connection.inherited, number
        for call in (connection.status.get, connection.pipes[1].wait_data):
            with pytest.raises(ConnectionLost, match="this process is a fork"):
                call(NEVER)
        assert connection.closed.done()
        far.close()
        if not reached:
            assert number > 20
            return


def test_an_ended_connection_is_as_good_in_the_child(child: Any) -> None:
    connection, far = unserved()
    more = connection.outcome()
    far.close()
    connection._wire.close()
    connection.status.set(Status(True, 0, "", "", {}))
    for pipe in connection.pipes.values():
        pipe.finish()
    connection.closed.set(None)
    hold_everything(connection)
    child()
    assert not connection.inherited
    assert connection.status.get(NEVER).exit_code == 0
    assert connection.pipes[1].take(100, NEVER) == b"the parent's"
    assert connection.pipes[1].take(100, NEVER) == b""
    with pytest.raises(ConnectionLost):  # whoever was to set it has no thread here
        more.get(NEVER)


@pytest.mark.parametrize("waking", ["eventfd", "sockets"])
def test_a_waker_reaches_nobody_from_the_child(
    waking: str, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waking == "sockets":
        monkeypatch.delattr(os, "eventfd", raising=False)
    waker = Waker()
    in_thread(waker._lock.acquire).result()
    child()
    waker.wake()
    waker.close()
    with pytest.raises(OSError):
        os.fstat(waker.fileno)


# -- what a fork waits for


def forked() -> float:
    """Fork, and return how long that took in seconds."""
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the subject
        pid = os.fork()
    if not pid:
        os._exit(0)
    took = time.monotonic() - begin
    os.waitpid(pid, 0)
    return took


def test_a_fork_waits_until_nobody_is_behind_a_gate_r52(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-52: OpenSSL's own locks would be held for ever in the child."""
    monkeypatch.setattr(forks, "_PATIENCE", 60.0)
    gate, inside, leave = forks.gate(), threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            inside.set()
            leave.wait(seconds(10))

    staying = in_thread(stay)
    assert inside.wait(seconds(10))
    threading.Timer(0.2, leave.set).start()
    assert forked() < 20
    assert leave.is_set()
    staying.result()
    with gate:  # and it is free again, here and for others
        pass
    in_thread(gate.__enter__).result()


def test_a_fork_does_not_wait_for_ever_r52() -> None:
    """R-52: what happens inside a gate is short; if ever it is not, the program forks all the same."""
    gate, inside, leave = forks.gate(), threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            inside.set()
            leave.wait(seconds(30))

    staying = in_thread(stay)
    assert inside.wait(seconds(10))
    assert 0.9 < forked() < seconds(5)
    leave.set()
    staying.result()


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/task"), reason="nothing tells of the kernel's threads"
)
def test_a_fork_waits_for_a_visitor_on_his_way_out_r52(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-52: one that Python has forgotten already is still there, and cleans up inside OpenSSL."""
    monkeypatch.setattr(forks, "_PATIENCE", 60.0)
    known, leave = threading.Event(), threading.Event()

    def visit() -> None:
        forks.visit()
        known.set()
        leave.wait(seconds(10))

    visiting = in_thread(visit)
    assert known.wait(seconds(10))
    assert forked() < 5  # who is still at work is in no hurry
    all_threads = threading.enumerate
    monkeypatch.setattr(
        threading, "enumerate", lambda: [t for t in all_threads() if t is not visiting.thread]
    )
    threading.Timer(0.2, leave.set).start()
    assert forked() < 20
    assert leave.is_set()
    visiting.result()


def test_visitors_that_are_gone_are_forgotten_without_a_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the tests before have left would count: a crowd of threads is forgotten at twice its size.
    monkeypatch.setattr(forks, "_visitors", set())
    monkeypatch.setattr(forks, "_many", forks._MANY)
    for _ in range(500):
        in_thread(forks.visit).result()
    assert len(forks._visitors) < 300


SIGNALLED = """
import os, random, signal, sys, threading, time, warnings
from kubews.transport import forks

warnings.simplefilter("ignore", DeprecationWarning)
sys.unraisablehook = lambda unraisable: None  # where what the handler raises goes
ballast = bytearray(os.urandom(1 << 20) * 40)  # a fork takes a while


class Interrupted(BaseException):
    pass


def handler(number, frame):
    raise Interrupted


def free():
    answers = []

    def ask():
        answers.append(forks.lock.acquire(timeout=10) and gate.acquire(timeout=10))
        gate.release()
        forks.lock.release()

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    return answers == [True]


gate = forks.gate()
signal.signal(signal.SIGALRM, handler)
for number in range(25):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.Random(number).uniform(1e-4, 4e-3))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.005)
    except Interrupted:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert free(), number
"""


def test_a_signal_during_a_fork_leaves_no_lock_held_r49_r52() -> None:
    """R-49, R-52: Python handles it in a function that runs behind the fork, and forgets what it raises."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=seconds(60)
    )
    assert (done.returncode, done.stderr) == (0, "")


SIGNALLED_CHILD = """
import ctypes, functools, importlib.util, os, signal, sys, warnings
from kubews.transport import forks

warnings.simplefilter("ignore", DeprecationWarning)
sys.unraisablehook = lambda unraisable: None  # where KeyboardInterrupt goes
send = ctypes.CDLL(None)["raise"]  # signal.raise_signal would raise what its own handler raises
os.register_at_fork(after_in_child=functools.partial(send, signal.SIGINT))
# Once more, so that its functions are the next ones.
spec = importlib.util.spec_from_file_location("forks", forks.__file__)
forks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(forks)


class Thing:
    told = 0

    def _after_fork(self):
        self.told += 1


thing = Thing()
forks.tell(thing)
file = forks.own(functools.partial(open, os.devnull, "rb", 0))
pid = os.fork()
if not pid:
    with forks.lock:
        os._exit(10 * file.closed + thing.told)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file.closed, thing.told)
"""


def test_a_signal_to_the_child_does_not_spare_it_what_a_fork_is_r49_r52() -> None:
    """R-49, R-52: as Ctrl-C at a terminal, which reaches all processes of its group."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED_CHILD], capture_output=True, text=True, timeout=seconds(60)
    )
    assert (done.stdout, done.stderr) == ("11 False 0\n", "")


FAILING = """
import os, sys
from kubews.transport import forks


class Thing:
    def __init__(self, *errors):
        self.errors = list(errors)
        forks.tell(self)

    def _after_fork(self):
        log.append(type(self.errors[0]).__name__ if self.errors else "told")
        if self.errors:
            raise self.errors.pop(0)


class Known(list):  # in their order, of which the last is told first
    add = list.append


errors = {"v": ValueError, "k": KeyboardInterrupt}  # a fault, and a signal handler's
for case in sys.argv[1:]:
    log, printed = [], []
    sys.unraisablehook = lambda unraisable: printed.append(unraisable.exc_type.__name__)
    forks._known = Known()
    things = [Thing(*[errors[each]() for each in word]) for word in case.split("-")]
    pid = os.fork()
    if not pid:
        told = all(not thing.errors for thing in things)
        print(case, told, sorted(log), printed, len(forks._untold), len(forks._failed), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_who_fails_in_a_fork_is_told_once_more_and_keeps_nothing_from_others_r49_r52() -> None:
    """Though a signal ends the first telling; whoever is told only behind that is told once."""
    cases = ["v-", "-v", "k-", "v-k", "k-v", "vv-", "v-v"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FAILING, *cases],
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    fault, signalled = ["ValueError"], ["KeyboardInterrupt"]
    expected = {
        "v-": (["ValueError", "told", "told"], fault),
        "k-": (["KeyboardInterrupt", "told", "told"], signalled),
        "v-k": (["KeyboardInterrupt", "ValueError", "told"], signalled + fault),
        "k-v": (["KeyboardInterrupt", "ValueError", "told", "told"], signalled),
        "vv-": (["ValueError", "ValueError", "told"], fault * 2),
        "v-v": (["ValueError", "ValueError", "told", "told"], fault),
    }
    expected["-v"] = expected["v-"]
    assert done.stdout.splitlines() == [
        f"{case} True {expected[case][0]} {expected[case][1]} 0 0" for case in cases
    ]
    assert done.stderr == ""


@pytest.mark.parametrize("held", [False, True], ids=["", "by another thread"])
def test_who_waits_below_a_signal_handler_that_forks_is_told_in_the_child(held: bool) -> None:
    """Also if the lock of what it waits for is another thread's at that moment, which the child does not have."""

    class Interrupted(Exception):
        pass

    codes = []
    us = os.getpid()

    def handler(number: int, frame: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            codes.append(os.waitpid(pid, 0)[1])
            raise Interrupted
        signal.alarm(int(seconds(10)))

    @contextlib.contextmanager
    def held_by_another(pipe: Pipe) -> Iterator[None]:
        done = threading.Event()

        def hold() -> None:
            assert eventually(lambda: pipe.readers)  # and, for a moment, before the signal
            with pipe._lock:
                done.wait()

        holding = in_thread(hold)
        yield
        done.set()
        holding.result()

    with contextlib.ExitStack() as stack:
        connection, _ = stack.enter_context(opened())
        if held:
            stack.enter_context(held_by_another(connection.pipes[1]))
        stack.enter_context(signalled(handler))
        lost = False
        try:
            connection.pipes[1].take(1, NEVER)
        except ConnectionLost:
            lost = True
        except Interrupted:
            pass
        finally:
            if os.getpid() != us:
                os._exit(0 if lost else 1)
    assert codes == [0]
