"""What tests of many kinds need: one scalable unit of time, and a look at what a test leaves behind."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from kubews import PIPE
from kubews.transport.deadline import Deadline
from kubews.transport.http import DeadlineSocket

if TYPE_CHECKING:
    from kubews import Pod

#: Multiplies every deadline of the suite; raise it for a slow or busy machine.
SCALE = float(os.environ.get("KUBEWS_TEST_SCALE", "1"))


def seconds(value: float) -> float:
    """Return a deadline of so many seconds on a machine of ordinary speed."""
    return value * SCALE


def eventually(condition: Callable[[], Any], timeout: float = 5.0) -> bool:
    """Wait until a condition holds; return whether it came to hold in time."""
    end = time.monotonic() + seconds(timeout)
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def unused_port() -> int:
    """Return a port of this machine that nothing listens at.

    It is below those that the kernel gives to connections (``ip_local_port_range``), one of which could have
    it before whoever is to listen there has begun.
    """
    while True:
        port = 25_000 + secrets.randbelow(7_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def in_thread(function: Callable[..., Any], *args: Any) -> Future:
    """Run a function in a thread of its own."""
    return Future(function, args)


class Future:
    """The result of a function that runs in a thread; a result that is late fails the test."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function, self._args = function, args
        self._outcome: tuple[Any, BaseException | None] | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._function(*self._args), None
        except BaseException as exc:
            self._outcome = None, exc

    @property
    def running(self) -> bool:
        return self._outcome is None

    def result(self, timeout: float = 10.0) -> Any:
        self.thread.join(seconds(timeout))
        if self._outcome is None:
            raise AssertionError(f"{self._function} did not return within {seconds(timeout)} s")
        value, exc = self._outcome
        if exc is not None:
            raise exc
        return value


@contextlib.contextmanager
def time_limit(timeout: float) -> Iterator[None]:
    """Interrupt the main thread, whatever it waits for, when this takes too long."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"the test was not done within {seconds(timeout)} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds(timeout))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def resources() -> tuple[list[str], int]:
    """Return the names of all threads that run and the number of open descriptors.

    Ctrl-C inside ``Thread.start`` can leave a thread that never began in the interpreter's list.
    """
    gc.collect()
    names = sorted(thread.name for thread in threading.enumerate() if thread.is_alive())
    return names, len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def put(pod: Pod, name: str, data: bytes) -> str:
    """Write a file into the container's working directory, on servers that cannot end stdin too."""
    script = f"head -c {len(data)} > {name}"
    with pod.popen(script, shell=True, stdin=PIPE, request_stdin=True) as process:
        process.stdin.write(data)
        assert process.wait(seconds(60)) == 0
    return name


def echo(pod: Pod, total: int, piece: int) -> None:
    """Send random bytes through cat, both ways at once, and compare checksums."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    block = os.urandom(piece)

    def upload() -> None:
        for number in range(total // piece):
            data = number.to_bytes(8, "big") + block[8:]
            sent.update(data)
            process.stdin.write(data)
        process.stdin.close()

    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        uploading = in_thread(upload)
        buffer = memoryview(bytearray(1 << 18))
        while size := process.stdout.readinto(buffer):
            received.update(buffer[:size])
        uploading.result(seconds(60))
        assert process.wait(seconds(10)) == 0
    assert sent.digest() == received.digest()


def answer(sock: Any, data: bytes) -> bytes:
    """Send something, and return what comes back."""
    patient = DeadlineSocket(sock, Deadline(seconds(5)), 100)
    patient.sendall(data)
    return patient.recv(9)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector out: an interrupt in the finalizer of what is garbage is not one of the call's."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def in_logging(frame: FrameType | None) -> bool:
    """Tell whether a signal has come inside ``logging``, which Ctrl-C makes keep a lock that it has just taken."""
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return True
        frame = frame.f_back
    return False


def state_of(pid: int) -> str:
    """Return the letter of a process's state as ps shows it, empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(pid: int) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped yet does not."""
    return state_of(pid) not in ("", "Z")
