"""The contract of reading: what is there, all of it, and then the end for ever."""

from __future__ import annotations

import array
import io
import random
import shutil

import pytest
from makers import Maker, Source, exactly

LINES = b"first line\n" + bytes(range(256)) * 20 + b"\n\n\nlast line without an end"
PAYLOAD = LINES + bytes(range(256)) * 400
PIECES = (PAYLOAD[:3], PAYLOAD[3:5000], PAYLOAD[5000:])


def test_read_to_the_end_and_again(source: Source, bufsize: int) -> None:
    with source(*PIECES, bufsize=bufsize) as stream:
        assert stream.readable()
        assert not stream.writable()
        assert not stream.seekable()
        assert stream.read() == PAYLOAD


def test_the_end_stays_the_end(source: Source, bufsize: int) -> None:
    with source(b"abc", bufsize=bufsize) as stream:
        assert exactly(stream, 3) == b"abc"
        for _ in range(3):
            assert stream.read(10) == b""
            assert stream.read() == b""
            assert stream.read(None) == b""
            assert stream.readline() == b""
            assert stream.readlines() == []
            assert list(stream) == []
            assert stream.readinto(bytearray(10)) == 0
            if bufsize:
                assert stream.read1() == b""
                assert stream.readinto1(bytearray(10)) == 0
                assert stream.peek() == b""
            else:
                assert stream.readall() == b""


def test_nothing_but_an_end(source: Source, bufsize: int) -> None:
    with source(bufsize=bufsize) as stream:
        assert stream.read(1) == b""
        assert stream.read() == b""


def test_zero_bytes_are_no_end(source: Source, bufsize: int) -> None:
    with source(*PIECES, bufsize=bufsize) as stream:
        assert stream.read(0) == b""
        assert stream.readinto(bytearray()) == 0
        assert stream.readline(0) == b""
        assert exactly(stream, 5) == b"first"
        assert stream.read(0) == b""
        assert stream.read() == PAYLOAD[5:]


def test_a_raw_read_returns_what_there_is(maker: Maker) -> None:
    """It does not wait for as many as were asked for."""
    with maker.channel(bufsize=0) as channel:
        for sent in (b"a", b"bc" * 50):
            channel.writer.write(sent)
            received = b""
            while len(received) < len(sent):
                piece = channel.reader.read(100_000)
                assert piece
                received += piece
            assert received == sent


def test_a_buffered_read_gathers_and_read1_does_not(maker: Maker) -> None:
    with maker.channel() as channel:
        channel.writer.write(b"abc")
        piece = channel.reader.read1()
        assert piece
        assert piece + exactly(channel.reader, 3 - len(piece)) == b"abc"
        channel.writer.write(b"de")
        channel.writer.write(b"f")
        assert channel.reader.read(3) == b"def"
        channel.writer.write(b"ghi")
        assert channel.reader.read1(1) == b"g"
        assert channel.reader.read1(0) == b""
        target = bytearray(2)
        assert channel.reader.readinto(target) == 2
        assert target == b"hi"


def test_a_peek_takes_nothing(source: Source) -> None:
    with source(*PIECES) as stream:
        for size in (0, 1, 10, 1_000_000):
            seen = stream.peek(size)
            assert seen
            assert PAYLOAD.startswith(seen)
        assert stream.read() == PAYLOAD


def test_a_peek_without_a_buffer(maker: Maker) -> None:
    with maker.source(*PIECES, bufsize=0) as stream:
        assert hasattr(stream, "peek") == maker.differs("peek without a buffer")
        if maker.differs("peek without a buffer"):
            assert PAYLOAD.startswith(stream.peek())
            assert stream.read() == PAYLOAD
            assert stream.peek() == b""


def test_lines_by_iteration(source: Source, bufsize: int) -> None:
    with source(LINES, bufsize=bufsize) as stream:
        assert iter(stream) is stream
        assert list(stream) == io.BytesIO(LINES).readlines()


def test_lines_with_limits_and_in_lists(source: Source, bufsize: int) -> None:
    lines = io.BytesIO(LINES).readlines()
    with source(LINES, bufsize=bufsize) as stream:
        assert stream.readline(-1) == lines[0]
        assert stream.readline(3) == lines[1][:3]
        assert stream.readline(None) == lines[1][3:]
        assert stream.readline(len(lines[2])) == lines[2]
        assert next(stream) == lines[3]
        hint = len(lines[4]) + 1
        assert stream.readlines(hint) == lines[4:6]
        assert stream.readlines() == lines[6:]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_mix_the_pieces_add_up_r5(source: Source, bufsize: int, seed: int) -> None:
    """R-5: b"".join of everything is every byte, and only the end is empty."""
    choose = random.Random(seed)

    def into(stream) -> bytes:
        target = bytearray(choose.randrange(1, 3000))
        return bytes(target[: stream.readinto(target)])

    ways = [
        lambda stream: stream.read(choose.randrange(1, 3000)),
        lambda stream: stream.readline(),
        lambda stream: stream.readline(choose.randrange(1, 3000)),
        lambda stream: b"".join(stream.readlines(choose.randrange(1, 3000))),
        lambda stream: next(stream, b""),
        into,
    ]
    if bufsize:
        ways.append(lambda stream: stream.read1(choose.randrange(1, 3000)))
    pieces = []
    with source(*PIECES, bufsize=bufsize) as stream:
        while piece := choose.choice(ways)(stream):
            pieces.append(piece)
    assert b"".join(pieces) == PAYLOAD


def test_readinto_a_slice(source: Source, bufsize: int) -> None:
    with source(*PIECES, bufsize=bufsize) as stream:
        target = bytearray(b"." * 20)
        view, count = memoryview(target)[5:10], 0
        while count < 5:
            count += stream.readinto(view[count:])
        assert target == b"....." + PAYLOAD[:5] + b"." * 10


@pytest.mark.parametrize("kind", ["B", "I", "d"])
def test_readinto_other_types_of_buffer(source: Source, kind: str) -> None:
    size = memoryview(bytearray(16)).cast(kind).itemsize
    for bufsize in (-1, 5):
        with source(*PIECES, bufsize=bufsize) as stream:
            numbers = array.array(kind, bytes(16))
            assert stream.readinto(numbers) == 16
            assert numbers.tobytes() == PAYLOAD[:16]
            words = memoryview(bytearray(16)).cast(kind, shape=[2, 8 // size])
            assert stream.readinto(words) == 16
            assert words.tobytes() == PAYLOAD[16:32]
    with source(*PIECES, bufsize=0) as stream:
        numbers = array.array(kind, bytes(16))
        count = stream.readinto(numbers)
        assert numbers.tobytes()[:count] == PAYLOAD[:count]
        assert stream.read() == PAYLOAD[count:]


def test_readinto_what_cannot_be_written(source: Source, bufsize: int) -> None:
    with source(*PIECES, bufsize=bufsize) as stream:
        for target in (b"12345", "text", None, memoryview(b"123")):
            with pytest.raises((TypeError, BufferError)):
                stream.readinto(target)
        assert stream.read() == PAYLOAD


@pytest.mark.parametrize("length", [1, 1000, 0])
def test_copyfileobj_out(source: Source, bufsize: int, length: int) -> None:
    data = PAYLOAD[:2000] if length == 1 else PAYLOAD
    target = io.BytesIO()
    with source(data, bufsize=bufsize) as stream:
        shutil.copyfileobj(stream, target, length)
    assert target.getvalue() == data


def test_another_wrapper_around_it(source: Source) -> None:
    with source(*PIECES, bufsize=0) as stream:
        with io.BufferedReader(stream, 100) as reader:
            assert reader.read(50) == PAYLOAD[:50]
            assert reader.read() == PAYLOAD[50:]
        assert stream.closed
    with source(*PIECES) as stream:
        with io.TextIOWrapper(stream, encoding="latin-1", newline="") as text:
            assert text.read() == PAYLOAD.decode("latin-1")
    with source(*PIECES) as stream:
        raw = stream.detach()
        assert raw.read(1) == PAYLOAD[:1]
        raw.close()
