"""One HTTP exchange whose bodies stream: sent as they are made, and read as they come."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import socket
import ssl
import stat
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    LocalProtocolError,
    RemoteProtocolError,
)
from kubews.transport.deadline import Deadline
from kubews.transport.http import Headers
from kubews.transport.patientsocket import PatientSocket

if TYPE_CHECKING:
    import http.client
    from email.message import Message

    from typing_extensions import Buffer

    from kubews.transport.tlssockets import Socket

#: Bytes, a binary file, or pieces as they are made.
Body = Union["Buffer", io.RawIOBase, io.BufferedIOBase, Iterable["Buffer"], None]

_CHUNK = 1 << 16
# Of all heads together that one request gets.
_MAX_HEAD = 1 << 18
_DIGITS = re.compile("[0-9]{1,19}")


class _Reader(io.RawIOBase):
    """What http.client reads from: a head in one time and of one size, and then a body piece by piece."""

    def __init__(self, sock: PatientSocket, until: Deadline) -> None:
        self._sock = sock
        self._until: Optional[Deadline] = until
        self._left = _MAX_HEAD

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return itself as http.client wants it."""
        return _Buffered(self, _CHUNK)

    def readable(self) -> bool:
        return True

    def readinto(self, b: Any) -> int:
        if self._left < 0:
            raise ConnectionAbortedError(f"the head is longer than {_MAX_HEAD} bytes")
        data = self._sock.recv(len(b), self._until)
        if self._until is not None:
            self._left -= len(data)
            if not data:  # http.client takes the end for that of the headers
                raise ConnectionResetError("the connection ended in front of the body")
        b[: len(data)] = data
        return len(data)

    def to_body(self) -> None:
        """Let everything that follows take its time."""
        self._until, self._left = None, 0


class _Buffered(io.BufferedReader):
    def flush(self) -> None:
        """Do nothing: a collector may close this before the HTTPResponse, which flushes it then."""


class HttpResponse(io.BufferedReader):
    """An HTTP answer, whose body is read as it comes: a binary file to read, and a context manager.

    Args:
        answer: behind its head.
        sock: what it comes from; closed together with this.
        what: the request in words, for messages.

    Threads: one at a time; ``abort`` and ``close`` are for any.
    """

    def __init__(self, answer: http.client.HTTPResponse, sock: PatientSocket, what: str) -> None:
        #: The status code, such as 200. The server's own refusals of the request are exceptions; what
        #: is behind the proxy answers as it likes.
        self.status: int = answer.status
        #: The words behind the code, which are the API server's own.
        self.reason: str = answer.reason.strip()
        #: Case does not count; a name may come more than once (``headers.get_all``).
        self.headers: Message = answer.headers
        self._body = _Body(answer, sock, what)
        super().__init__(self._body, _CHUNK)
        self._sock = sock

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
        self._body.aborted = True
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection, whoever reads from it; again is nothing.

        Threads: any.
        """
        self.abort()  # who waits for the body has the lock of the buffer
        super().close()

    def __del__(self) -> None:
        if not hasattr(self, "_sock"):
            return  # Ctrl-C came before
        if self._sock.fileno() != -1:
            text = f"{self!r} was neither closed nor read to its end"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        self.close()


class _Body(io.RawIOBase):
    def __init__(self, answer: http.client.HTTPResponse, sock: PatientSocket, what: str) -> None:
        self._answer = answer
        self._sock = sock
        self._what = what
        self._received = 0
        self._ahead = bytearray()
        self._broken = ""  # why nothing more is to be read
        #: Whether the end of the connection is not the server's.
        self.aborted = False
        # http.client minds it only if it reads everything in one piece, and counts only since 3.13.
        self._length: Optional[int] = answer.length

    def readable(self) -> bool:
        return True

    def look(self, most: int) -> Optional[bytes]:
        if (self._length or 0) > most:
            return None
        with contextlib.suppress(ConnectionLost):  # who reads it hears of that
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

        if self._broken:
            raise self._lost(self._broken)  # http.client would take this for the end
        # http.client makes room for as much as is asked for, each time.
        most = min(most, _CHUNK)
        size = most if self._length is None else min(most, self._length - self._received)
        try:
            data = self._answer.read1(size) if size else b""
            if size and not data and (self._length is not None or self.aborted):
                raise http.client.IncompleteRead(b"", self._length and size)
        except TimeoutError as exc:
            raise self._lost(f"nothing came for {self._sock.gettimeout()} seconds") from exc
        except (OSError, http.client.HTTPException) as exc:
            why = str(exc) or type(exc).__name__
            raise self._lost("it was closed on this side" if self.aborted else why) from exc
        self._received += len(data)
        return data

    def _lost(self, why: str) -> ConnectionLost:
        self._broken = why
        text = (
            f"{self._what}: the body of the answer broke off behind {self._received} bytes: {why}"
        )
        return ConnectionLost(text, received={"body": self._received})

    def close(self) -> None:
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
    length: Optional[int] = None,
) -> HttpResponse:
    """Make one request on a connection of its own.

    The request is sent to its end before the answer is read, so a server that answers while it is asked
    must have room for that. A server that refuses before it has read everything is heard.

    Args:
        sock: connected; the answer closes it, or the caller if this raises.
        method: such as ``GET``.
        target: path and query.
        headers: with ``Host``; checked by ``check_headers``.
        body: bytes and regular files go with their length, everything else in chunks.
        timeout: seconds for each wait, None for ever.
        what: the request in words, for messages.
        length: bytes that the body has, if it is to be sent with its length whatever it is.

    Raises:
        ConnectTimeout: the server took or said nothing for so long, or was not done with the head of its answer.
        ConnectFailed: the connection broke before the head of an answer came.
        RemoteProtocolError: the answer does not say where it ends.
        LocalProtocolError: the body has not so many bytes.
        TypeError: it is none, or a piece of it.
        Exception: what the body raises.

    Threads: blocks.
    """
    patient = PatientSocket(sock, timeout)
    for piece in _request(method, target, headers, body, length):
        with _explained(what, timeout):
            try:
                patient.sendall(piece)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                break  # who has refused closes with our bytes unread, and the answer is what counts
        del piece  # here and below: whoever made it may want to use its buffer again
    with _explained(what, timeout):
        answer = _head(patient, method, Deadline(timeout))
    if not _has_end(answer):
        raise RemoteProtocolError(f"{what}: the answer does not say where it ends")
    return HttpResponse(answer, patient, what)


def whole(body: Body) -> Optional[memoryview]:
    """Return the bytes of a body that is there as a whole, None of one that is yet to be read."""
    try:
        view = memoryview(body)  # type: ignore[arg-type]
    except TypeError:
        return None
    return view.cast("B") if view.c_contiguous else memoryview(bytes(view))


def not_a_body(value: Any) -> TypeError:
    """Return what is to be raised for something that is no body, or no piece of one."""
    text = isinstance(value, str) or hasattr(value, "encoding")
    cure = "encode the text" if text else "json.dumps(...).encode() makes some of it"
    name = type(value).__name__
    return TypeError(
        f"body= is bytes, a binary file or an iterable of bytes, and {name} is none of them: {cure}"
    )


def _request(
    method: str, target: str, headers: Headers, body: Body, length: Optional[int]
) -> Iterator[Buffer]:
    bytes_ = whole(b"" if body is None and length is not None else body)
    size = _size(body) if bytes_ is None else len(bytes_)
    announced = size if length is None else length
    if None not in (size, length) and size != length:
        raise LocalProtocolError(f"body= has {size} bytes, and Content-Length says {length}")
    framing = []
    if announced is not None:
        framing = [("Content-Length", str(announced))]
    elif body is not None:
        framing = [("Transfer-Encoding", "chunked")]
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*headers, *framing)]
    yield "\r\n".join([*lines, "", ""]).encode("latin-1")
    if bytes_ is not None:
        yield bytes_
    elif announced is not None:
        # A file may have grown since it was looked at. A pipe may stay open: it is read no further than it must.
        limit = announced if size is not None or not _ends(body) else None
        yield from _counted(_pieces(body, limit), announced)
    elif body is not None:
        yield from _chunked(_pieces(body, None))


def _size(body: Any) -> Optional[int]:
    """Return how many bytes a regular file has from where it stands; None of anything else."""
    status = _status(body)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    start: int = body.tell()
    if status.st_size > start:
        # Files of /sys say that they have a page.
        return status.st_size - start if getattr(status, "st_blocks", 1) else None
    nothing = body.read(1) == b""  # those of /proc only say so
    body.seek(start)
    return 0 if nothing else None


def _status(body: Any) -> Optional[os.stat_result]:
    # The descriptor of a GzipFile, say, is that of other bytes than it gives.
    if type(body).__module__ == "tempfile":
        body = getattr(body, "file", body)  # what it has wrapped, to remove it later
    raw = body.raw if isinstance(body, (io.BufferedReader, io.BufferedRandom)) else body
    return os.fstat(raw.fileno()) if isinstance(raw, io.FileIO) else None


def can_seek(body: Any) -> bool:
    """Tell whether a body is a file that can be wound back."""
    if not hasattr(body, "seekable"):  # as a SpooledTemporaryFile before Python 3.11
        return hasattr(body, "seek") and hasattr(body, "tell")
    return bool(body.seekable())


def _ends(body: Any) -> bool:
    """Tell whether a body has an end: a pipe may stay open, and some devices have none."""
    status = _status(body)
    return can_seek(body) and not (status and stat.S_ISCHR(status.st_mode))


def _pieces(body: Any, size: Optional[int]) -> Iterator[memoryview]:
    """Make bytes of a body, of a file no more than so many."""
    if not hasattr(body, "read"):
        yield from map(_view, body)
        return
    left = math.inf if size is None else size
    while left > 0 and (piece := body.read(min(_CHUNK, left))) != b"":
        view = _view(piece)
        left -= view.nbytes
        yield view
        del piece, view


def _view(piece: Any) -> memoryview:
    view = whole(piece)
    if view is None:
        raise not_a_body(piece)
    return view


def _chunked(pieces: Iterator[memoryview]) -> Iterator[Buffer]:
    for piece in pieces:
        if piece.nbytes:  # one of no bytes would be the last
            yield b"".join((b"%x\r\n" % piece.nbytes, piece, b"\r\n"))
        del piece
    yield b"0\r\n\r\n"


def _counted(pieces: Iterator[memoryview], length: int) -> Iterator[Buffer]:
    sent, last = 0, b""
    for piece in pieces:
        sent += piece.nbytes
        if sent > length:
            raise LocalProtocolError(f"body= has more bytes than Content-Length says, {length}")
        if sent < length:
            yield piece
        elif piece:
            # With the last byte the server does what it was asked: nothing may follow.
            yield piece[:-1]
            last = bytes(piece[-1:])
        del piece
    if sent < length:
        raise LocalProtocolError(
            f"body= ended behind {sent} of {length} bytes: was the file changed? "
            "What has no size that is known goes in chunks, as iter(lambda: file.read(65536), b'')"
        )
    yield last


def _head(sock: PatientSocket, method: str, until: Deadline) -> http.client.HTTPResponse:
    import http.client

    reader = _Reader(sock, until)
    # HTTPConnection would close the socket itself as soon as the server says that it will.
    answer = http.client.HTTPResponse(reader, method=method)  # type: ignore[arg-type]
    answer.begin()
    while answer.status < 200:  # such as 103; http.client knows of 100 only
        answer.headers = answer.msg = None  # type: ignore[assignment]
        answer.begin()
    reader.to_body()
    return answer


def _has_end(answer: http.client.HTTPResponse) -> bool:
    """Return whether everybody sees the same end of the body, and not only http.client."""
    if answer.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        return False
    lengths = answer.headers.get_all("Content-Length", ["0"])
    return answer.chunked or (len(set(lengths)) == 1 and bool(_DIGITS.fullmatch(lengths[0])))


@contextlib.contextmanager
def _explained(what: str, timeout: Optional[float]) -> Iterator[None]:
    import http.client

    try:
        yield
    except TimeoutError as exc:
        raise ConnectTimeout(f"{what}: no answer within {timeout} seconds") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise ConnectFailed(f"{what}: the connection broke before an answer came: {exc}") from exc
