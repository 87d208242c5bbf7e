"""What a socket does, a PodSocket does: the same bodies over a socketpair and over both protocols."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import selectors
import socket
import time
from typing import Any

import pytest
from support import in_thread, seconds

PATTERN = bytes(range(256)) * 256


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece
        data += piece
    return bytes(data)


def test_bytes_come_back(connect: Any) -> None:
    with connect(b"echo") as sock:
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        assert sock.send(b"again") == 5
        assert sock.recv(1) == b"a"
        assert read_exactly(sock, 4) == b"gain"


def test_the_end_comes_behind_all_bytes_and_stays(connect: Any) -> None:
    with connect(b"source 3000001") as sock:
        data = read_all(sock)
        assert len(data) == 3_000_001
        assert data[:65536] == PATTERN
        for _ in range(3):
            assert sock.recv(10) == b""


def test_writes_behind_the_end_break(connect: Any) -> None:
    with connect(b"source 10") as sock:
        assert len(read_all(sock)) == 10
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                sock.sendall(bytes(65536))
                time.sleep(0.001)


def test_much_both_ways_at_once_r43(connect: Any) -> None:
    data = os.urandom(1 << 20) * 8
    with connect(b"echo") as sock:
        writing = in_thread(sock.sendall, data)
        assert read_exactly(sock, len(data)) == data
        writing.result(seconds(30))


def test_a_large_input_arrives_whole(connect: Any) -> None:
    data = os.urandom(1 << 20) * 4
    with connect(b"take %d" % len(data)) as sock:
        sock.sendall(data)
        assert read_exactly(sock, 64) == hashlib.sha256(data).hexdigest().encode()


def test_the_tail_behind_a_half_close_r41(connect: Any) -> None:
    """R-41: what the pod answers after this side has ended its bytes arrives, as of ``nc -N``.

    A pod that answers only once it has seen the end is not asked: containerd 1.6 tells it when it closes.
    """
    with connect(b"tail 100000") as sock:
        sock.sendall(bytes(100_000))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"the tail"
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")


def test_a_half_close_leaves_the_other_half_r41(connect: Any) -> None:
    """R-41: on either protocol what the pod still sends comes, behind the end of this side's bytes."""
    with connect(b"source 500000") as sock:
        sock.shutdown(socket.SHUT_WR)
        assert len(read_all(sock)) == 500_000


def test_time_limits(connect: Any) -> None:
    with connect(b"echo") as sock:
        sock.settimeout(0.05)
        with pytest.raises(socket.timeout):
            sock.recv(1)
        sock.settimeout(seconds(10))
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_without_blocking(connect: Any) -> None:
    with connect(b"echo") as sock, selectors.DefaultSelector() as selector:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        selector.register(sock, selectors.EVENT_WRITE)
        assert selector.select(seconds(5))
        sock.send(b"x")
        assert select.select([sock], [], [], seconds(10))[0] == [sock]
        assert sock.recv(10) == b"x"


def test_who_does_not_read_stops_the_pod_and_loses_nothing(connect: Any) -> None:
    with connect(b"source 30000000") as sock:
        time.sleep(0.3)
        assert len(read_all(sock)) == 30_000_000


def test_buffers_of_the_caller(connect: Any) -> None:
    with connect(b"echo") as sock:
        sock.sendall(memoryview(b"..abcdef..")[2:8])
        buffer = bytearray(10)
        count = 0
        while count < 6:
            count += sock.recv_into(memoryview(buffer)[2 + count :], 6 - count)
        assert buffer == b"\0\0abcdef\0\0"
        assert sock.sendmsg([b"gh", b"", b"i"]) == 3
        assert read_exactly(sock, 3) == b"ghi"


def test_files_over_it(connect: Any) -> None:
    with connect(b"echo") as sock, sock.makefile("rw", encoding="utf-8", newline="\n") as file:
        file.write("één\ntwee\n")
        file.flush()
        assert file.readline() == "één\n"
        assert file.readline() == "twee\n"


def test_a_copy_keeps_it_open(connect: Any) -> None:
    with connect(b"echo") as sock:
        other = sock.dup()
        sock.close()
        with other:
            other.sendall(b"still here")
            assert read_exactly(other, 10) == b"still here"


def test_asyncio_takes_it(connect: Any) -> None:
    async def talk(sock: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"x" * 300_000 + b"\n")
        line = await reader.readexactly(300_001)
        writer.close()
        await writer.wait_closed()
        return line

    assert asyncio.run(talk(connect(b"echo"))) == b"x" * 300_000 + b"\n"


def test_close_is_once_and_for_all(connect: Any) -> None:
    sock = connect(b"echo")
    sock.close()
    sock.close()
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv(1)
