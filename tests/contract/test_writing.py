"""The contract of writing: all of it, in order, whoever writes."""

from __future__ import annotations

import array
import hashlib
import io
import os
import shutil

import pytest
from makers import Maker, Source, exactly
from support import in_thread, seconds

MIB = 1 << 20


def test_a_write_takes_all_of_it(maker: Maker) -> None:
    with maker.channel() as channel:
        for data in (b"abc", bytearray(b"def"), memoryview(b"..ghi..")[2:5]):
            assert channel.writer.write(data) == 3
        assert channel.writer.write(b"") == 0
        assert channel.writer.write(array.array("I", [1, 2])) == 8
        channel.writer.writelines([b"x", bytearray(b"y")])
        assert channel.reader.read(19) == b"abcdefghi" + array.array("I", [1, 2]).tobytes() + b"xy"


def test_what_was_written_may_change_afterwards(maker: Maker) -> None:
    with maker.channel() as channel:
        buffer = bytearray(b"before")
        channel.writer.write(buffer)
        buffer[:] = b"after!"
        assert channel.reader.read(6) == b"before"


def test_only_bytes_can_be_written(maker: Maker) -> None:
    with maker.channel() as channel:
        for wrong in ("text", 5, None, [1], object()):
            with pytest.raises(TypeError):
                channel.writer.write(wrong)
        channel.writer.write(b"right")
        assert channel.reader.read(5) == b"right"


@pytest.mark.parametrize("length", [1000, 0])
def test_copyfileobj_in(maker: Maker, length: int) -> None:
    data = os.urandom(200_000)
    with maker.channel() as channel:
        copying = in_thread(shutil.copyfileobj, io.BytesIO(data), channel.writer, length)
        assert channel.reader.read(len(data)) == data
        copying.result()


def test_a_buffered_writer_gathers_small_writes(maker: Maker) -> None:
    rows = [b"row %d\n" % number for number in range(2000)]
    with maker.channel() as channel:
        writer = io.BufferedWriter(channel.writer, 65536)
        for row in rows:
            writer.write(row)
        writer.flush()
        assert [channel.reader.readline() for _ in rows] == rows
        writer.detach()


def test_4_mib_both_ways_at_once_r16(maker: Maker, bufsize: int) -> None:
    """R-16: who writes and who reads do not wait for each other."""
    data = os.urandom(MIB) * 4
    with maker.channel(bufsize=bufsize if bufsize == 0 else -1) as channel:
        writing = in_thread(channel.writer.write, data)
        digest = hashlib.sha256(exactly(channel.reader, len(data))).digest()
        assert writing.result(seconds(20)) == len(data)
    assert digest == hashlib.sha256(data).digest()


def test_concurrent_writers_do_not_mix_within_a_call_r23(maker: Maker) -> None:
    """R-23: a call is whole, and each writer's calls keep their order."""
    calls, letters = 20, b"abcd"

    def write(letter: int) -> None:
        for number in range(calls):
            head = b"%c%5d" % (letter, number)
            channel.writer.write(head + bytes([letter]) * (maker.whole - len(head)))

    with maker.channel() as channel:
        writing = [in_thread(write, letter) for letter in letters]
        blocks = [channel.reader.read(maker.whole) for _ in range(calls * len(letters))]
        for future in writing:
            future.result()
    seen = dict.fromkeys(letters, 0)
    for block in blocks:
        assert block[6:] == block[:1] * (maker.whole - 6)
        assert int(block[1:6]) == seen[block[0]]
        seen[block[0]] += 1
    assert set(seen.values()) == {calls}


def test_concurrent_readers_divide_the_bytes_r23(source: Source) -> None:
    """R-23: each byte goes to one reader, in order within it; buffered readers take turns."""
    size = 300_000
    numbers = array.array("I", range(size // 4)).tobytes()

    def read() -> list[bytes]:
        return list(iter(lambda: stream.read(4000), b""))

    for bufsize in (0, -1):
        with source(numbers, bufsize=bufsize) as stream:
            reading = [in_thread(read) for _ in range(4)]
            pieces = [piece for future in reading for piece in future.result()]
        assert sum(map(len, pieces)) == size
        assert sorted(b"".join(pieces)) == sorted(numbers)
        if bufsize:  # pieces of whole numbers: each one once
            joined = array.array("I", b"".join(pieces))
            assert sorted(joined) == list(range(size // 4))


@pytest.mark.half_close
def test_many_conversations_of_one_line_each(maker: Maker) -> None:
    with maker.channel() as channel:
        for number in range(100):
            channel.writer.write(b"%d\n" % number)
            assert channel.reader.readline() == b"%d\n" % number
        channel.writer.close()
        assert channel.reader.read() == b""
