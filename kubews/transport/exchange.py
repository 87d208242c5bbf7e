"""One HTTP exchange whose bodies stream: sent as they are made, and read as they come."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import selectors
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    RemoteProtocolError,
)
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.http import Headers
from kubews.transport.patience import patiently
from kubews.transport.tlssockets import Socket, hang_up

if TYPE_CHECKING:
    import http.client
    from email.message import Message

    from typing_extensions import Buffer

#: Bytes, a binary file, or pieces as they are made.
Body = Union["Buffer", io.RawIOBase, io.BufferedIOBase, Iterable[bytes], None]

_CHUNK = 1 << 16


class PatientSocket:
    """A socket that waits, as libraries expect theirs to do, over one that never does.

    Args:
        sock: connected and non-blocking; closed together with this.
        timeout: seconds for each call, None for ever.
        ahead: bytes that were received already.

    Threads: one may read while another writes.
    """

    def __init__(self, sock: Socket, timeout: Optional[float], ahead: bytes = b"") -> None:
        self._sock = sock
        self._timeout = timeout
        self._ahead = ahead
        self._closed = False  # websocket-client asks for it by this name

    def recv(self, size: int) -> bytes:
        """Return at least one byte, ``b""`` at the end.

        Raises:
            TimeoutError: none came in time.

        Threads: blocks.
        """
        if self._closed:
            raise OSError(errno.EBADF, "the socket is closed")
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        receive = functools.partial(self._sock.recv, size)
        return patiently(receive, self._sock, selectors.EVENT_READ, Deadline(self._timeout))

    def send(self, data: Buffer) -> int:
        """Send some bytes; return how many.

        Raises:
            TimeoutError: nobody took one in time.

        Threads: blocks.
        """
        send = functools.partial(self._sock.send, data)
        return patiently(send, self._sock, selectors.EVENT_WRITE, Deadline(self._timeout))

    def sendall(self, data: Buffer) -> None:
        """Send everything; the time limit is that of each wait.

        Threads: blocks.
        """
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, as http.client wants it."""
        return io.BufferedReader(_Reader(self), _CHUNK)

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def gettimeout(self) -> Optional[float]:
        """Return the seconds for each call, None for ever."""
        return self._timeout

    def settimeout(self, timeout: Optional[float]) -> None:
        """Set the seconds for each call, None for ever."""
        self._timeout = timeout

    def shutdown(self, how: int) -> None:
        """End both directions at once, whoever waits for one of them.

        Threads: any.
        """
        hang_up(self._sock)

    def close(self) -> None:
        """Close the socket; whoever waits for it leaves; again is nothing.

        Threads: any.
        """
        hang_up(self._sock)
        self._closed = True
        forks.close(self._sock)


class _Reader(io.RawIOBase):
    def __init__(self, sock: PatientSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, b: Any) -> int:
        data = self._sock.recv(len(b))
        b[: len(data)] = data
        return len(data)


class HttpResponse(io.BufferedReader):
    """An HTTP answer, whose body is read as it comes: a binary file to read, and a context manager.

    Args:
        answer: behind its head.
        sock: what it comes from; closed together with this.
        what: the request in words, for messages.

    Threads: one at a time; ``abort`` is for any.
    """

    def __init__(self, answer: http.client.HTTPResponse, sock: PatientSocket, what: str) -> None:
        self._sock = sock
        #: The status code, such as 200. The server's own refusals of the request are exceptions; what
        #: is behind the proxy answers as it likes.
        self.status: int = answer.status
        #: The words behind the code, which are the API server's own.
        self.reason: str = answer.reason.strip()
        #: Case does not count; a name may come more than once (``headers.get_all``).
        self.headers: Message = answer.headers
        self._body = _Body(answer, sock, what)
        super().__init__(self._body, _CHUNK)

    def __repr__(self) -> str:
        return f"<kubews.HttpResponse {self.status} {self.reason}>"

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """Read ``size`` bytes, or to the end; fewer only at the end.

        Raises:
            ConnectionLost: the body was cut, or nothing came for ``timeout`` seconds; what this call had read
                before is in ``partial``.

        Threads: blocks.
        """
        pieces = []
        left = -1 if size is None or size < 0 else size
        try:
            while left and (piece := self.read1(min(left, _CHUNK) if left > 0 else _CHUNK)):
                pieces.append(piece)
                left -= len(piece) if left > 0 else 0
        except ConnectionLost as exc:
            exc.partial = b"".join(pieces)
            raise
        return b"".join(pieces)

    def json(self) -> Any:
        """Read the rest and decode it.

        Raises:
            RemoteProtocolError: it is not JSON.

        Threads: blocks.
        """
        try:
            return json.loads(self.read())
        except (ValueError, RecursionError) as exc:
            raise RemoteProtocolError(f"the answer is not JSON: {exc}") from exc

    def look(self, most: int) -> Optional[bytes]:
        """Return the whole body without taking it, None if it is longer than that.

        Args:
            most: bytes.

        Threads: blocks.
        """
        return self._body.look(most)

    def abort(self) -> None:
        """End the connection; who reads sees ConnectionLost.

        Threads: any.
        """
        self._sock.shutdown(2)


class _Body(io.RawIOBase):
    def __init__(self, answer: http.client.HTTPResponse, sock: PatientSocket, what: str) -> None:
        self._answer = answer
        self._sock = sock
        self._what = what
        self._received = 0
        self._ahead = bytearray()
        # http.client minds it only if it reads everything in one piece, and counts only since 3.13.
        self._length: Optional[int] = answer.length

    def readable(self) -> bool:
        return True

    def look(self, most: int) -> Optional[bytes]:
        if (self._length or 0) > most:
            return None
        while len(self._ahead) <= most:
            piece = self._take(most)
            if not piece:
                return bytes(self._ahead)
            self._ahead += piece
        return None

    def readinto(self, b: Any) -> int:
        data = bytes(self._ahead[: len(b)]) if self._ahead else self._take(len(b))
        del self._ahead[: len(data)]
        b[: len(data)] = data
        if not data and len(b):
            self._sock.close()  # for who has read everything and does not close
        return len(data)

    def _take(self, most: int) -> bytes:
        import http.client

        # http.client makes room for as much as is asked for, each time.
        most = min(most, _CHUNK)
        size = most if self._length is None else min(most, self._length - self._received)
        try:
            data = self._answer.read1(size) if size else b""
            if size and not data and self._length is not None:
                raise http.client.IncompleteRead(b"", size)
        except TimeoutError as exc:
            raise self._lost(f"nothing came for {self._sock.gettimeout()} seconds") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise self._lost(str(exc) or type(exc).__name__) from exc
        self._received += len(data)
        return data

    def _lost(self, why: str) -> ConnectionLost:
        text = (
            f"{self._what}: the body of the answer broke off behind {self._received} bytes: {why}"
        )
        return ConnectionLost(text, received={"body": self._received})

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._answer.close()
            self._sock.close()


def exchange(
    sock: Socket,
    method: str,
    target: str,
    headers: Headers,
    body: Body,
    timeout: Optional[float],
    what: str,
) -> HttpResponse:
    """Make one request on a connection of its own.

    The request is sent to its end before the answer is read, so a server that answers while it is asked
    must have room for that. A server that refuses before it has read everything is heard.

    Args:
        sock: connected; the answer closes it, or the caller if this raises.
        method: such as ``GET``.
        target: path and query.
        headers: with ``Host``; checked by ``check_headers``.
        body: bytes go with their length, everything else in chunks.
        timeout: seconds for each wait, None for ever.
        what: the request in words, for messages.

    Raises:
        ConnectTimeout: the server took or said nothing for so long.
        ConnectFailed: the connection broke before the head of an answer came.

    Threads: blocks.
    """
    import http.client

    connection = http.client.HTTPConnection("unused", blocksize=_CHUNK)
    patient = PatientSocket(sock, timeout)
    connection.sock = patient
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        whole = _whole(body)
        if whole is not None:
            connection.putheader("Content-Length", str(len(whole)))
        elif body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
        # A server that has refused closes with our bytes unread, and its answer is what counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            connection.endheaders(
                body if whole is None else whole,
                encode_chunked=whole is None and body is not None,
            )
        answer = connection.getresponse()
    except TimeoutError as exc:
        raise ConnectTimeout(f"{what}: no answer within {timeout} seconds") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise ConnectFailed(f"{what}: the connection broke before an answer came: {exc}") from exc
    return HttpResponse(answer, patient, what)


def _whole(body: Body) -> Optional[bytes]:
    return bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else None
