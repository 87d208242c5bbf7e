"""A clogged stream: writers wait, memory stays bounded, and nothing is lost when somebody reads on."""

from __future__ import annotations

import time

import pytest
from makers import Maker, Source, exactly, soon
from support import eventually, in_thread, seconds

pytestmark = pytest.mark.large

MIB = 1 << 20


def test_a_writer_waits_for_the_reader_and_goes_on(maker: Maker) -> None:
    """Here is a reader, though a slow one."""
    written, enough = [0], [maker.under_way + 8 * MIB]

    def write() -> None:
        block = bytes(1 << 15)
        while written[0] < enough[0]:
            written[0] += channel.writer.write(block)

    with maker.channel(bufsize=0) as channel:
        writing = in_thread(write)
        assert channel.reader.read(1) == b"\0"
        assert eventually(lambda: stalled(written), 20)
        assert writing.running
        assert written[0] < maker.under_way
        assert channel.held() < 8 * MIB
        before = written[0]
        enough[0] = before + 8 * MIB
        assert exactly(channel.reader, before) == bytes(before)
        assert eventually(lambda: written[0] > before)
        exactly(channel.reader, enough[0] - before - 1)
        writing.result(seconds(20))


def stalled(written: list[int]) -> bool:
    before = written[0]
    time.sleep(soon() * 3)
    return before == written[0]


def test_a_lone_writer(maker: Maker) -> None:
    """Nobody reads, and nobody ever did."""
    size = 12 * MIB
    with maker.channel(bufsize=0) as channel:
        if maker.differs("a lone writer goes on"):
            assert in_thread(channel.writer.write, bytes(size)).result(seconds(30)) == size
            assert exactly(channel.reader, size) == bytes(size)
            return
        writing = in_thread(channel.writer.write, bytes(size))
        time.sleep(soon())
        assert writing.running
        exactly(channel.reader, size)
        assert writing.result() == size


def test_a_reader_that_pauses_loses_nothing(source: Source) -> None:
    data = bytes(range(256)) * 4096 * 10
    with source(data, bufsize=0) as stream:
        assert stream.read(1) == b"\0"
        time.sleep(soon() * 3)
        assert exactly(stream, len(data)) == data[1:]
