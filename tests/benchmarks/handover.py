"""From one thread to another: the pipe of a channel against a pipe of the operating system."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from measure import Benchmark, Row, Sample, microseconds, per_gigabyte, rate, timed

from kubews.transport.deadline import NEVER
from kubews.transport.pipe import Pipe

_CHUNK = 32 << 10
_BATCH = 32  # as a connection: readers are woken once for so many frames
_BUFFER = 64 << 10
_OS = "os.pipe"


def bulk(size: int) -> Benchmark:
    """Hand over ``size`` bytes in chunks of 32 KiB."""
    shows = {"wall": rate(size), "cpu": per_gigabyte(size)}
    return Benchmark(
        "handover",
        {_OS: lambda: _os_bulk(size), "Pipe": lambda: _pipe_bulk(size)},
        [
            Row("handover between threads", "Pipe", _OS, measure, show)
            for measure, show in shows.items()
        ],
    )


def wake_up(count: int) -> Benchmark:
    """Send one byte to another thread and back."""
    return Benchmark(
        "wake-up",
        {_OS: lambda: _os_wake_up(count), "Pipe": lambda: _pipe_wake_up(count)},
        [Row("wake-up of a thread and back", "Pipe", _OS, "wall", microseconds)],
    )


def _os_bulk(size: int) -> Sample:
    reader, writer = os.pipe()
    chunk, buffer = bytes(_CHUNK), bytearray(_BUFFER)

    def produce() -> None:
        for _ in range(size // _CHUNK):
            left = memoryview(chunk)
            while left:
                left = left[os.write(writer, left) :]
        os.close(writer)

    with timed() as sample, _Producer(produce):
        while os.readv(reader, [buffer]):
            pass
    os.close(reader)
    return sample


def _pipe_bulk(size: int) -> Sample:
    room = threading.Event()
    pipe = Pipe(changed=room.set)
    chunk, buffer = memoryview(bytes(_CHUNK)), memoryview(bytearray(_BUFFER))

    def produce() -> None:
        for number in range(size // _CHUNK):
            pipe.feed(chunk)
            if number % _BATCH == 0:
                pipe.wake()
                resuming = False
                while not pipe.has_room(resuming):
                    room.clear()
                    resuming = True
                    if not pipe.has_room(resuming):
                        room.wait()
        pipe.finish()

    with timed() as sample, _Producer(produce):
        while pipe.readinto(buffer, NEVER):
            pass
    return sample


def _os_wake_up(count: int) -> Sample:
    (there_out, there_in), (back_out, back_in) = os.pipe(), os.pipe()

    def produce() -> None:
        for _ in range(count):
            os.write(back_in, os.read(there_out, 1))

    with _Producer(produce), timed() as sample:
        for _ in range(count):
            os.write(there_in, b"k")
            os.read(back_out, 1)
    for descriptor in (there_out, there_in, back_out, back_in):
        os.close(descriptor)
    return {"wall": sample["wall"] / count}


def _pipe_wake_up(count: int) -> Sample:
    there, back = Pipe(), Pipe()

    def produce() -> None:
        for _ in range(count):
            back.feed(memoryview(there.take(1, NEVER)))
            back.wake()

    with _Producer(produce), timed() as sample:
        for _ in range(count):
            there.feed(memoryview(b"k"))
            there.wake()
            back.take(1, NEVER)
    return {"wall": sample["wall"] / count}


class _Producer:
    def __init__(self, produce: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=produce, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join()
