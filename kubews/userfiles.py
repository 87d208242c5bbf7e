"""Files of the user: where input comes from and where output goes.

A file object with a descriptor is used by a duplicate of that, as subprocess would; any other by its own
methods. Everything that can be refused is refused before a command runs.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import selectors
import stat
import sys
from typing import Any, Optional, Protocol, Union

from kubews.errors import ConnectionLost, StreamBroken
from kubews.transport import forks
from kubews.transport.deadline import NEVER
from kubews.transport.loop import Waker
from kubews.transport.patience import Selector, ready, select

#: Bytes that are read or written at a time.
CHUNK = 65536


class HasFileno(Protocol):
    """A file object with a descriptor.

    Threads: the user's, until it is handed over.
    """

    def fileno(self) -> int:
        """Return the descriptor."""


class HasRead(Protocol):
    """A file object to read from: bytes or str.

    Threads: the copier's, once it is handed over.
    """

    def read(self, size: int, /) -> Any:
        """Read at most so much, nothing at the end."""


class HasWrite(Protocol):
    """A file object to write to: bytes, or str if it has an ``encoding``.

    Threads: the copier's, once it is handed over.
    """

    def write(self, data: Any, /) -> Any:
        """Write; a number that is returned tells how much was taken."""


#: What stdin, and what stdout and stderr, may be: None, a constant or a descriptor, a file object.
InputFile = Union[None, int, HasFileno, HasRead]
OutputFile = Union[None, int, HasFileno, HasWrite]


class Sink(Protocol):
    """Where output goes.

    Threads: the copier's.
    """

    def write(self, data: bytes) -> None:
        """Write all of it."""

    def finish(self) -> None:
        """Note that no more will come."""

    def close(self) -> None:
        """Let go of the file; again is nothing."""


def descriptor_of(file: Any) -> Optional[int]:
    """Return the descriptor of a file object (or of a number), None if it has none.

    A replaced ``sys.stdout`` is asked to write itself even if it claims a descriptor: in a notebook the
    output belongs into the cell. A stream of ours is no exception: in a pipeline the user closes it as soon as
    the next process has it, and only a descriptor can be duplicated.
    """
    if isinstance(file, int):
        return file
    if file in (sys.stdout, sys.stderr) and file not in (sys.__stdout__, sys.__stderr__):
        return None
    try:
        descriptor = file.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if isinstance(descriptor, int) else None


def _duplicate(descriptor: int) -> io.FileIO:
    """Return a descriptor of our own for the same open file.

    As with subprocess, the user may close the file as soon as the process runs; its number may then be
    that of another one.
    """

    def make() -> io.FileIO:
        # Duplicated inside the file, which owns it at once. In two steps an interrupt between them has it
        # closed by both, and the second time it may be somebody else's.
        return io.FileIO(f"a copy of {descriptor}", "r+", opener=lambda *_: os.dup(descriptor))

    return forks.own(make)  # or the reader of a pipe would wait for the end of every fork


def _let_go(file: io.FileIO) -> None:
    """Close a descriptor of our own; again is nothing, and so is another thread that does the same."""
    with contextlib.suppress(OSError, ValueError):  # it is closed
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()  # which may wait for a file server, and whose end nobody waits for
    forks.close(file)


class _DescriptorSink:
    def __init__(self, descriptor: int, file: Any) -> None:
        self._file = _duplicate(descriptor)
        self._stream = file if hasattr(file, "bridged") else None  # one of ours

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._file.fileno(), view) :]
            except BlockingIOError:  # somebody made the terminal non-blocking
                ready(self._file, selectors.EVENT_WRITE, NEVER)
            except BrokenPipeError as exc:
                if self._stream is None:
                    raise
                raise StreamBroken(
                    f"{self._stream!r}: the process or connection has ended"
                ) from exc

    def finish(self) -> None:
        pass

    def close(self) -> None:
        _let_go(self._file)


class _BinarySink:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        while data:
            # A raw file may take less; one that returns None has taken all.
            count = self._file.write(data)
            if count == 0:
                raise OSError(f"{type(self._file).__name__}.write() takes no bytes")
            data = b"" if count is None else data[count:]

    def finish(self) -> None:
        if hasattr(self._file, "flush"):
            self._file.flush()

    def close(self) -> None:
        pass


class _TextSink:
    def __init__(self, file: Any, encoding: Optional[str], errors: Optional[str]) -> None:
        self._file = file
        # Strict by default would end a command for a character that is only to be looked at.
        make = codecs.getincrementaldecoder(encoding or "utf-8")
        self._decoder = make(errors or "replace")

    def write(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if text:
            self._file.write(text)
            self._flush()

    def finish(self) -> None:
        text = self._decoder.decode(b"", final=True)
        if text:
            self._file.write(text)
        self._flush()

    def close(self) -> None:
        pass

    def _flush(self) -> None:
        if hasattr(self._file, "flush"):
            self._file.flush()


def sink_for(
    file: Any,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    *,
    text: bool = False,
) -> Sink:
    """Choose how to write to a file object, or to a descriptor given as a number.

    Args:
        file: of the user.
        encoding: of the output, for a file that takes str; by default UTF-8.
        errors: what to do with what is not text; by default replaced.
        text: whether it is known to take str, as ``sys.stdout`` is; else an ``encoding`` shows it.

    Returns:
        A sink that must be closed.

    Raises:
        TypeError: it is neither.
        ValueError: it is closed.
        OSError: it is no descriptor.
    """
    _check_open(file)
    descriptor = descriptor_of(file)
    if descriptor is not None:
        if hasattr(file, "flush"):
            file.flush()  # what the user wrote before comes before
        return _DescriptorSink(descriptor, file)
    if not hasattr(file, "write"):
        raise TypeError(f"output needs a file with write() or fileno(), not {type(file).__name__}")
    # TextIOBase has an encoding, and so have the stand-ins for it in notebooks and test runners.
    text = text or hasattr(file, "encoding")
    return _TextSink(file, encoding, errors) if text else _BinarySink(file)


class Source:
    """Where input comes from: a file object, or a descriptor given as a number.

    Args:
        file: of the user.
        encoding: of what a file that gives str gives; by default UTF-8.
        errors: what to do with characters that cannot be encoded.

    Raises:
        TypeError: it is neither.
        ValueError: it is closed.
        OSError: it is no descriptor.

    Threads: made by the user's, then the copier's. It must be closed.
    """

    def __init__(self, file: Any, encoding: Optional[str], errors: Optional[str]) -> None:
        _check_open(file)
        if isinstance(file, (str, bytes)):
            raise TypeError("stdin is a file, not the input itself: use input=")
        descriptor = descriptor_of(file)
        self._own = None if descriptor is None else _duplicate(descriptor)
        if self._own is None and not hasattr(file, "read"):
            kind = type(file).__name__
            raise TypeError(f"input needs a file with read() or fileno(), not {kind}")
        self._read = _reader(file)
        # Of one of our streams: behind its descriptor a lost connection looks like an end.
        self._stream = getattr(file, "_stream", file)
        self._codec = (encoding or "utf-8", errors or "strict")

    def read(self, waker: Waker) -> bytes:
        """Read what there is, at least one byte; ``b""`` at the end, or once the waker is awake.

        Raises:
            ConnectionLost: it was the output of another process, and nobody knows the rest.

        Threads: blocks.
        """
        if self._own is None:
            data = self._read(CHUNK)
            return data.encode(*self._codec) if isinstance(data, str) else bytes(data or b"")
        if not _wait(self._own, waker):
            return b""
        data = os.read(self._own.fileno(), CHUNK)
        loss = None if data else getattr(self._stream, "loss", None)
        if isinstance(loss, ConnectionLost):
            raise loss  # half of the input is not all of it
        return data

    def close(self) -> None:
        """Let go of the file; again is nothing."""
        if self._own is not None:
            _let_go(self._own)


def _reader(file: Any) -> Any:
    """Choose the method that returns what is there: a reader of many bytes waits for all of them."""
    if isinstance(file, io.TextIOBase) and not isinstance(file, io.StringIO):
        return file.readline
    return getattr(file, "read1", None) or getattr(file, "read", None)


def _wait(file: io.FileIO, waker: Waker) -> bool:
    """Wait for input; return False if the waker came first."""
    if sys.platform == "win32":
        return True  # only sockets can be waited for there
    with Selector() as selector:
        selector.register(waker.fileno, selectors.EVENT_READ)
        selector.register(file, selectors.EVENT_READ)
        return all(key.fileobj != waker.fileno for key, _ in select(selector, NEVER))


def terminal_size(file: Any) -> Optional[tuple[int, int]]:
    """Return rows and columns of a terminal; None if it is none, or does not know."""
    descriptor = descriptor_of(file)
    try:
        cols, rows = (0, 0) if descriptor is None else os.get_terminal_size(descriptor)
    except (OSError, ValueError):
        return None
    return (rows, cols) if rows and cols else None


def _check_open(file: Any) -> None:
    if getattr(file, "closed", False) is True:
        raise ValueError("I/O operation on closed file.")
