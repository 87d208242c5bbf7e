"""Stream: one direction of a channel as a raw file object."""

from __future__ import annotations

import io
import os
import selectors
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.bridge import InputBridge, OutputBridge
from kubews.errors import ConnectionLost, HalfCloseUnsupported, ReadTimeout, StreamBroken
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.outbox import Unsent
from kubews.transport.patience import ready
from kubews.transport.pipe import Moved, Pipe, Taken
from kubews.transport.wait import Expired, fresh

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from typing_extensions import Buffer

    from kubews.session import Session

_CHUNK = 65536

# Seconds until a writer looks again whether its descriptor is open: a wait is not ended by its close.
_LOOK = 0.1


class Stream(io.RawIOBase):
    """One direction of one channel, unbuffered.

    Reading returns what is there, at least one byte, and ``b""`` only at the end. If the connection is
    lost, the bytes that came before are returned first, then every call raises ConnectionLost.

    Args:
        session: of the process.
        stream_id: the channel.
        pipe: the bytes to read; None makes a stream to write.

    Threads: any number. Reads divide the bytes between them; each write is whole up to 64 KiB.
    """

    def __init__(self, session: Session, stream_id: int, pipe: Optional[Pipe] = None) -> None:
        self._session = session
        self._connection = session.connection
        self._stream_id = stream_id
        self._pipe = pipe
        #: Whether the last read of the descriptor met its end.
        self.drained = False
        self._finalizing = False
        self._lock = threading.RLock()
        # Set under the lock: from then on the bytes go through a descriptor.
        self._bridge: Union[InputBridge, OutputBridge, None] = None

    def __repr__(self) -> str:
        name = self._connection.name(self._stream_id)
        state = " (closed)" if self.closed else ""
        return f"<kubews.Stream {name} of {self._connection.where}{state}>"

    # -- reading

    def readable(self) -> bool:
        """Return whether this is a stream to read."""
        self._check_open()
        return self._pipe is not None

    def readinto(self, b: WriteableBuffer) -> int:
        """Read at least one byte into ``b``; return their number, 0 at the end.

        Threads: blocks.
        """
        taken: Taken = []
        try:
            return self._readinto(b, taken)
        except BaseException:  # Ctrl-C behind the call
            self._put_back(taken)
            raise

    def fill(self, b: WriteableBuffer) -> int:
        """As ``readinto``, but a lost connection is the end.

        Threads: blocks.
        """
        taken: Taken = []
        try:
            return self._readinto(b, taken)
        except ConnectionLost:
            return 0
        except BaseException:  # Ctrl-C behind the call
            self._put_back(taken)
            raise

    def _readinto(self, b: WriteableBuffer, taken: Taken) -> int:
        pipe, view = self._reading(), memoryview(b).cast("B")
        if self._bridge is None:
            try:
                return pipe.readinto(view, NEVER, taken)
            except Moved:
                pass
        return self._readinto_bridge(view)  # type: ignore[no-any-return]

    def _put_back(self, taken: Taken) -> None:
        if taken and self._pipe is not None:
            self._pipe.put_back(taken)

    def read(self, size: Optional[int] = -1) -> bytes:
        """Read at least one byte, at most ``size``; everything if ``size`` is negative.

        Threads: blocks.
        """
        if size is None or size < 0:
            return self.readall()
        # The inherited one fills a buffer with zeros first.
        pipe = self._reading()
        taken: Taken = []
        try:
            if self._bridge is None:
                return pipe.take(size, NEVER, taken)
        except Moved:
            pass
        except BaseException:  # Ctrl-C behind the call
            self._put_back(taken)
            raise
        return super().read(size)

    def readall(self) -> bytes:
        """Read to the end.

        Raises:
            ConnectionLost: ``partial`` has what came; reading again returns it too, but not what came out of
                a descriptor.

        Threads: blocks.
        """
        return self._read_all(quiet=False)

    def read_out(self) -> bytes:
        """As ``readall``, but a lost connection is the end.

        Threads: blocks.
        """
        return self._read_all(quiet=True)

    def _read_all(self, *, quiet: bool) -> bytes:
        pipe = self._reading()
        pieces: list[bytes] = []
        try:
            try:
                would_block = self._gather(pipe, pieces)
                if would_block and not pieces:
                    return None  # type: ignore[return-value]  # as every raw file
            except ConnectionLost as exc:
                if not quiet:
                    exc.partial = b"".join(pieces)
                    if self._bridge is None:
                        pipe.put_back(pieces)
                    raise
            return b"".join(pieces)
        except BaseException:  # Ctrl-C, wherever it comes
            if self._bridge is None:
                pipe.put_back(pieces)
            raise

    def _gather(self, pipe: Pipe, pieces: list[bytes]) -> bool:
        """Read to the end; return whether it is none, but a descriptor that the user has made non-blocking."""
        try:
            # Another reader may have been faster: nothing taken is not the end, nor a clean one.
            while self._bridge is None and pipe.wait_data(NEVER):
                if not pipe.take_all(pieces) and pipe.at_end():
                    return False
        except Moved:
            pass
        while data := super().read(_CHUNK):
            pieces.append(data)
        return data is None

    def peek(self, size: int = 0) -> bytes:
        """Return buffered bytes without taking them, ``b""`` at the end; ``size`` is only a hint.

        Behind a descriptor nothing can be seen without taking it, so that ``b""`` says nothing.

        Threads: blocks while there are none.
        """
        pipe = self._reading()
        try:
            return b"" if self._bridge is not None else pipe.peek(NEVER)
        except Moved:
            return b""

    def recv(self, size: int, timeout: Optional[float] = None) -> bytes:
        """Read at least one byte, at most ``size``: the only read with a time limit.

        Args:
            size: bytes.
            timeout: seconds; None for ever.

        Returns:
            The bytes, ``b""`` at the end.

        Raises:
            ReadTimeout: nothing came in time; nothing was taken.
            ConnectionLost: as for ``read``.

        Threads: blocks. Ctrl-C loses nothing, unless the bytes come out of a descriptor.
        """
        if size < 0:
            raise ValueError(f"cannot receive {size} bytes: read() reads to the end")
        deadline = Deadline(timeout)
        taken: Taken = []
        pipe = self._reading()
        try:
            if self._bridge is None:
                return pipe.take(size, deadline, taken)
        except Moved:
            pass
        except Expired as exc:
            raise self._too_late(timeout) from exc
        except BaseException:  # Ctrl-C behind the call
            self._put_back(taken)
            raise
        if not ready(self, selectors.EVENT_READ, deadline):
            raise self._too_late(timeout)
        return self.read(size)

    def _too_late(self, timeout: Optional[float]) -> ReadTimeout:
        return ReadTimeout(f"nothing came from {self!r} in {timeout} s")

    @property
    def loss(self) -> Optional[ConnectionLost]:
        """The ConnectionLost that stands behind the last byte, once that byte is read.

        Behind a descriptor that is when the descriptor ends: what did not get into it is lost.
        """
        pipe = self._pipe
        if pipe is None or not isinstance(pipe.error, ConnectionLost):
            return None
        if pipe.size and self._bridge is None:
            return None
        exc = fresh(pipe.error)
        assert isinstance(exc, ConnectionLost)
        return exc

    @property
    def inherited(self) -> bool:
        """Whether this is the stream of the process from which this one was forked."""
        return self._connection.inherited

    def on_connection_closed(self, function: Callable[[], None]) -> None:
        """Call a function that does not block once the connection has ended, at once if it has.

        Threads: any; it is called in the connection's thread, or in this one.
        """
        self._connection.on_closed(function)

    # -- writing

    def writable(self) -> bool:
        """Return whether this is a stream to write."""
        self._check_open()
        return self._pipe is None

    def write(self, b: Buffer) -> int:
        """Write all of ``b``; wait while the queue to the server is full.

        Each call makes messages of its own; ``io.BufferedWriter`` gathers many small ones.

        Returns:
            The number of bytes, always all.

        Raises:
            StreamBroken: the process or the connection has ended.

        Threads: blocks.
        """
        if self._pipe is not None:
            raise io.UnsupportedOperation("not writable")
        self._check_open()
        source = Unsent(b)
        while not source.done:
            self._check_open()  # nothing may follow the end that another thread has sent
            if self._bridge is not None:
                self._write_bridge(self._bridge.end, source)
            else:
                self._connection.send(self._stream_id, source, NEVER)
        return source.offset

    def close_write(self) -> None:
        """Tell the process that nothing more will come; output and exit code still arrive.

        Raises:
            HalfCloseUnsupported: the subprotocol (v4) cannot; nothing was sent.

        Threads: does not block.
        """
        if self._bridge is not None:
            self._bridge.end.close()  # the end comes when every copy of it is closed
            return
        try:
            self._connection.end(self._stream_id)
        except StreamBroken:
            pass  # nobody is left to be told

    # -- descriptors

    @property
    def bridged(self) -> bool:
        """Whether ``fileno()`` was called, so that the bytes go through a descriptor."""
        return self._bridge is not None

    def fileno(self) -> int:
        """Return a descriptor for select, asyncio and child processes; make it at the first call.

        From then on the bytes go through an OS pipe that the connection's thread serves: two descriptors
        and a copy more. What a child takes from it, this stream does not see; a lost connection looks like
        an end of file to the child, so ask ``wait()``. Bytes that a buffered wrapper has read already are
        not in it, as with subprocess.

        Returns:
            The descriptor, which ``close()`` closes; copies of it live on.

        Raises:
            HalfCloseUnsupported: the subprotocol (v4) could not be told of its end.

        Threads: any.
        """
        self._check_open()
        with self._lock:
            if self._bridge is None:
                self._serve_bridge(self._build_bridge())
            assert self._bridge is not None
            return self._bridge.end.fileno()

    def detach_fd(self) -> int:
        """Hand the descriptor over, and close this stream without it.

        Returns:
            The descriptor; whoever gets it closes it.

        Threads: any.
        """
        descriptor = os.dup(self.fileno())
        try:
            self.close()
        except BaseException:  # Ctrl-C too: nobody will know the number
            os.close(descriptor)
            raise
        return descriptor

    def _build_bridge(self) -> Union[InputBridge, OutputBridge]:
        bridge: Union[InputBridge, OutputBridge]
        if self._pipe is not None:
            bridge = OutputBridge(self._pipe, self._session)
        else:
            self._connection.end_frame(self._stream_id)  # raises where there is none
            bridge = InputBridge(self._connection, self._stream_id, self._session)
        return bridge

    def _serve_bridge(self, bridge: Union[InputBridge, OutputBridge]) -> None:
        # Held here before the loop hears of it: it takes bytes at once, which Ctrl-C must not lose.
        self._bridge = bridge
        try:
            self._connection.bridges.attach(bridge)
        except BaseException:
            try:
                # Nobody knows how far that came, and a second start is nothing.
                self._connection.bridges.attach(bridge)
            except RuntimeError:  # there is no thread to be had, so nothing was taken
                self._bridge = None
            raise

    def _readinto_bridge(self, view: memoryview) -> Any:
        assert self._bridge is not None
        count = self._bridge.end.readinto(view)
        self.drained = count == 0 and len(view) > 0
        if self.drained and (loss := self.loss) is not None:
            raise loss
        return count  # None, as for every raw file, if the user made it non-blocking

    def _write_bridge(self, end: io.RawIOBase, source: Unsent) -> None:
        try:
            count = end.write(source.view[source.offset :])
        except BrokenPipeError as exc:
            where = self._connection.where
            raise StreamBroken(f"{where}: the process or the connection has ended") from exc
        if count is None:  # the user has made it non-blocking, and may close it meanwhile
            ready(end, selectors.EVENT_WRITE, Deadline(_LOOK))
        else:
            source.offset += count

    # -- both

    def seekable(self) -> bool:
        """Return False: there is no way back."""
        self._check_open()
        return False

    def close(self) -> None:
        """Close this stream: a half-close of stdin, a closed door for output.

        Raises:
            HalfCloseUnsupported: once, where the subprotocol (v4) cannot end stdin.

        Threads: does not block; wakes those who read; legal in a finalizer.
        """
        if self.closed:
            return
        # It counts as closed only at the very end: a close that Ctrl-C has stopped can be made again.
        if self._pipe is not None:
            if self._bridge is None:
                self._pipe.close()
            else:
                self._bridge.end.close()  # a child may have a copy, and then goes on
            super().close()
            return
        try:
            self.close_write()
        except HalfCloseUnsupported:
            if not self._finalizing:
                super().close()
                raise
        super().close()

    def abort(self) -> None:
        """Cut the whole connection; everybody who reads or writes is woken.

        Threads: does not block.
        """
        self._connection.abort()

    def __del__(self) -> None:
        self._finalizing = True
        if hasattr(self, "_bridge"):  # otherwise Ctrl-C came before
            super().__del__()

    def _dealloc_warn(self, source: Any) -> None:
        # A wrapper calls this when it is being finalized, just before it closes us.
        self._finalizing = True

    def _reading(self) -> Pipe:
        if self._pipe is None:
            raise io.UnsupportedOperation("not readable")
        self._check_open()
        return self._pipe

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if not self.inherited:
            return
        # Not even through a descriptor: what comes out of it is the parent's, too.
        lost = self._connection.lost_by_fork()
        raise lost if self._pipe is not None else StreamBroken(str(lost))
