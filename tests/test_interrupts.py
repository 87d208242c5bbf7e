"""Ctrl-C in the middle of a command: nothing hangs, nothing is left behind, and one can go on."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from support import SCALE, in_logging, seconds

from kubews import PIPE, Pod
from kubews.transport.pipe import Pipe

DATA = b"0123456789" * 40_000


class Alarm(BaseException):
    """What the handler raises, in the place of KeyboardInterrupt."""


@contextmanager
def alarm(delay: float) -> Iterator[None]:
    """Raise Alarm once, after so many seconds, unless the block is left before."""
    armed = [True]

    def handler(_: int, frame: FrameType | None) -> None:
        if armed and not in_logging(frame):
            armed.clear()
            raise Alarm

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, delay, 0.0005)
    try:
        yield
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.descriptors_may_leak(4)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_interrupted_runs_leave_nothing_behind(pod: Pod) -> None:
    """The fixture counts threads and descriptors afterwards.

    It allows a few descriptors: between the kernel's making a number and Python's taking note of it there
    is a step in which Ctrl-C loses it, and so there is inside ``Thread.start``, before the thread that
    would close its own is there. No thread may go on running.
    """
    delays, interrupted = random.Random(1), 0
    for _ in range(120):
        try:
            with alarm(delays.uniform(0.0002, 0.02) * SCALE):
                pod.run(["true"], timeout=seconds(10))
        except Alarm:
            interrupted += 1
    assert interrupted > 5
    assert pod.call(["true"]) == 0


@pytest.mark.half_close
def test_an_interrupted_communicate_can_be_made_again(pod: Pod) -> None:
    delays, interrupted = random.Random(2), 0
    for _ in range(60):
        with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            try:
                with alarm(delays.uniform(0.0002, 0.004) * SCALE):
                    out, _ = process.communicate(DATA, timeout=seconds(10))
            except Alarm:
                interrupted += 1
                again = DATA if process._unsent is None else None
                out, _ = process.communicate(again, timeout=seconds(10))
            assert out == DATA
            assert process.wait(seconds(10)) == 0
    assert interrupted > 5


@pytest.mark.half_close
def test_an_interrupted_close_of_stdin_can_be_made_again(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        original, calls = process.stdin._connection.end, []

        def interrupted(stream_id: int) -> None:
            calls.append(stream_id)
            if len(calls) == 1:
                raise Alarm
            original(stream_id)

        process.stdin._connection.end = interrupted
        with pytest.raises(Alarm):
            process.stdin.close()
        assert not process.stdin.closed
        process.stdin.close()
        assert process.stdin.closed
        assert process.wait(seconds(10)) == 0


@pytest.mark.parametrize("name", ["read", "recv", "readinto"])
def test_ctrl_c_behind_the_call_that_took_the_bytes_r49(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """R-49: up to Python 3.10 signals are handled also where a call has returned."""
    with pod.popen(["echo", "kept"], stdout=PIPE, bufsize=0) as process:
        assert process.wait(seconds(10)) == 0
        for method in (Pipe.take, Pipe.readinto):

            def late(*args: Any, method: Any = method) -> None:
                method(*args)
                raise KeyboardInterrupt

            monkeypatch.setattr(Pipe, method.__name__, late)
        with pytest.raises(KeyboardInterrupt):
            getattr(process.stdout, name)(bytearray(9) if name == "readinto" else 9)
        monkeypatch.undo()
        assert process.stdout.read(9) == b"kept\n"
