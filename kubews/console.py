"""This process's terminal: its settings, its size, and what signals do while it is lent.

Sources: kubectl ``pkg/util/term`` (the size is that of the output; which signals restore), termios(3), and
tty_ioctl(4) for what the kernel does to processes in the background.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from kubews.errors import TerminalError
from kubews.userfiles import descriptor_of, terminal_size

# Those whose default would end this process before it could restore anything.
_DEADLY = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")

# Seconds for a signal on its way.
_HEARING = 0.05

# Seconds that nobody needs less of to continue what was stopped.
_STOPPED = 0.001


class Terminal:
    """This process's terminal: where ``sys.stdin`` and ``sys.stdout`` are.

    Raises:
        TerminalError: one of them is none, or this is Windows, or not the main thread.

    Threads: the main one.
    """

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise TerminalError("the console of Windows cannot be lent to a pod: use WSL")
        if threading.current_thread() is not threading.main_thread():
            raise TerminalError("only the main thread can lend the terminal: it gets the signals")
        import termios

        self._termios = termios
        self.input, self.output = _descriptor("stdin"), _descriptor("stdout")
        self._saved = termios.tcgetattr(self.input)

    def size(self) -> Optional[tuple[int, int]]:
        """Return rows and columns of the output, None if they are unknown."""
        return terminal_size(self.output)

    def lend(self) -> None:
        """Pass every key on as it is: no echo, no lines, no signals, and no change of the output.

        In the background this stops the process, as everything does there that changes the terminal; what
        cannot be stopped waits.

        Raises:
            TerminalError: it cannot be changed.
        """
        while not _in_foreground(self.input):
            # The kernel would stop it inside tcsetattr, where a signal that another thread gets is not heard;
            # and one that was sent before that to continue, or along with that to die, may still be on its
            # way to its handler.
            time.sleep(_HEARING)
            if not _in_foreground(self.input) and _stoppable():
                begin = time.monotonic()
                signal.raise_signal(signal.SIGTTOU)
                if time.monotonic() - begin < _STOPPED:
                    break  # nobody is there to continue it: tcsetattr will say so
        self._set(_raw(self._saved))

    def take_back(self) -> None:
        """Put everything as it was."""
        # What runs in the foreground has its own settings.
        if _in_foreground(self.input):
            with contextlib.suppress(TerminalError):  # it is gone
                self._set(self._saved)

    def _set(self, attributes: list[Any]) -> None:
        # TCSANOW loses no key that was typed ahead, and does not wait for a screen that stands still.
        while True:
            try:
                self._termios.tcsetattr(self.input, self._termios.TCSANOW, attributes)
                return
            except self._termios.error as exc:
                if exc.args[0] != errno.EINTR:
                    raise TerminalError(
                        f"the terminal does not let itself be changed: {exc.args[1]}. It is gone, or this "
                        "process is in the background of no shell that could continue it"
                    ) from exc


def is_own(file: Any) -> bool:
    """Return whether a file is the keyboard of a terminal whose screen is ``sys.stdout``."""
    try:
        return descriptor_of(file) == _descriptor("stdin") and _descriptor("stdout") >= 0
    except TerminalError:
        return False


def _raw(attributes: list[Any]) -> list[Any]:
    """Return what cfmakeraw(3) makes of the attributes; ``tty.setraw`` of some versions makes less."""
    import termios as t

    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    iflag &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    oflag &= ~t.OPOST
    cflag = cflag & ~(t.CSIZE | t.PARENB) | t.CS8
    lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    characters = list(characters)
    characters[t.VMIN], characters[t.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]


def _descriptor(name: str) -> int:
    try:
        descriptor: int = getattr(sys, name).fileno()
        is_terminal = os.isatty(descriptor)
    except (AttributeError, OSError, ValueError):  # None, closed, or in a notebook
        is_terminal = False
    if not is_terminal:
        raise TerminalError(
            f"{name} of this process is no terminal that could be lent: use run() or popen(), with "
            "tty=True if the remote program needs a terminal, or kubews.expect to script one"
        )
    return descriptor


def _in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return True  # not the controlling terminal: there is no such thing as a background


def _stoppable() -> bool:
    # Where the signal is ignored or blocked the kernel lets the background change the terminal.
    if signal.SIGTTOU in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return False
    return signal.getsignal(signal.SIGTTOU) == signal.SIG_DFL


class Signals:
    """What signals do while the terminal is lent; handlers of the user stay, and are called.

    Args:
        terminal: to restore.
        resize: called when the size may have changed.

    Threads: the main one.
    """

    def __init__(self, terminal: Terminal, resize: Callable[[], None]) -> None:
        self._terminal = terminal
        self._resize = resize
        self._previous: dict[int, Any] = {}
        self._stopped = False

    def __enter__(self) -> Signals:
        # The kernel may give a signal to another thread, above all to continue what was stopped. The handler
        # runs in this one all the same, but only once it wakes up: there is a byte to read then.
        self._reader, self._writer = os.pipe()
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
        self._forward = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for name in _DEADLY:
            self._take(name, self._die, only=signal.SIG_DFL)
        self._take("SIGTSTP", self._stop, only=signal.SIG_DFL)
        self._take("SIGCONT", self._continue)
        self._take("SIGWINCH", self._changed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._forward)
        self.drain()
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there was a signal."""
        return self._reader

    def drain(self) -> None:
        """Make it unreadable again, and tell whoever else waits for signals so, as asyncio does."""
        with contextlib.suppress(OSError):  # nothing to read, or the other one full or closed
            told = os.read(self._reader, 4096)
            if self._forward >= 0:
                os.write(self._forward, told)

    def resume(self) -> None:
        """Lend the terminal again if this process was stopped, and tell its size."""
        while self._stopped:
            self._stopped = False
            with contextlib.suppress(TerminalError):  # it is gone, as whoever reads will hear
                self._terminal.lend()
            self._resize()

    def _take(self, name: str, handler: Any, only: Any = None) -> None:
        number = getattr(signal, name)
        previous = signal.getsignal(number)
        # None is a handler in C, which could not be put back.
        if previous is not None and only in (None, previous):
            self._previous[number] = previous
            signal.signal(number, handler)

    def _die(self, number: int, frame: Any) -> None:
        self._terminal.take_back()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _stop(self, number: int, frame: Any) -> None:
        self._terminal.take_back()
        self._stopped = True  # SIGCONT says so too, but none comes where no shell could send it
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # until somebody continues this process
        signal.signal(number, self._stop)

    def _continue(self, number: int, frame: Any) -> None:
        # After SIGSTOP, which nobody can catch, only the shell has put the terminal in order. It is lent
        # again by who waits for this signal: along with it, kill of a shell sends another, and the exception
        # of its handler may be on its way.
        self._stopped = True
        self._pass_on(number, frame)

    def _changed(self, number: int, frame: Any) -> None:
        self._resize()
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: Any) -> None:
        if callable(self._previous[number]):
            self._previous[number](number, frame)
