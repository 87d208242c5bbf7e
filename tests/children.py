"""Programs that run in an interpreter of their own, where they may exit, fork and be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

from support import seconds

# Every program begins with these lines; `pod` is the pod web-0 of the cluster.
PRELUDE = """
import gc, os, signal, sys, threading, time
import kubews
from kubews import DEVNULL, PIPE, STDOUT

client = kubews.Client(kubews.Config.load(sys.argv[1]))
pod = client.pod("web-0")

def ending():
    # What follows is measured: nothing may hold up the end of the program.
    print(f"\\n{time.monotonic()}", flush=True)

def thread(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def parked(stream):
    # A thread inside a read, and inside the lock of the io object.
    reader = thread(stream.read)
    time.sleep(0.1)
    return reader
"""


class Program(subprocess.Popen[Any]):
    """A program that a test which fails does not wait for."""

    def __exit__(self, exc_type: type[BaseException] | None, *rest: Any) -> None:
        if exc_type is not None:
            self.kill()
        super().__exit__(exc_type, *rest)


class Ended(NamedTuple):
    """How a program ended: exit code, what it wrote, and the seconds after it called ``ending()``."""

    code: int
    out: str
    err: str
    took: float


def run(program: str, kubeconfig: object, *options: str, timeout: float = 60.0) -> Ended:
    """Run a program; one that does not end fails the test."""
    with start(program, kubeconfig, *options) as child:
        try:
            out, err = child.communicate(timeout=seconds(timeout))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # it says where its threads are
            raise AssertionError(f"it hangs: {child.communicate()}") from None
    now = time.monotonic()
    rest, _, began = out.rstrip("\n").rpartition("\n")
    try:
        took = now - float(began)
    except ValueError:
        rest, took = out, 0.0
    return Ended(child.returncode, rest, err, took)


def interrupt_another_thread(process: Program) -> None:
    """Send SIGINT so that another thread than the main one takes it, as the kernel may choose (Linux)."""
    others = [int(each) for each in os.listdir(f"/proc/{process.pid}/task")]
    others.remove(process.pid)
    os.kill(others[0], signal.SIGINT)


def start(program: str, kubeconfig: object, *options: str) -> Program:
    """Start a program."""
    return Program(
        [
            sys.executable,
            *("-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning"),
            *options,
            *("-c", PRELUDE + textwrap.dedent(program), str(kubeconfig)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
