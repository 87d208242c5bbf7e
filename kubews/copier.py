"""Copying between a channel and a file of the user, in a daemon thread a file.

The loop must never wait for a user's file, so each gets a thread that may: a terminal that is stopped
holds up its own channel and nothing else.
"""

from __future__ import annotations

from kubews.errors import ConnectionLost, StreamBroken
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER
from kubews.transport.loop import Waker
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import PatientThread
from kubews.userfiles import CHUNK, Sink, Source


class _Copier:
    """A daemon thread that copies until its end; its first exception cuts the connection.

    Threads: ``done`` may be waited for by any.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        #: Set when the last byte is copied, or to the exception that a file of the user raised.
        self.done = connection.outcome()
        PatientThread(self._run, f"kubews {name} {connection.where}").start()

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
            try:
                self._sink.finish()
            finally:
                self._sink.close()

    def _take(self) -> bytes:
        try:
            return self._pipe.take(CHUNK, NEVER)
        except ConnectionLost:
            if self._connection.succeeded():  # closed on this side, before all was copied
                raise
            return b""  # told by the exit status


class InputCopier(_Copier):
    """Copy a file of the user to stdin; its end is the end of stdin.

    Args:
        connection: of the process.
        stream_id: of stdin.
        source: closed at the end.

    Threads: starts one.
    """

    def __init__(self, connection: Connection, stream_id: int, source: Source) -> None:
        self._stream_id = stream_id
        self._source = source
        # The process may end while the file has nothing to say: a terminal, an idle pipe. The thread
        # must not sit on in a read, where it would swallow what the user types next.
        self._waker = Waker()
        connection.on_closed(self.stop)  # before there is a thread that Ctrl-C could keep from it
        super().__init__(connection, "input of")

    def stop(self) -> None:
        """Stop copying: the process has ended.

        Threads: any; does not block.
        """
        self._waker.wake()

    def _copy(self) -> None:
        try:
            while data := self._source.read(self._waker):
                if not self._send(data):
                    return
            try:
                self._connection.end(self._stream_id)
            except StreamBroken:
                pass  # nobody is left to be told
        finally:
            self._waker.close()
            self._source.close()

    def _send(self, data: bytes) -> bool:
        source = Unsent(data)
        try:
            while not source.done:
                self._connection.send(self._stream_id, source, NEVER)
        except StreamBroken:
            return False  # the process has ended, or the connection: told by the exit status
        return True
