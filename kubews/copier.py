"""Copying between a channel and a file of the user, in a daemon thread a file.

The loop must never wait for a user's file, so each gets a thread that may: a terminal that is stopped
holds up its own channel and nothing else.
"""

from __future__ import annotations

import codecs
import os
import selectors
import sys
import threading
from typing import Any, Optional, Protocol

from kubews.errors import ConnectionLost, HalfCloseUnsupported, StreamBroken
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER
from kubews.transport.loop import Waker
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Outcome

_CHUNK = 65536


class Sink(Protocol):
    """Where output goes.

    Threads: the copier's.
    """

    def write(self, data: bytes) -> None:
        """Write all of it."""

    def finish(self) -> None:
        """Note that no more will come."""


def descriptor_of(file: Any) -> Optional[int]:
    """Return the descriptor of a file object (or of a number), None if it has none.

    A replaced ``sys.stdout`` is asked to write itself even if it claims a descriptor: in a notebook the
    output belongs into the cell.
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


class _DescriptorSink:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # somebody made the terminal non-blocking
                with selectors.DefaultSelector() as selector:
                    selector.register(self._descriptor, selectors.EVENT_WRITE)
                    selector.select()

    def finish(self) -> None:
        pass


class _BinarySink:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A raw file may take less; one that returns None has taken all.
            count = self._file.write(view)
            view = view[len(view) if count is None else count :]

    def finish(self) -> None:
        if hasattr(self._file, "flush"):
            self._file.flush()


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

    def _flush(self) -> None:
        if hasattr(self._file, "flush"):
            self._file.flush()


def sink_for(file: Any, encoding: Optional[str] = None, errors: Optional[str] = None) -> Sink:
    """Choose how to write to a file object, or to a descriptor given as a number.

    Args:
        file: of the user.
        encoding: of the output, for a file that takes str; by default UTF-8.
        errors: what to do with what is not text; by default replaced.

    Raises:
        TypeError: it is neither.
        ValueError: it is closed.
    """
    _check_open(file)
    descriptor = descriptor_of(file)
    if descriptor is not None:
        if hasattr(file, "flush"):
            file.flush()  # what the user wrote before comes before
        return _DescriptorSink(descriptor)
    if not hasattr(file, "write"):
        raise TypeError(f"output needs a file with write() or fileno(), not {type(file).__name__}")
    # TextIOBase has an encoding, and so have the stand-ins for it in notebooks and test runners.
    text = hasattr(file, "encoding")
    return _TextSink(file, encoding, errors) if text else _BinarySink(file)


def check_source(file: Any) -> None:
    """Check that a file object, or a descriptor given as a number, can be read from.

    Raises:
        TypeError: it cannot.
        ValueError: it is closed.
    """
    _check_open(file)
    if isinstance(file, (str, bytes)):
        raise TypeError("stdin is a file, not the input itself: use input=")
    if descriptor_of(file) is None and not hasattr(file, "read"):
        raise TypeError(f"input needs a file with read() or fileno(), not {type(file).__name__}")


def _check_open(file: Any) -> None:
    if getattr(file, "closed", False) is True:
        raise ValueError("I/O operation on closed file.")


class _Copier:
    """A daemon thread that copies until its end; its first exception cuts the connection.

    Threads: ``done`` may be waited for by any.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        #: Set when the last byte is copied, or to the exception that a file of the user raised.
        self.done: Outcome[None] = Outcome()
        thread = threading.Thread(
            target=self._run, name=f"kubews {name} {connection.where}", daemon=True
        )
        thread.start()

    def _run(self) -> None:
        try:
            self._copy()
        except (
            BaseException
        ) as exc:  # of the user's file: what ends the connection is told elsewhere
            error = exc if isinstance(exc, Exception) else RuntimeError(repr(exc))
            self.done.set_exception(error)
            self._connection.abort(f"copying failed: {exc!r}")
        else:
            self.done.set(None)

    def _copy(self) -> None:
        raise AssertionError("a subclass copies")


class OutputCopier(_Copier):
    """Copy a channel to a file of the user.

    Args:
        connection: of the process.
        pipe: the channel.
        sink: where to.

    Threads: starts one.
    """

    def __init__(self, connection: Connection, pipe: Pipe, sink: Sink) -> None:
        self._pipe = pipe
        self._sink = sink
        super().__init__(connection, "output of")

    def _copy(self) -> None:
        try:
            while data := self._take():
                self._sink.write(data)
        finally:
            self._sink.finish()

    def _take(self) -> bytes:
        try:
            return self._pipe.take(_CHUNK, NEVER)
        except ConnectionLost:
            return b""  # told by the exit status


class InputCopier(_Copier):
    """Copy a file of the user to stdin; its end is the end of stdin.

    Args:
        connection: of the process.
        stream_id: of stdin.
        file: what ``check_source`` let pass.
        encoding: of a file that gives str.
        errors: what to do with characters that cannot be encoded.

    Threads: starts one.
    """

    def __init__(
        self,
        connection: Connection,
        stream_id: int,
        file: Any,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
    ) -> None:
        self._stream_id = stream_id
        self._codec = (encoding or "utf-8", errors or "strict")
        self._file = file
        self._descriptor = descriptor_of(file)
        # The process may end while the file has nothing to say: a terminal, an idle pipe. The thread
        # must not sit on in a read, where it would swallow what the user types next.
        self._waker = Waker()
        super().__init__(connection, "input of")
        connection.on_closed(self.stop)

    def stop(self) -> None:
        """Stop copying: the process has ended.

        Threads: any; does not block.
        """
        self._waker.wake()

    def _copy(self) -> None:
        try:
            while data := self._read():
                if not self._send(data):
                    return
            try:
                self._connection.end(self._stream_id)
            except (StreamBroken, HalfCloseUnsupported):
                pass  # nobody is left to be told; or a tty, where the end is a key
        finally:
            self._waker.close()

    def _send(self, data: bytes) -> bool:
        source = Unsent(data)
        try:
            while not source.done:
                self._connection.send(self._stream_id, source, NEVER)
        except StreamBroken:
            return False  # the process has ended, or the connection: told by the exit status
        return True

    def _read(self) -> bytes:
        if self._descriptor is None:
            data = self._file.read(_CHUNK)
            return data.encode(*self._codec) if isinstance(data, str) else bytes(data or b"")
        if not self._wait(self._descriptor):
            return b""
        return os.read(self._descriptor, _CHUNK)

    def _wait(self, descriptor: int) -> bool:
        if sys.platform == "win32":
            return True  # only sockets can be waited for there
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            selector.register(self._waker.fileno, selectors.EVENT_READ)
            selector.register(descriptor, selectors.EVENT_READ)
            return all(key.fileobj != self._waker.fileno for key, _ in selector.select())
