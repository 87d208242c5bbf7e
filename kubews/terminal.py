"""Lend this process's terminal to a process in a pod.

The calling thread, to which signals come, reads the keyboard; another one writes the screen, which may be
slow. None is left behind in a read: what is typed later belongs to others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.command import StrOrBytesPath, absent
from kubews.console import Signals, Terminal
from kubews.detach import DetachKeys
from kubews.errors import ConnectionLost, ExecError, StreamBroken, TerminalError, TimeoutExpired
from kubews.popen import PIPE, Popen
from kubews.streams import Stream
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Waker
from kubews.transport.patience import Selector, select
from kubews.transport.wait import Expired, Outcome, PatientThread
from kubews.userfiles import Source, sink_for
from kubews.wrappers import ReadStream

if TYPE_CHECKING:
    from kubews.targets import Target

# The best shell that there is, told of the terminal by the one that every image with a shell has.
_SHELL = "TERM=${1:-xterm}; export TERM; command -v bash >/dev/null 2>&1 && exec bash; exec sh"

# Seconds for what is on its way to the screen when this side gives up.
_LAST_WORDS = 1.0


class _Screen:
    """A thread that copies the output of a process to the terminal.

    Args:
        stream: of the process.
        descriptor: of the terminal.

    Threads: made, stopped and waited for by one.
    """

    def __init__(self, stream: Union[Stream, ReadStream], descriptor: int) -> None:
        self._stream = stream
        #: Set behind the last byte, or to what the terminal has raised.
        self.done: Outcome[None] = Outcome()
        with contextlib.ExitStack() as held:
            self._source = Source(stream, None, None)
            held.callback(self._source.close)
            self._sink = sink_for(descriptor)
            held.callback(self._sink.close)
            self._waker = Waker()
            held.callback(self._waker.close)
            self._buffered = _buffered(stream)
            self._held = held.pop_all()
        PatientThread(self._run, "kubews screen").start()

    def stop(self) -> None:
        """Leave what has not been copied yet to whoever reads the stream next."""
        self._waker.wake()

    def _run(self) -> None:
        try:
            with self._held:
                self._sink.write(self._buffered)
                while data := self._source.read(self._waker):
                    self._sink.write(data)
        except ConnectionLost:
            self.done.set(None)  # told when the terminal is in order again
        except BaseException as exc:
            self.done.set_exception(exc if isinstance(exc, Exception) else RuntimeError(repr(exc)))
            _raw_stream(self._stream).abort()
        else:
            self.done.set(None)


def _raw_stream(stream: Union[Stream, ReadStream]) -> Stream:
    raw = stream if isinstance(stream, Stream) else stream.raw
    assert isinstance(raw, Stream)
    return raw


def _buffered(stream: Union[Stream, ReadStream]) -> bytes:
    """Take what a buffered stream has read ahead, which its descriptor does not have."""
    if isinstance(stream, Stream):
        return b""
    os.set_blocking(stream.fileno(), False)
    try:
        return stream.read1(len(stream.peek()))
    finally:
        os.set_blocking(stream.fileno(), True)


def interact(
    process: Popen,
    *,
    detach_keys: Optional[str] = "ctrl-p,ctrl-q",
    redraw: bool = False,
    timeout: Optional[float] = None,
) -> bool:
    """Connect this process's terminal with a process in a pod until that ends, or the user lets go.

    Every key goes to the process, Ctrl-C, Ctrl-D and Ctrl-Z too. Its terminal gets the size of this one, now
    and whenever that changes. However this ends, by an exception or a deadly signal too, the terminal is
    then as before.

    Args:
        process: of ``popen`` or ``attach``, with ``stdin=PIPE``, ``stdout=PIPE`` and a terminal, not in text
            mode. Its streams then have a ``fileno()``, so that ``communicate`` cannot be used any more.
        detach_keys: what to type to let go, names with commas between them; None for nothing. What is typed
            behind them is not read.
        redraw: make a program that has drawn its screen before draw it again.
        timeout: seconds; None for ever.

    Returns:
        True when the process or the attachment has ended, False when the user has let go: the process runs
        on then, and may be handed over again.

    Raises:
        TerminalError: this process or that one has no terminal.
        ConnectionLost: how the process ended will never be known.
        TimeoutExpired: it still runs.
        OSError: the terminal has gone.

    Threads: blocks; the main thread only, for signals come to it.
    """
    keys = DetachKeys(detach_keys)
    if not process.tty:
        raise TerminalError(
            f"{process!r} has no terminal: it needs tty=True, or tty: true in the pod's spec"
        )
    if process.stdin is None or not isinstance(process.stdout, (Stream, ReadStream)):
        raise TerminalError(f"{process!r} needs stdin=PIPE and stdout=PIPE, and no text mode")
    terminal = Terminal()
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()  # what was written before comes before

    def resize(redraw: bool = False) -> None:
        sent, size = None, terminal.size()
        # A signal in the middle of this has its turn in the middle of this, and then the older size is told
        # last: so until what was told is the size of now.
        while size is not None and size != sent:
            with contextlib.suppress(StreamBroken):  # it has just ended
                process.resize(*size, redraw=redraw)
            sent, size = size, terminal.size()

    with Signals(terminal, resize) as signals:
        try:
            terminal.lend()
            resize(redraw)
            ended = _converse(process, terminal, keys, signals, Deadline(timeout))
        except Expired as exc:
            raise TimeoutExpired(process.args, timeout or 0.0) from exc
        finally:
            terminal.take_back()
    loss = _raw_stream(process.stdout).loss if ended else None
    if loss is not None:
        raise loss
    return ended


def _converse(
    process: Popen, terminal: Terminal, keys: DetachKeys, signals: Signals, deadline: Deadline
) -> bool:
    """Carry what is typed and what is answered; return whether the process has ended."""
    screen = _Screen(process.stdout, terminal.output)
    over = Waker()
    finished = False
    try:
        _raw_stream(process.stdout).on_connection_closed(over.wake)
        for typed in _typed(terminal.input, over, keys, signals, deadline):
            if not _pass_on(process.stdin, typed):
                break
        if keys.complete:
            screen.stop()
        screen.done.get(deadline)
        finished = True
        return not keys.complete
    finally:
        over.close()
        if not finished:
            screen.stop()
            with contextlib.suppress(Expired, Exception):
                screen.done.get(Deadline(_LAST_WORDS))


def _typed(
    descriptor: int, over: Waker, keys: DetachKeys, signals: Signals, deadline: Deadline
) -> Iterator[bytes]:
    """Yield what is typed until ``over`` is awake or the keys that let go are complete.

    Raises:
        Expired: the deadline passed.
    """
    with Selector() as selector:
        for source in (descriptor, over.fileno, signals):
            selector.register(source, selectors.EVENT_READ)
        while not keys.complete:
            ready = {key.fileobj for key, _ in select(selector, deadline)}
            if over.fileno in ready:
                return
            if signals in ready:
                signals.drain()
                signals.resume()
            elif descriptor in ready:  # another may have read it while this process was stopped
                yield _read(descriptor, keys)
            if deadline.expired():
                raise Expired


def _read(descriptor: int, keys: DetachKeys) -> bytes:
    """Read what was typed, but nothing behind the keys that let go; return what to pass on."""
    typed = bytearray()
    waiting = _waiting(descriptor)
    while waiting > 0 and not keys.complete:
        data = os.read(descriptor, min(waiting, keys.room))
        if not data:
            raise OSError(errno.EIO, "the terminal was closed")
        waiting -= len(data)
        typed += keys.feed(data)
    return bytes(typed)


def _waiting(descriptor: int) -> int:
    """Return how many bytes a read would find; at least one, to find the end."""
    import fcntl
    import termios

    count = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return max(1, int.from_bytes(count, sys.byteorder))


def _pass_on(stdin: Any, typed: bytes) -> bool:
    try:
        if typed:
            stdin.write(typed)
    except StreamBroken:
        return False
    return True


def shell(
    pod: Target,
    command: Optional[Sequence[StrOrBytesPath]] = None,
    *,
    container: Optional[str] = None,
) -> int:
    """Run a shell, or another command, in a pod with this process's terminal; see ``Pod.shell``.

    Threads: blocks; the main thread only.
    """
    Terminal()  # before anything runs that nobody could talk with
    term = os.environ.get("TERM")
    if command is None:
        return _session(pod, ["sh", "-c", _SHELL, "sh", term or ""], container, None)
    try:
        return _session(pod, command, container, {"TERM": term} if term else None)
    except ExecError as exc:
        # Nothing has run. Without its env an image can be told no TERM, and the runtime's has to do.
        if not term or absent(str(exc)) != "env":
            raise
    return _session(pod, command, container, None)


def _session(
    pod: Target,
    command: Sequence[StrOrBytesPath],
    container: Optional[str],
    env: Optional[dict[str, str]],
) -> int:
    with Popen(
        command, pod=pod, container=container, stdin=PIPE, stdout=PIPE, tty=True, env=env
    ) as process:
        interact(process, detach_keys=None)
        return process.wait()
