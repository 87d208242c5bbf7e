"""Ctrl-C over every blocking call: none hangs, no lock is held, no ticket left, no frame torn (R-49)."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sockets.serving import serve
from support import eventually, in_logging, in_thread, no_collection, seconds, time_limit

import kubews
from kubews import PIPE, Client, Config, Pod
from kubews.config import Cluster
from kubews.popen import Popen
from kubews.testing import LocalCluster

HOME = str(Path(kubews.__file__).parent)

# What the interpreter itself loses: between the kernel's making a number and Python's taking note of it
# there is a step in which Ctrl-C loses it, and so there is inside ``Thread.start``.
LOST_NUMBERS = 1 / 100
# ``fileno`` and ``detach_fd`` do little else but make numbers, two at a time.
LOST_PAIRS = 1 / 3

# Of the kinds of calls, those that a storm must have hit.
_ENOUGH = 16


def lost(interrupts: int) -> int:
    """Return how many descriptors so many interrupts may lose; 2 of the 16 calls make pairs."""
    return int(interrupts * LOST_NUMBERS + 2 / 16 * interrupts * LOST_PAIRS)


class Alarm(BaseException):
    """What the handler raises, in the place of KeyboardInterrupt."""


class Storm:
    """One interrupt at a random moment of each call, where it is inside kubews or what that calls."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._armed = False
        self._usual: dict[str, float] = {}
        #: How many there were, by the name of the call.
        self.counts: Counter[str] = Counter()
        self._name = ""

    def handler(self, signum: int, frame: FrameType | None) -> None:
        if in_logging(frame):
            return
        while frame is not None and not frame.f_code.co_filename.startswith(HOME):
            frame = frame.f_back
        if self._armed and frame is not None:
            self._armed = False
            self.counts[self._name] += 1
            raise Alarm

    def over(self, name: str, call: Callable[[], Any], most: float = 0.003) -> tuple[bool, Any]:
        """Make a call; return whether it came to its end, and its result."""
        self._name = name
        begin = time.monotonic()
        usual = self._usual.get(name, most)
        try:
            self._armed = True
            # Again and again until it is inside, or what blocks for ever would.
            delay = self._random.uniform(1e-5, 1.2 * usual)
            signal.setitimer(signal.ITIMER_REAL, delay, 0.001)
            try:
                with no_collection():
                    result = call()
            finally:
                self._armed = False
        except Alarm:
            return False, None
        took = time.monotonic() - begin
        self._usual[name] = 0.8 * usual + 0.2 * min(took, 0.05)
        return True, result


@contextlib.contextmanager
def storm(seed: int) -> Iterator[Storm]:
    made = Storm(seed)
    previous = signal.signal(signal.SIGALRM, made.handler)
    try:
        yield made
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def nothing_held(process: Popen) -> None:
    """No lock is held, and this thread is not registered as waiting, for it makes no call."""
    connection = process._connection
    pipes = list(connection.pipes.values())
    locks = [
        process._lock,
        connection._outbox._lock,
        connection.status._lock,
        connection.closed._lock,
        connection._loop._waker._lock,
        connection._loop.ended._lock,
        *(pipe._lock for pipe in pipes),
        kubews.transport.live.forks.lock,
    ]
    queues = [connection.status.waiters, connection._outbox.writers]
    queues += [pipe.readers for pipe in pipes]

    def try_all() -> None:  # another thread: these locks let their holder in again
        for lock in locks:
            assert lock.acquire(timeout=seconds(5)), lock
            lock.release()

    in_thread(try_all).result()
    me = threading.current_thread()  # others, copiers above all, do wait
    assert not [ticket for queue in queues for ticket in list(queue.tickets) if ticket.thread is me]


class Echo:
    """A process that sends back numbered records; those of interrupted writes may be missing, whole."""

    SIZE = 64

    def __init__(self, pod: Pod) -> None:
        self.process = pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0)
        self._number = 0
        self._certain: set[int] = set()
        self._received = bytearray()
        self._last = -1

    def write(self, storm: Storm) -> None:
        self._number += 1
        record = (b"%d " % self._number).ljust(self.SIZE - 1, b".") + b"\n"
        done, _ = storm.over("write", lambda: self.process.stdin.write(record))
        if done:
            self._certain.add(self._number)

    def read(self, storm: Storm, name: str) -> None:
        stdout = self.process.stdout
        buffer = bytearray(1000)
        calls: dict[str, Callable[[], Any]] = {
            "read": lambda: stdout.read(100),
            "recv": lambda: stdout.recv(1000, timeout=0.001),
            "readinto": lambda: bytes(buffer[: stdout.readinto(buffer)]),
        }
        with contextlib.suppress(kubews.ReadTimeout):
            done, data = storm.over(name, calls[name])
            if done:
                self._take(data)

    def _take(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= self.SIZE:
            record = bytes(self._received[: self.SIZE])
            del self._received[: self.SIZE]
            number = int(record.split()[0])
            assert record == (b"%d " % number).ljust(self.SIZE - 1, b".") + b"\n"
            assert number > self._last, "records came twice, or in another order"
            self._last = number
            self._certain.discard(number)

    def finish(self) -> None:
        nothing_held(self.process)
        self.process.stdin.close()
        while data := self.process.stdout.recv(65536, timeout=seconds(10)):
            self._take(data)
        assert not self._received
        assert not self._certain, "records that were written did not come"
        assert self.process.wait(seconds(10)) == 0
        self.process.close()


def lines(pod: Pod, text: bool) -> Popen:
    # More than anybody reads here; and it ends, once nobody does.
    script = "yes a line of text | head -n 5000000"
    return pod.popen(script, shell=True, stdout=PIPE, text=text)


class Tour:
    """Every call under the storm, in any order."""

    DATA = b"0123456789" * 2000

    def __init__(self, pod: Pod, storm: Storm) -> None:
        self._pod, self._storm = pod, storm
        self._echo = Echo(pod)
        self._bytes, self._text = lines(pod, False), lines(pod, True)
        self._sleeper = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE)
        self._full = pod.popen(["sleep", "1000"], stdin=PIPE)
        self.steps: list[Callable[[], None]] = [
            *[lambda: self._echo.write(storm)] * 4,
            lambda: self._echo.read(storm, "recv"),
            lambda: self._echo.read(storm, "recv"),
            self._read_echo,
            self._wait,
            self._readline,
            self._readline_of_text,
            self._write_to_full,
            self._run,
            self._communicate,
            self._with,
            self._close,
            self._fileno,
            self._detach,
            self._close_stream,
            self._copied,
        ]

    def _read_echo(self) -> None:
        self._echo.read(self._storm, self._storm._random.choice(["read", "readinto"]))

    def _wait(self) -> None:
        with contextlib.suppress(kubews.TimeoutExpired):
            self._storm.over("wait", lambda: self._sleeper.wait(0.002))

    def _readline(self) -> None:
        self._storm.over("readline", self._bytes.stdout.readline, 2e-5)

    def _readline_of_text(self) -> None:
        self._storm.over("readline of text", self._text.stdout.readline, 2e-5)

    def _write_to_full(self) -> None:
        # It blocks for ever, and only an interrupt ends it.
        self._storm.over(
            "write to who does not read", lambda: self._full.stdin.write(bytes(1 << 22))
        )

    def _run(self) -> None:
        self._storm.over("run", lambda: self._pod.run(["true"], timeout=seconds(10)), 0.02)

    def _communicate(self) -> None:
        process = self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
        done, result = self._storm.over(
            "communicate", lambda: process.communicate(self.DATA, timeout=seconds(10)), 0.01
        )
        if not done:
            nothing_held(process)
            again = self.DATA if process._unsent is None else None
            result = process.communicate(again, timeout=seconds(10))
        assert result == (self.DATA, None)
        process.close()

    def _with(self) -> None:
        process = self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE)

        def block() -> None:
            with process:
                pass

        done, _ = self._storm.over("with", block, 0.01)
        process.close()
        assert process._connection.closed.done()
        assert not done or process.returncode == 0

    def _close(self) -> None:
        process = self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
        self._storm.over("close", process.close, 0.005)
        nothing_held(process)
        process.close()
        assert process._connection.closed.done()

    def _fileno(self) -> None:
        with self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
            self._storm.over("fileno", process.stdout.fileno, 0.002)
            nothing_held(process)
            process.stdin.write(b"x")
            assert os.read(process.stdout.fileno(), 9) == b"x"

    def _detach(self) -> None:
        with self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
            done, descriptor = self._storm.over("detach_fd", process.stdout.detach_fd, 0.002)
            nothing_held(process)
            if done:
                process.stdin.write(b"x")
                assert os.read(descriptor, 9) == b"x"
                os.close(descriptor)

    def _close_stream(self) -> None:
        with self._pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            process.stdin.write(self.DATA)
            self._storm.over("close of a stream", process.stdin.close, 0.001)
            nothing_held(process)
            process.stdin.close()
            # It may have been interrupted in front of the end of the input, or of what was buffered.
            assert self.DATA.startswith(process.stdout.read())
            assert process.wait(seconds(10)) == 0

    def _copied(self) -> None:
        def start() -> Popen:
            return self._pod.popen(["cat"], stdin=io.BytesIO(self.DATA), stdout=PIPE)

        done, process = self._storm.over("popen with a file", start, 0.02)
        if done:
            nothing_held(process)
            assert process.communicate(timeout=seconds(10)) == (self.DATA, None)
            process.close()

    def check(self) -> None:
        for process in (self._sleeper, self._bytes, self._text, self._full, self._echo.process):
            nothing_held(process)
        assert self._sleeper.poll() is None

    def finish(self) -> None:
        self._echo.finish()
        assert b"a line of text\n".endswith(self._bytes.stdout.readline())
        assert "a line of text\n".endswith(self._text.stdout.readline())
        for process in (self._sleeper, self._bytes, self._text, self._full):
            process.close(0)


def ride(pod: Pod, interrupts: int, seed: int) -> None:
    begin = time.monotonic()
    with storm(seed) as weather:
        tour = Tour(pod, weather)
        choice = random.Random(seed)
        steps = 0
        # Short calls are hit by chance: it blows until nearly all were, or for twice as long.
        while (total := weather.counts.total()) < interrupts or (
            len(weather.counts) < _ENOUGH and total < 2 * interrupts
        ):
            choice.choice(tour.steps)()
            steps += 1
            if steps % 50 == 0:
                tour.check()
        tour.check()
    tour.finish()
    assert pod.call(["true"]) == 0
    took = time.monotonic() - begin
    print(
        f"{weather.counts.total()} interrupts of {steps} calls in {took:.0f} s: {dict(weather.counts)}"
    )
    assert len(weather.counts) >= _ENOUGH


quiet = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@quiet
@pytest.mark.half_close
@pytest.mark.descriptors_may_leak(lost(2 * 330))
def test_a_short_storm_over_every_call_r49(pod: Pod) -> None:
    """R-49: the short form of the next one."""
    ride(pod, 330, 1)


@quiet
@pytest.mark.long
@pytest.mark.half_close
@pytest.mark.descriptors_may_leak(lost(2 * 6000))
def test_a_storm_over_every_call_r49(pod: Pod) -> None:
    """R-49: 6000 interrupts."""
    ride(pod, 6000, 2)


# -- how soon


@pytest.fixture
def silent() -> Iterator[Client]:
    """A client of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Client(Config(Cluster(address))) as client:
            yield client


def write_on(process: Popen) -> None:
    """Write until something stops it: three servers and their kernels can hold a lot."""
    while True:
        process.stdin.write(bytes(1 << 20))


CALLS: dict[str, Callable[[Popen, Pod], Any]] = {
    "read": lambda process, _: process.stdout.read(),
    "readline": lambda process, _: process.stdout.readline(),
    "read1": lambda process, _: process.stdout.read1(),
    "iteration": lambda process, _: next(process.stdout),
    "recv": lambda process, _: process.stdout.raw.recv(1, timeout=100),
    "wait": lambda process, _: process.wait(),
    "wait with a time limit": lambda process, _: process.wait(100),
    "communicate": lambda process, _: process.communicate(),
    "write": lambda process, _: write_on(process),
    "leaving the block": lambda process, _: process.__exit__(None, None, None),
    "popen": lambda _, silent: silent.popen(["true"]),
    "run": lambda _, silent: silent.run(["true"], timeout=100),
    "request": lambda _, silent: silent.client.get("/version"),
    "connect": lambda _, silent: silent.connect(80),
    "logs": lambda _, silent: silent.logs(),
}


# What holds on for ever, in a pod or its log, and what waits for it.
HOLDING: dict[str, Callable[[Any], Any]] = {
    "recv of a socket": lambda sock: sock.recv(1),
    "recv_into of a socket": lambda sock: sock.recv_into(bytearray(1)),
    "line of a log": lambda log: log.readline(),
    "log": lambda log: log.read(),
}


# They end stdin before they wait.
ENDING = dict.fromkeys(("communicate", "leaving the block"), pytest.mark.half_close)


def interrupted(call: Callable[..., Any], *args: Any) -> float:
    """Send a real SIGINT into a call that blocks; return in how many seconds it was out of it."""
    inside = threading.Event()
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        inside.wait(seconds(10))
        time.sleep(0.05)
        sent = time.monotonic()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    sender = in_thread(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), time_limit(20):
            inside.set()
            call(*args)
        return time.monotonic() - sent
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # if it has failed before the signal came
            sender.result()


def soon(latencies: list[float]) -> None:
    # Once it must be soon; of the others the rest of the machine may have its share.
    assert min(latencies) < seconds(0.1), latencies
    assert max(latencies) < seconds(1), latencies


def wait_a_little(held: Any) -> None:
    """Use what holds on once more, for nothing will come."""
    if isinstance(held, socket.socket):
        held.settimeout(0.01)
        held.recv(1)
    else:
        held.readline(timeout=0.01)


@pytest.mark.parametrize("name", [pytest.param(name, marks=ENDING.get(name, ())) for name in CALLS])
def test_ctrl_c_gets_through_within_100_ms_r49(pod: Pod, silent: Client, name: str) -> None:
    """R-49: a real SIGINT, and what comes of it is KeyboardInterrupt; the process can still be used."""
    latencies = []
    for _ in range(3):
        process = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE)
        latencies.append(interrupted(CALLS[name], process, silent.pod("web-0")))
        nothing_held(process)
        process.close(0)
        assert eventually(process._connection.closed.done)
    soon(latencies)


@pytest.mark.parametrize("name", HOLDING)
def test_ctrl_c_gets_through_what_holds_on_r49(local: LocalCluster, pod: Pod, name: str) -> None:
    """R-49: the same of sockets and logs, which can be used and closed then."""
    latencies = []
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serve(pod)) if "socket" in name else 0
        for _ in range(3):
            held: Any
            if port:
                held = pod.connect(port, timeout=100)
                held.sendall(b"hold\n")
            else:
                held = pod.logs(follow=True)
            with held:
                latencies.append(interrupted(HOLDING[name], held))
                with pytest.raises(TimeoutError):
                    wait_a_little(held)
    soon(latencies)


def test_ctrl_c_gets_through_a_close_r49(monkeypatch: pytest.MonkeyPatch, pod: Pod, local) -> None:
    """R-49, R-13: also while it waits for a server that says no goodbye; closing again is at once."""
    local.next_faults(kubews.testing.Faults(close_frame=False, pong=False, stop_reading_after=0))
    process = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE)

    def full() -> None:
        with contextlib.suppress(kubews.StreamBroken):
            process.stdin.write(
                bytes(1 << 24)
            )  # more than the server takes: the goodbye stands behind

    writer = in_thread(full)
    assert eventually(lambda: not process._connection._outbox.has_room())
    sent, inside = 0.0, threading.Event()

    def interrupt() -> None:
        nonlocal sent
        inside.wait(seconds(10))
        time.sleep(0.1)
        sent = time.monotonic()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    sender = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt), time_limit(20):
        inside.set()
        process.close(100)
    assert time.monotonic() - sent < seconds(1)
    sender.result()
    begin = time.monotonic()
    process.close(0.2)
    assert time.monotonic() - begin < seconds(1)
    writer.result()
