"""Descriptors for channels: what makes select, asyncio and child processes work on a stream.

The user's end is one end of an OS pipe (a child that opens ``/dev/stdin`` could not open a socket), the
connection's loop serves the other, so no thread is added and nothing waits. Where pipes cannot be
waited for, on Windows, it is a socketpair.
"""

from __future__ import annotations

import io
import itertools
import os
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Optional, cast

from kubews.errors import KubewsError
from kubews.transport import forks
from kubews.transport.connection import Connection
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Expired, nothing
from kubews.transport.wire import prepare

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_CHUNK = 65536
_NOW = Deadline(0)

# Chunks that are moved before somebody else gets a turn.
_TURN = 16


def _pair() -> tuple[io.RawIOBase, io.RawIOBase]:
    """Return the end to read from and the end to write to."""
    if sys.platform == "win32":
        reader, writer = socket.socketpair()
        with reader, writer:  # the files keep them open
            return (
                cast(io.RawIOBase, reader.makefile("rb", buffering=0)),
                cast(io.RawIOBase, writer.makefile("wb", buffering=0)),
            )
    numbers: dict[str, int] = {}
    try:
        # Each in one step of the interpreter: Ctrl-C comes between two, most of all behind a system call.
        both = itertools.chain.from_iterable(itertools.starmap(os.pipe, [()]))
        numbers.update(zip(("rb", "wb"), both, strict=True))
        read, write = (io.FileIO(mode, mode, opener=numbers.pop) for mode in ("rb", "wb"))
        return read, write
    except BaseException:
        for number in numbers.values():
            os.close(number)
        raise


def _ends(*, reading: bool) -> tuple[io.RawIOBase, io.RawIOBase]:
    """Return the user's end, to read from or to write to, and the loop's, which every fork closes."""
    with forks.lock:
        reader, writer = _pair()
        user, own = (reader, writer) if reading else (writer, reader)
        forks.own(lambda: own)
    return user, own


class _Bridge:
    """One end for the user, one for the loop.

    Args:
        user: blocking, until the user says otherwise.
        own: the loop's.
        keep: what must live for as long as the user may use the descriptor.

    Threads: ``end`` is the user's; everything else is the loop's.
    """

    def __init__(self, user: io.RawIOBase, own: io.RawIOBase, keep: object) -> None:
        self.end = user
        self._own = own
        self._keep: Optional[object] = keep
        self._started = False
        self._loop: Optional[Loop] = None
        self._released: Callable[[], None] = nothing
        os.set_blocking(own.fileno(), False)

    def fileno(self) -> int:
        """Return the loop's descriptor."""
        return self._own.fileno()

    def start(self, loop: Loop, released: Callable[[], None]) -> None:
        """Begin to serve, once; of a second start there is nothing to serve.

        Args:
            loop: the current one.
            released: called once, when there is nothing more to serve.
        """
        if self._started:
            released()
            return
        self._started = True
        self._loop, self._released = loop, released
        self.serve(0)

    def serve(self, events: int) -> None:
        """Move what can be moved, and wait for more."""
        if self._loop is None:
            return
        wanted = self._pump(events)
        if wanted is None:
            self.close()
        else:
            self._loop.register(self, wanted, self.serve)

    def close(self) -> None:
        """Close the loop's end: the user sees an end of file, or a broken pipe."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.register(self, 0, self.serve)
            forks.close(self._own)
            self._keep = None
            self._released()

    def _pump(self, events: int) -> Optional[int]:
        raise AssertionError("a subclass pumps")


class OutputBridge(_Bridge):
    """From a channel to a descriptor that the user reads.

    Args:
        pipe: the channel.
        keep: the session: a descriptor may outlive all streams.

    Threads: made by any; then see ``_Bridge``.
    """

    def __init__(self, pipe: Pipe, keep: object) -> None:
        super().__init__(*_ends(reading=True), keep)
        self._pipe = pipe
        self._unsent = memoryview(b"")

    def start(self, loop: Loop, released: Callable[[], None]) -> None:
        """See ``_Bridge``; from now on nobody reads the channel any more."""
        self._pipe.move()
        super().start(loop, released)

    def _pump(self, events: int) -> Optional[int]:
        """Return the events to wait for, None if there is nothing more to do."""
        try:
            if events & READ:  # a write end that is readable has lost its reader
                raise BrokenPipeError
            while self._fill():
                count = self._own.write(self._unsent)
                if count is None:  # it would block
                    return READ | WRITE
                self._unsent = self._unsent[count:]
        except OSError:
            self._pipe.close()  # what comes now is unwanted: a local process would get SIGPIPE
            return None
        return None if self._pipe.ended else READ

    def _fill(self) -> bool:
        if not self._unsent and self._pipe.size:
            try:
                self._unsent = memoryview(self._pipe.take_for_descriptor(_CHUNK))
            except (KubewsError, ValueError):
                pass  # somebody has closed the channel
        return bool(self._unsent)


class InputBridge(_Bridge):
    """From a descriptor that the user writes to a channel.

    Args:
        connection: of the channel.
        stream_id: the channel.
        keep: the session.

    Threads: made by any; then see ``_Bridge``.
    """

    def __init__(self, connection: Connection, stream_id: int, keep: object) -> None:
        prepare()
        super().__init__(*_ends(reading=False), keep)
        self._connection = connection
        self._stream_id = stream_id
        self._unsent = Unsent(b"")

    def _pump(self, events: int) -> Optional[int]:
        """Return the events to wait for, None if there is nothing more to do."""
        try:
            for _ in range(_TURN):
                if not self._connection.has_room():
                    return 0  # the connection asks again when there is
                if self._unsent.done:
                    data = self._own.read(_CHUNK)
                    if data is None:
                        break
                    if not data:  # every copy of the user's end is closed
                        self._connection.end(self._stream_id)
                        return None
                    self._unsent = Unsent(data)
                self._connection.send(self._stream_id, self._unsent, _NOW)
        except Expired:
            return 0  # somebody else has just filled the queue
        except (OSError, KubewsError):
            return None
        return READ
