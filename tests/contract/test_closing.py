"""The contract of closing, and of what is not there: closed is closed, for everybody, at once."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from makers import Channel, Maker, Source, exactly, soon
from support import eventually, in_thread, seconds

from kubews import ConnectionLost


def test_reading_after_close(source: Source, bufsize: int) -> None:
    with source(b"abc\n" * 10, bufsize=bufsize) as stream:
        assert exactly(stream, 4) == b"abc\n"
        assert not stream.closed
        stream.close()
        stream.close()
        assert stream.closed
        calls: list[Callable[[], object]] = [
            stream.read,
            lambda: stream.read(0),
            lambda: stream.read(1),
            stream.readline,
            stream.readlines,
            lambda: stream.readinto(bytearray(1)),
            lambda: next(stream),
            lambda: iter(stream),
            stream.readable,
            stream.seekable,
            stream.isatty,
            stream.flush,
            stream.__enter__,
        ]
        if bufsize:
            calls += [stream.read1, stream.peek, lambda: stream.readinto1(bytearray(1))]
        else:
            calls += [stream.readall]
        for call in calls:
            with pytest.raises(ValueError, match="closed"):
                call()


def test_reading_text_after_close(source: Source) -> None:
    with source(b"abc\n" * 10, text=True) as stream:
        assert stream.readline() == "abc\n"
        stream.close()
        stream.close()
        for call in (stream.read, stream.readline, lambda: stream.read(1), lambda: next(stream)):
            with pytest.raises(ValueError, match="closed"):
                call()


@pytest.mark.half_close
def test_writing_after_close(maker: Maker) -> None:
    with maker.channel() as channel:
        writer = channel.writer
        writer.close()
        writer.close()
        assert writer.closed
        calls = [
            lambda: writer.write(b"x"),
            lambda: writer.write(b""),
            lambda: writer.writelines([b"x"]),
            writer.flush,
            writer.writable,
            writer.seekable,
            writer.isatty,
            writer.__enter__,
        ]
        for call in calls:
            with pytest.raises(ValueError, match="closed"):
                call()


def test_close_in_the_middle_of_iteration(source: Source, bufsize: int) -> None:
    with source(b"line\n" * 1000, bufsize=bufsize) as stream:
        seen = 0
        with pytest.raises(ValueError, match="closed"):
            for line in stream:
                assert line == b"line\n"
                seen += 1
                if seen == 3:
                    stream.close()
        assert seen == 3


@pytest.mark.half_close
def test_half_close_then_read_r18(maker: Maker, bufsize: int) -> None:
    """R-18: what was written before the end comes, then the end."""
    with maker.channel(bufsize=bufsize) as channel:
        with channel.writer:
            channel.writer.write(b"data" * 10_000)
        assert channel.writer.closed
        assert not channel.reader.closed
        assert channel.reader.read() == b"data" * 10_000
        assert channel.reader.read() == b""


@pytest.mark.half_close
def test_half_close_wakes_the_reader(maker: Maker, bufsize: int) -> None:
    with maker.channel(bufsize=bufsize) as channel:
        reading = in_thread(channel.reader.read, 1)
        time.sleep(soon())
        assert reading.running
        channel.writer.close()
        assert reading.result() == b""


@pytest.mark.parametrize("method", ["read", "readline", "readinto"])
def test_closing_everything_wakes_the_reader(maker: Maker, bufsize: int, method: str) -> None:
    argument = {"read": (1,), "readline": (), "readinto": (bytearray(1),)}[method]
    with maker.channel(bufsize=bufsize) as channel:
        reading = in_thread(getattr(channel.reader, method), *argument)
        time.sleep(soon())
        assert reading.running
        begin = time.monotonic()
        channel.close()
        try:
            assert reading.result() in (b"", 0)
        except (ConnectionLost, ValueError):
            pass
        assert time.monotonic() - begin < seconds(2)


def blocked_writer(channel: Channel):
    """Write until nothing more goes, as somebody has read once and then no more."""

    def write() -> None:
        while True:
            channel.writer.write(bytes(1 << 20))
            progress.append(1)

    progress: list[int] = []
    writing = in_thread(write)
    assert channel.reader.read(1) == b"\0"
    assert eventually(lambda: stalled(progress), 20)
    assert writing.running
    return writing


def stalled(progress: list[int]) -> bool:
    before = len(progress)
    time.sleep(soon() * 2)
    return before == len(progress)


@pytest.mark.large
def test_closing_everything_wakes_the_writer(maker: Maker) -> None:
    with maker.channel(bufsize=0) as channel:
        writing = blocked_writer(channel)
        begin = time.monotonic()
        if maker.oracle:  # which forgets its number under the feet of who writes
            channel.reader.close()
            writing.thread.join(seconds(5))
        channel.close()
        with pytest.raises((BrokenPipeError, ValueError)):
            writing.result()
        assert time.monotonic() - begin < seconds(2.5)


@pytest.mark.parametrize("method", ["read", "readall", "peek", "readline"])
def test_close_wakes_the_readers(maker: Maker, method: str) -> None:
    if not maker.differs("close wakes readers"):
        return
    with maker.channel(bufsize=0) as channel:
        reading = [in_thread(getattr(channel.reader, method)) for _ in range(3)]
        time.sleep(soon())
        assert all(future.running for future in reading)
        channel.reader.close()
        for future in reading:
            with pytest.raises(ValueError, match="closed"):
                future.result(2)


@pytest.mark.half_close
@pytest.mark.large
def test_close_stops_the_writer(maker: Maker) -> None:
    """What it had got rid of arrives, and then the end."""
    if not maker.differs("close stops writers"):
        return
    with maker.channel(bufsize=0) as channel:
        writing = blocked_writer(channel)
        channel.writer.close()
        while piece := channel.reader.read(1 << 20):
            assert not any(piece)
        with pytest.raises((BrokenPipeError, ValueError)):
            writing.result()


@pytest.mark.large
def test_an_end_that_is_closed_here(maker: Maker) -> None:
    with maker.channel(bufsize=0) as channel:
        channel.reader.close()
        if maker.differs("unread output is dropped"):
            for _ in range(6):
                channel.writer.write(bytes(1 << 20))
        else:
            with pytest.raises(BrokenPipeError):
                for _ in range(20):
                    channel.writer.write(bytes(1 << 20))


def test_each_end_has_one_direction(maker: Maker, bufsize: int) -> None:
    with maker.channel(bufsize=bufsize) as channel:
        writer, reader = channel.writer, channel.reader
        assert (writer.readable(), writer.writable(), writer.seekable()) == (False, True, False)
        assert (reader.readable(), reader.writable(), reader.seekable()) == (True, False, False)
        for call in (
            writer.read,
            writer.readline,
            writer.readall,
            lambda: writer.read(1),
            lambda: writer.readinto(bytearray(1)),
            lambda: next(writer),
            lambda: reader.write(b"x"),
            lambda: reader.writelines([b"x"]),
        ):
            with pytest.raises(OSError):  # mostly an UnsupportedOperation
                call()
        for end in (writer, reader):
            assert not end.isatty()
            assert not end.closed
            for call in (end.tell, lambda e=end: e.seek(0), lambda e=end: e.truncate(0)):
                with pytest.raises(OSError):
                    call()
        reader.flush()
        writer.flush()


def test_both_ends_are_context_managers_and_files(maker: Maker, bufsize: int) -> None:
    with maker.source(b"abc", bufsize=bufsize) as stream:
        assert isinstance(stream, io.IOBase)
        assert isinstance(stream, io.BufferedReader if bufsize else io.RawIOBase)
        with stream as same:
            assert same is stream
        assert stream.closed
    with maker.channel() as channel:
        assert isinstance(channel.writer, io.RawIOBase)
    with maker.source(b"abc", text=True) as stream:
        assert isinstance(stream, io.TextIOWrapper)
