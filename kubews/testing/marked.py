"""Processes that carry a mark in their environment: how those that left their process group are found.

Threads: pure functions.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

_LOOKS = 10
_BETWEEN = 0.01
_END_MILLISECONDS = 1000


def kill_marked(name: str, value: str) -> None:
    """Kill every process that has a variable of this name and value, and see it end (Linux).

    Threads: any; blocks for a bounded time.
    """
    wanted = f"{name}={value}".encode()
    for look in range(_LOOKS):  # a process can fork while we look
        environments = {pid: _environment(pid) for pid in _pids()}
        found = [pid for pid, environment in environments.items() if wanted in environment]
        for pid in found:
            _kill(pid)
        # In the middle of an exec there is none to see for a moment; some never have one.
        hidden = look < 3 and any(
            environment == [b""] and _has_program(pid) for pid, environment in environments.items()
        )
        if not found and not hidden:
            return
        time.sleep(_BETWEEN)


def _kill(pid: int) -> None:
    """Kill a process and wait until it is dead: a signal that was sent has not arrived yet."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(_END_MILLISECONDS)
        finally:
            os.close(descriptor)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _has_program(pid: int) -> bool:
    """Tell whether this is a process like others: neither of the kernel nor a zombie."""
    try:
        return bool(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
