"""Bytes in bulk through forwarded connections, from and to a server that is faster than any client.

The floor is a bare websocket-client that moves as much in frames of the same size, with no socket behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from clients import WEBSOCKET, Clients
from measure import Benchmark, Row, Sample, Subject, per_gigabyte, rate, timed
from peer import PAIRS_PORT, TUNNEL_PORT
from portforward import receive, send
from transfers import FRAME, websocket_download, websocket_upload
from ways import CONNECT, FORWARD, Connect, through

_SUBJECTS = {
    f"{CONNECT}, tunnel": (CONNECT, TUNNEL_PORT),
    f"{FORWARD}, tunnel": (FORWARD, TUNNEL_PORT),
    f"{FORWARD}, channel pairs": (FORWARD, PAIRS_PORT),
}


def download(clients: Clients, size: int) -> Benchmark:
    """Read ``size`` bytes that come in frames of 32 KiB."""
    count = size // FRAME

    def measuring(connect: Connect) -> Sample:
        with connect() as sock, timed() as sample:
            sock.sendall(b"download %d %d\n" % (count, FRAME))
            receive(sock, count * FRAME)
        return sample

    def floor() -> Sample:
        return websocket_download(clients, ("download", count, FRAME))

    return _benchmark(clients, "download", measuring, floor, count * FRAME)


def upload(clients: Clients, size: int) -> Benchmark:
    """Write ``size`` bytes, and wait for the word that they have come."""
    count = size // FRAME
    command = b"sink %d\n" % (count * FRAME)

    def measuring(connect: Connect) -> Sample:
        with connect() as sock, timed() as sample:
            sock.sendall(command)
            send(sock, count * FRAME)
        return sample

    def floor() -> Sample:
        return websocket_upload(clients, count, count * FRAME)

    return _benchmark(clients, "upload", measuring, floor, count * FRAME)


def _benchmark(
    clients: Clients,
    title: str,
    measuring: Callable[[Connect], Sample],
    floor: Subject,
    size: int,
) -> Benchmark:
    def subject(name: str, port: int) -> Subject:
        def measure() -> Sample:
            with through(clients.pod, port, name) as connect:
                return measuring(connect)

        return measure

    shows = {"wall": rate(size), "cpu": per_gigabyte(size)}
    return Benchmark(
        f"forwarded {title}",
        {WEBSOCKET: floor, **{what: subject(*way) for what, way in _SUBJECTS.items()}},
        [
            Row(f"forwarded {title}, {name}", name, WEBSOCKET, measure, show)
            for name in _SUBJECTS
            for measure, show in shows.items()
        ],
    )
