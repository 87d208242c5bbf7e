"""A terminal that a test types into and looks at, and a program in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import pexpect
from pexpect.fdpexpect import fdspawn
from support import eventually, seconds

# The leader of a session, which is to have the terminal as its controlling one; pty.fork() would fork a
# process with threads.
_LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

# Every program begins with these lines; `pod` is the pod web-0.
PRELUDE = """
import os, signal, sys, termios, threading
import kubews
from kubews import PIPE
from kubews.terminal import interact

client = kubews.Client(kubews.Config.load(sys.argv[1]))
pod = client.pod("web-0")
before = termios.tcgetattr(0)

def as_before():
    print("as before:", termios.tcgetattr(0) == before, flush=True)
"""

# A program for a pod that draws on the whole screen, and takes every key as it is.
CURSES = """
import curses
def main(screen):
    curses.raw()
    # A signal between a look for it and the read behind that is not seen before the next look.
    screen.timeout(100)
    keys = 0
    while True:
        screen.clear()  # and so draws all of it
        screen.addstr(curses.LINES - 1, 0, f"{curses.LINES} lines {curses.COLS} columns {keys} keys")
        screen.refresh()
        while (key := screen.getch()) == curses.ERR:
            pass
        if key == curses.KEY_RESIZE:
            curses.update_lines_cols()
        elif key == ord("q"):
            return
        else:
            keys += 1
curses.wrapper(main)
"""


class Terminal:
    """A terminal, seen from where the user sits.

    Args:
        argv: the program in it.
        size: rows and columns.
    """

    def __init__(self, argv: Sequence[str], size: tuple[int, int]) -> None:
        self.user, self.slave = os.openpty()
        self.resize(*size)
        self.program = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *argv],
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True, env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        self.screen = fdspawn(self.user, timeout=seconds(20))
        self.screen.delayafterread = None

    def expect(self, text: str) -> None:
        """Wait until a text comes."""
        try:
            self.screen.expect_exact(text.encode())
        except pexpect.TIMEOUT:
            raise AssertionError(f"{text!r} did not come: {self.screen.before[-2000:]!r}") from None

    def type(self, text: str | bytes) -> None:
        """Type something, which the terminal must take at once."""
        data = text.encode() if isinstance(text, str) else text
        assert os.write(self.user, data) == len(data)

    def resize(self, rows: int, cols: int) -> None:
        """Change the size, of which the foreground is told."""
        fcntl.ioctl(self.user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    @property
    def raw(self) -> bool:
        """Whether every key goes to the program as it is, and nothing is echoed."""
        iflag, oflag, _, lflag, *_ = self.settings
        cooked = termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
        return not (
            lflag & cooked or oflag & termios.OPOST or iflag & (termios.ICRNL | termios.IXON)
        )

    def becomes_raw(self) -> None:
        """Wait until the terminal is lent."""
        assert eventually(lambda: self.raw, 20)

    def wait(self) -> int:
        """Wait for the program; return its exit code."""
        return self.program.wait(seconds(20))


@contextlib.contextmanager
def terminal(argv: Sequence[str], size: tuple[int, int] = (24, 80)) -> Iterator[Terminal]:
    """Run a program in a terminal of its own."""
    it = Terminal(argv, size)
    try:
        yield it
    finally:
        it.program.send_signal(signal.SIGKILL)
        it.program.wait()
        os.close(it.user)
        os.close(it.slave)


def python(script: str, kubeconfig: object, *arguments: str) -> list[str]:
    """Return the command of a Python program that begins with ``PRELUDE``."""
    interpreter = [sys.executable, "-X", "dev", "-W", "error"]
    return [*interpreter, "-c", PRELUDE + textwrap.dedent(script), str(kubeconfig), *arguments]
