"""Makers of streams: the contract is a function of one of these.

A maker gives a ``source``, which has some bytes and then its end, and a ``channel``, where what is
written to one end comes out of the other. The makers of the kernel's own pipes decide what is right;
where the others must differ, ``DIFFERENCES`` says why, and nothing else does.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from support import in_thread, put, seconds
from transport.peers import BINARY, CLOSE, SUCCESS, Peer, close_frame, data, opened

from kubews import PIPE, Pod
from kubews.session import Session
from kubews.streams import Stream
from kubews.wrappers import BUFFER_SIZE, ReadStream, TextReadStream, TextWriteStream

#: What kubews does otherwise than a pipe, and why.
DIFFERENCES = {
    "close wakes readers": "close() of a descriptor leaves who reads from it asleep in the kernel; here "
    "that would be a thread that nothing can wake",
    "close stops writers": "likewise, and nothing may follow the end of a channel",
    "peek without a buffer": "the raw stream has its bytes at hand, so it shows them; readline() of a raw "
    "pipe takes a call into the kernel for each byte",
    "whole writes": "a pipe keeps 4 KiB together (PIPE_BUF), a message 64 KiB",
    "unread output is dropped": "who reads is not who writes: an end that is closed here cannot break the "
    "pipe of a process there, so its bytes are dropped",
    "a lone writer goes on": "a thread that writes while nobody reads would wait for itself; kubews keeps "
    "what comes back, up to 256 MiB, where subprocess documents a deadlock",
}

Text = Any
Source = Callable[..., AbstractContextManager[Any]]


class Channel:
    """Two ends; ``close`` ends both, whoever uses them."""

    def __init__(
        self, writer: Any, reader: Any, close: Callable[[], None], held: Callable[[], int]
    ) -> None:
        self.writer, self.reader, self.close = writer, reader, close
        #: How many bytes wait in this process.
        self.held = held


def kernel() -> int:
    """Return how many bytes a connection of TCP may hold in one direction."""
    ends = [Path(f"/proc/sys/net/ipv4/tcp_{name}") for name in ("rmem", "wmem")]
    return sum(int(end.read_text().split()[2]) if end.exists() else 8 << 20 for end in ends)


class Maker:
    """What all makers have in common.

    ``bufsize`` and what says that there is to be text are as for ``subprocess.Popen``.
    """

    #: Bytes that one write keeps together.
    whole = 65536
    #: Bytes that may be between writer and reader: 4 MiB for the reader, 1 MiB of the writer, and what the
    #: servers on the way hold and the kernels between them.
    under_way = (16 << 20) + 2 * kernel()
    oracle = False

    def differs(self, name: str) -> bool:
        """Whether this is one of those that do otherwise, for the reason that is given above."""
        assert name in DIFFERENCES
        return not self.oracle

    def source(
        self, *pieces: bytes, bufsize: int = -1, **text: Text
    ) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def channel(self, *, bufsize: int = -1, **text: Text) -> AbstractContextManager[Channel]:
        raise NotImplementedError


def feed(write: Callable[[bytes], Any], pieces: tuple[bytes, ...]) -> None:
    """Write all, unless the reader has had enough."""
    try:
        for piece in pieces:
            write(piece)
    except (OSError, ValueError):
        pass


class PipeMaker(Maker):
    """The oracle: a pipe of the kernel."""

    whole = 4096
    oracle = True

    @contextlib.contextmanager
    def source(self, *pieces: bytes, bufsize: int = -1, **text: Text) -> Iterator[Any]:
        def run() -> None:
            with writer:
                feed(writer.write, pieces)

        read, write = os.pipe()
        writer = io.FileIO(write, "wb")
        feeding = in_thread(run)
        raw = io.FileIO(read, "rb")
        try:
            yield wrapped(raw, bufsize, text)
        finally:
            raw.close()
            feeding.result()

    @contextlib.contextmanager
    def channel(self, *, bufsize: int = -1, **text: Text) -> Iterator[Channel]:
        read, write = os.pipe()
        reader = wrapped(io.FileIO(read, "rb"), bufsize, text)
        writer = io.FileIO(write, "wb")
        if text:
            writer = io.TextIOWrapper(writer, write_through=True, **options(text))
        with reader, writer:
            yield Channel(writer, reader, writer.close, lambda: 0)


def wrapped(raw: io.FileIO, bufsize: int, text: Text) -> Any:
    """What subprocess would put around a descriptor."""
    inner: Any = io.BufferedReader(raw, bufsize if bufsize > 1 else BUFFER_SIZE) if bufsize else raw
    return io.TextIOWrapper(inner, **options(text)) if text else inner


def options(text: Text) -> dict[str, Any]:
    return {"encoding": text.get("encoding") or "utf-8", "errors": text.get("errors")}


class ProcessMaker(Maker):
    """A process that gives back what it is given: here (another oracle) or in a pod."""

    def __init__(self, popen: Callable[..., Any], *, oracle: bool = False) -> None:
        self._popen = popen
        self.oracle = oracle
        if oracle:
            self.whole = PipeMaker.whole

    @contextlib.contextmanager
    def source(self, *pieces: bytes, bufsize: int = -1, **text: Text) -> Iterator[Any]:
        # Ends by itself, on servers that cannot end stdin, too.
        command = ["head", "-c", str(len(b"".join(pieces)))]
        process = self._popen(command, stdin=PIPE, stdout=PIPE, bufsize=bufsize, **text)
        ends = [binary(process.stdin), binary(process.stdout)]  # before the user detaches one
        feeding = in_thread(feed, ends[0].write, pieces)
        try:
            yield process.stdout
        finally:
            self._end(process, ends)
            feeding.result()

    @contextlib.contextmanager
    def channel(self, *, bufsize: int = -1, **text: Text) -> Iterator[Channel]:
        def held() -> int:
            return 0 if self.oracle else process._connection.pipes[1].size

        process = self._popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=bufsize, **text)
        ends = [binary(process.stdin), binary(process.stdout)]
        writer = process.stdin if text else ends[0]
        close = process.kill if self.oracle else process.close
        try:
            yield Channel(writer, process.stdout, close, held)
        finally:
            self._end(process, ends)

    def _end(self, process: Any, ends: list[Any]) -> None:
        if not self.oracle:
            process.close()
            return
        process.kill()
        for end in ends:
            end.close()
        process.wait()


def binary(file: Any) -> Any:
    """The unbuffered binary file inside: what subprocess has for stdin is buffered, ours is not."""
    for name in ("buffer", "raw"):
        file = getattr(file, name, file)
    return file


class JoinedMaker(ProcessMaker):
    """Output of a server that sends whatever it can together.

    Even its answer to the upgrade waits for more to come, so there is no conversation with it.

    Args:
        pod: where to put the bytes first.
        popen: starts processes there through such connections.
    """

    def __init__(self, pod: Pod, popen: Callable[..., Any]) -> None:
        super().__init__(popen)
        self._pod = pod

    @contextlib.contextmanager
    def source(self, *pieces: bytes, bufsize: int = -1, **text: Text) -> Iterator[Any]:
        name = put(self._pod, "joined", b"".join(pieces))
        process = self._popen(["cat", name], stdout=PIPE, bufsize=bufsize, **text)
        try:
            yield process.stdout
        finally:
            process.close()


class MemoryMaker(Maker):
    """No process, no server: a connection over a pair of sockets and a peer played by hand."""

    @contextlib.contextmanager
    def source(self, *pieces: bytes, bufsize: int = -1, **text: Text) -> Iterator[Any]:
        frames = [data(1, piece) for piece in pieces] + [data(3, SUCCESS), close_frame()]
        with opened() as (connection, peer):
            session = Session(connection)
            feeding = in_thread(feed, peer.send, tuple(frames))
            yield self._reader(session, bufsize, text)
            connection.abort()
            feeding.result()

    @contextlib.contextmanager
    def channel(self, *, bufsize: int = -1, **text: Text) -> Iterator[Channel]:
        with opened() as (connection, peer):
            session = Session(connection)
            echoing = in_thread(echo, peer)
            writer: Any = Stream(session, 0)
            if text:
                writer = TextWriteStream(writer, text.get("encoding"), text.get("errors"), False)
            reader = self._reader(session, bufsize, text)
            yield Channel(writer, reader, connection.close, lambda: connection.pipes[1].size)
            connection.close()  # first: a wrapper cannot be closed while somebody reads through it
            echoing.result()
            for stream in (writer, reader):
                stream.close()

    def _reader(self, session: Session, bufsize: int, text: Text) -> Any:
        raw = Stream(session, 1, session.connection.pipes[1])
        size = BUFFER_SIZE if bufsize in (-1, 1) else bufsize
        if text:
            return TextReadStream(raw, size, text.get("encoding"), text.get("errors"))
        return ReadStream(raw, size) if size else raw


def echo(peer: Peer) -> None:
    """Give back what comes, and end well when stdin ends."""
    try:
        while True:
            opcode, payload = peer.read_frame()
            if opcode == CLOSE:
                peer.send(close_frame())
                return
            assert opcode == BINARY
            if payload[0] == 255:
                peer.send(data(3, SUCCESS), close_frame())
                return
            peer.send(data(1, payload[1:]))
    except (OSError, EOFError):
        pass


def exactly(reader: Any, size: int) -> bytes:
    """Read so many bytes from whatever kind of reader."""
    pieces: list[bytes] = []
    while size and (piece := reader.read(min(size, 1 << 16))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def soon() -> float:
    """Seconds after which a call that has not come back counts as blocked."""
    return seconds(0.1)


def local(args: list[str], **arguments: Any) -> Any:
    """A process on this machine."""
    return subprocess.Popen(args, **arguments)
