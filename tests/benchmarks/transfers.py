"""Bytes in bulk: downloads, many small messages, uploads."""

from __future__ import annotations

from clients import CLOSE, SSL, WEBSOCKET, Clients, drain
from measure import Benchmark, Row, Sample, Show, each, per_gigabyte, per_second, rate, timed
from peer import frame

#: What API servers send.
FRAME = 32 << 10
_SMALL = 64
_BUFFER = 64 << 10
_KEEPING = f"{WEBSOCKET}, payloads joined"


def download(clients: Clients, size: int) -> Benchmark:
    """Read ``size`` bytes in frames of 32 KiB."""
    count = size // FRAME
    command = ("download", count, FRAME)

    def readinto() -> Sample:
        buffer = bytearray(_BUFFER)
        with clients.popen(*command) as process:
            with timed() as sample:
                got = 0
                while chunk := process.stdout.readinto(buffer):
                    got += chunk
            assert got == size
        return sample

    def read() -> Sample:
        with clients.popen(*command) as process:
            with timed() as sample:
                data = process.stdout.read()
            assert len(data) == size
        return sample

    shows = {"wall": rate(size), "cpu": per_gigabyte(size)}
    return Benchmark(
        "download",
        {
            WEBSOCKET: lambda: websocket_download(clients, command),
            "readinto": readinto,
            SSL: lambda: _ssl_download(clients, count),
            "read": read,
            _KEEPING: lambda: _keeping_download(clients, command),
        },
        [
            *_rows({"readinto": "download, readinto(64 KiB)"}, (WEBSOCKET, SSL), shows),
            *_rows({"read": f"download, read() of {size >> 20} MiB"}, (_KEEPING,), shows),
        ],
    )


def small(clients: Clients, size: int) -> Benchmark:
    """Read many messages of 64 bytes."""
    count = size // 1024
    command = ("download", count, _SMALL)

    def readinto() -> Sample:
        buffer = bytearray(_BUFFER)
        with clients.popen(*command) as process:
            with timed() as sample:
                got = 0
                while chunk := process.stdout.readinto1(buffer):
                    got += chunk
            assert got == count * _SMALL
        return sample

    return Benchmark(
        "small",
        {WEBSOCKET: lambda: websocket_download(clients, command), "readinto1": readinto},
        _rows(
            {"readinto1": "messages of 64 bytes, readinto1()"},
            (WEBSOCKET,),
            {"wall": per_second(count), "cpu": each(count)},
        ),
    )


def upload(clients: Clients, size: int) -> Benchmark:
    """Write ``size`` bytes, in pieces of 32 KiB and at once."""
    chunk = bytes(FRAME)
    count = size // FRAME
    whole = bytes(count * FRAME)

    def pieces() -> Sample:
        with clients.popen("sink", size, stdin=True) as process, timed() as sample:
            for _ in range(count):
                process.stdin.write(chunk)
            process.wait()
        return sample

    def at_once() -> Sample:
        with clients.popen("sink", size, stdin=True) as process, timed() as sample:
            process.stdin.write(whole)
            process.wait()
        return sample

    titles = {"pieces": "upload, write(32 KiB)", "at once": f"upload, write({size >> 20} MiB)"}
    shows = {"wall": rate(size), "cpu": per_gigabyte(size)}
    return Benchmark(
        "upload",
        {
            WEBSOCKET: lambda: websocket_upload(clients, count, size),
            "pieces": pieces,
            SSL: lambda: _ssl_upload(clients, count, size),
            "at once": at_once,
        },
        _rows(titles, (WEBSOCKET, SSL), shows),
    )


def _rows(titles: dict[str, str], floors: tuple[str, ...], shows: dict[str, Show]) -> list[Row]:
    return [
        Row(title, subject, floor, measure, show)
        for subject, title in titles.items()
        for floor in floors
        for measure, show in shows.items()
    ]


def _ssl_download(clients: Clients, count: int) -> Sample:
    buffer = bytearray(_BUFFER)
    left = count * len(frame(bytes(1 + FRAME)))
    with clients.ssl("download", count, FRAME) as sock, timed() as sample:
        while left > 0:
            left -= sock.recv_into(buffer)
    return sample


def websocket_download(clients: Clients, command: tuple[object, ...]) -> Sample:
    """Receive what a command sends, and drop it."""
    client = clients.websocket(*command)
    with timed() as sample:
        drain(client)
    client.shutdown()
    return sample


def _keeping_download(clients: Clients, command: tuple[object, ...]) -> Sample:
    client = clients.websocket(*command)
    receive = client.recv_frame
    kept = []
    with timed() as sample:
        while (received := receive()).opcode != CLOSE:
            kept.append(memoryview(received.data)[1:])
        data = b"".join(kept)
    client.shutdown()
    assert data
    return sample


def _ssl_upload(clients: Clients, count: int, size: int) -> Sample:
    chunk = bytes(FRAME)
    with clients.ssl("swallow", size) as sock, timed() as sample:
        for _ in range(count):
            sock.sendall(chunk)
        sock.recv(1)
    return sample


def websocket_upload(clients: Clients, count: int, size: int) -> Sample:
    """Send so many frames, ``size`` bytes together."""
    message = bytes(1 + FRAME)
    client = clients.websocket("sink", size)
    with timed() as sample:
        for _ in range(count):
            client.send_binary(message)
        drain(client)
    client.shutdown()
    return sample
