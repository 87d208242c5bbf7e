"""Ctrl-C, and signal handlers that do more, at every point where the interpreter looks for them.

CPython runs a signal handler when a function is entered and when a call has returned. A profile function
is called at those points too, so the points can be counted and tried one after another.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from support import no_collection

import kubews.transport

HOME = str(Path(kubews.transport.__file__).parent)


class Interrupted(BaseException):
    """What the handler raises, in the place of KeyboardInterrupt."""


def inside(frame: FrameType | None, home: str = HOME) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(home)


def run_with(
    function: Callable[[], Any], number: int, action: Callable[[], Any], home: str = HOME
) -> Any:
    """Run a function, with an action at the so-many-th point inside kubews.transport, or another home.

    Returns:
        The result of the function, and whether there was such a point.
    """
    left = number

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal left
        # When the outermost function returns it is its caller's turn to be interrupted.
        if (
            event == "c_call"
            or not inside(frame, home)
            or (event == "return" and not inside(frame.f_back, home))
        ):
            return
        left -= 1
        if left == -1:
            sys.setprofile(None)
            action()

    with no_collection():
        sys.setprofile(profile)
        try:
            result = function()
        finally:
            sys.setprofile(None)
    return result, left < 0


def interrupt() -> None:
    raise Interrupted


@contextmanager
def signalled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Have this thread, the main one, get a signal that a function handles, soon after the block has begun."""
    before = signal.signal(signal.SIGUSR1, handler)
    sender = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    try:
        sender.start()
        yield
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def points() -> Iterator[int]:
    """Count; whoever iterates ends it when a run had no such point."""
    yield from range(10_000)
    raise AssertionError("endless")


def undisturbed(function: Callable[[], Any]) -> Any:
    """Run what belongs to another thread, where no signal handler runs."""
    profile = sys.getprofile()
    sys.setprofile(None)
    try:
        return function()
    finally:
        sys.setprofile(profile)


class Storm:
    """Interrupts over and over, but one for each call: somebody's second Ctrl-C is another matter."""

    def __init__(self) -> None:
        self.armed = False
        self.raised = 0

    def handler(self, signum: int, frame: FrameType | None) -> None:
        if self.armed and inside(frame):
            self.armed = False
            self.raised += 1
            raise Interrupted


@contextmanager
def storm(interval: float) -> Iterator[Storm]:
    """Raise Interrupted in the main thread wherever it is inside kubews.transport, if the storm is armed."""
    storm = Storm()
    previous = signal.signal(signal.SIGALRM, storm.handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        with no_collection():
            yield storm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
