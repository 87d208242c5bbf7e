"""What happens to live connections when the interpreter exits."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from support import in_thread, seconds

from kubews.transport import live
from kubews.transport.deadline import Deadline


class FakeConnection:
    def __init__(self) -> None:
        self.log: list[Any] = []

    def abort(self, reason: str) -> None:
        self.log.append(reason)

    def join(self, deadline: Deadline) -> None:
        self.log.append(deadline)


@pytest.fixture(autouse=True)
def none_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_connections", weakref.WeakSet())


def test_all_are_cut_before_any_is_waited_for() -> None:
    connections = [FakeConnection() for _ in range(3)]
    for connection in connections:
        live.add(connection)  # type: ignore[arg-type]
    live.cut_all()
    deadlines = set()
    for connection in connections:
        reason, deadline = connection.log
        assert reason == "the interpreter exits"
        deadlines.add(deadline)
    (deadline,) = deadlines  # one for all
    assert 0 < deadline.remaining() <= 0.5


def test_removed_ones_are_spared() -> None:
    connection = FakeConnection()
    live.add(connection)  # type: ignore[arg-type]
    live.add(connection)  # type: ignore[arg-type]
    live.remove(connection)  # type: ignore[arg-type]
    live.remove(connection)  # type: ignore[arg-type]
    live.cut_all()
    assert connection.log == []


def test_being_remembered_keeps_nothing_alive() -> None:
    connection = FakeConnection()
    live.add(connection)  # type: ignore[arg-type]
    remembered = weakref.ref(connection)
    del connection
    gc.collect()
    assert remembered() is None
    live.cut_all()


def test_coming_and_going_while_all_are_cut() -> None:
    over = threading.Event()

    def churn() -> None:
        kept = []
        while not over.is_set():
            kept = [FakeConnection() for _ in range(20)]
            for connection in kept:
                live.add(connection)  # type: ignore[arg-type]
            for connection in kept[::2]:
                live.remove(connection)  # type: ignore[arg-type]

    churning = [in_thread(churn) for _ in range(2)]
    for _ in range(300):
        live.cut_all()
    over.set()
    for one in churning:
        one.result()


CHILD = """
import socket, sys, threading, time

from kubews.protocol.channels import Channels
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER
from kubews.transport.loop import Loop
from kubews.transport.outbox import Unsent
from kubews.transport.wire import Wire

started = threading.Semaphore(0)

def blocked(function):
    def run():
        started.release()
        try:
            function()
        except BaseException:
            time.sleep(1000)  # whatever comes of it, this thread is still there at the exit
    threading.Thread(target=run, daemon=True).start()

for number in range(5):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.detach()  # open for good, as a server is
    connection = Connection(
        Wire(near, "v5.channel.k8s.io"), Channels("v5.channel.k8s.io"), Loop(f"loop {number}"),
        inbound={1: 1, 2: 2}, where="pod x/y",
    )
    pipe, outbox = connection.pipes[1], connection

    def write(connection=connection):
        source = Unsent(bytes(64 << 20))
        while not source.done:
            connection.send(0, source, NEVER)

    blocked(lambda pipe=pipe: pipe.take(1, NEVER))
    blocked(lambda connection=connection: connection.status.get(NEVER))
    blocked(write)
for _ in range(15):
    started.acquire()
time.sleep(0.1)
print(time.monotonic(), flush=True)
MORE
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del connection, pipe, outbox"])
def test_a_process_that_forgets_everything_exits_well(end: str) -> None:
    """Blocked readers, writers and waiters, all forgotten: status 0, at once, and not a word."""
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CHILD.replace("MORE", end)],
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    took = time.monotonic() - float(child.stdout or 0)
    assert (child.returncode, child.stderr) == (0, "")
    assert took < seconds(10)  # and not 1000
