"""Port-forward to a server in a pod of LocalCluster, against loopback without one, and against kubectl."""

from __future__ import annotations

import socket
from collections.abc import Callable

from latencies import repeated
from measure import Benchmark, Row, Sample, Show, Subject, microseconds, milliseconds, rate, timed
from ways import CONNECT, FORWARD, KUBECTL, LOOPBACK, SHARED, Connect, Ways

_PIECE = 64 << 10
_MESSAGE = bytes(64)

Measuring = Callable[[Connect], Sample]


def download(ways: Ways, size: int) -> Benchmark:
    """Read ``size`` bytes of one connection."""

    def measuring(connect: Connect) -> Sample:
        with connect() as sock, timed() as sample:
            sock.sendall(b"source %d\n" % size)
            receive(sock, size)
        return sample

    return _benchmark(ways, "port-forward download", measuring, {"wall": rate(size)})


def upload(ways: Ways, size: int) -> Benchmark:
    """Write ``size`` bytes to one connection, and wait for the word that they have come."""

    def measuring(connect: Connect) -> Sample:
        with connect() as sock, timed() as sample:
            sock.sendall(b"sink %d\n" % size)
            send(sock, size)
        return sample

    return _benchmark(ways, "port-forward upload", measuring, {"wall": rate(size)})


def ping_pong(ways: Ways, count: int) -> Benchmark:
    """Send 64 bytes and wait for them to come back."""

    def measuring(connect: Connect) -> Sample:
        with connect() as sock:
            sock.sendall(b"echo %d\n" % (count * len(_MESSAGE)))
            buffer = bytearray(len(_MESSAGE))

            def turn() -> None:
                sock.sendall(_MESSAGE)
                sock.recv_into(buffer)

            return repeated(turn, count)

    shows: dict[str, Show] = {"median": microseconds, "p99": microseconds}
    return _benchmark(ways, "port-forward, 64 bytes and back", measuring, shows)


def set_up(ways: Ways, count: int) -> Benchmark:
    """Connect, wait for one byte, close."""

    def measuring(connect: Connect) -> Sample:
        def turn() -> None:
            with connect() as sock:
                sock.sendall(b"greet\n")
                assert sock.recv(1)

        return repeated(turn, count)

    names = (CONNECT, FORWARD, SHARED)
    title = "port-forward, connect and one byte"
    return _benchmark(ways, title, measuring, {"median": milliseconds}, names)


def crowd(ways: Ways, count: int) -> Benchmark:
    """Make many connections at once, until each has its answer."""

    def measuring(connect: Connect) -> Sample:
        with timed() as sample:
            socks = [connect() for _ in range(count)]
            for sock in socks:
                sock.sendall(b"hold\n")
            for sock in socks:
                assert sock.recv(1)
        for sock in socks:
            with sock:
                sock.sendall(b"k")
        return {"wall": sample["wall"]}

    title = f"port-forward, {count} connections at once"
    return _benchmark(ways, title, measuring, {"wall": milliseconds}, (FORWARD, SHARED))


def receive(sock: socket.socket, size: int) -> None:
    """Receive so many bytes."""
    buffer = bytearray(_PIECE)
    while size:
        count = sock.recv_into(buffer)
        assert count
        size -= count


def send(sock: socket.socket, size: int) -> None:
    """Send so many bytes, and wait for one."""
    whole, rest = divmod(size, _PIECE)
    piece = bytes(_PIECE)
    for _ in range(whole):
        sock.sendall(piece)
    sock.sendall(piece[:rest])
    assert sock.recv(1)


def _benchmark(
    ways: Ways,
    title: str,
    measuring: Measuring,
    shows: dict[str, Show],
    names: tuple[str, ...] = (CONNECT, FORWARD),
) -> Benchmark:
    def subject(name: str) -> Subject:
        def measure() -> Sample:
            with ways.open(name) as connect:
                sample = measuring(connect)
            ways.settle()
            return sample

        return measure

    floors = (LOOPBACK, KUBECTL)
    return Benchmark(
        title,
        {name: subject(name) for name in (*floors, *names)},
        [
            Row(f"{title}, {name}", name, floor, measure, show)
            for name in names
            for floor in floors
            for measure, show in shows.items()
        ],
    )
