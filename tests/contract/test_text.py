"""The contract of text: characters and lines, wherever the bytes of one are split."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import Maker, Source

LETTERS = st.text(alphabet="aé€\N{GRINNING FACE}\r\n\N{LINE SEPARATOR}", max_size=60)

# The fixture makes a new stream for each example.
FEW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut somewhere."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


def in_memory(data: bytes, **text: Any) -> io.TextIOWrapper:
    """What io makes of the same bytes."""
    return io.TextIOWrapper(io.BytesIO(data), **text)


@FEW
@given(LETTERS, st.lists(st.integers(0, 200), max_size=20), st.sampled_from(["utf-8", "utf-16"]))
def test_characters_split_anywhere_r2(
    source: Source, text: str, cuts: list[int], encoding: str
) -> None:
    """R-2: never a character more or less than in one piece, and newlines are newlines."""
    data = text.encode(encoding)
    with source(*split(data, cuts), encoding=encoding) as stream:
        assert stream.read() == in_memory(data, encoding=encoding).read()
        assert stream.read() == ""


@FEW
@given(LETTERS, st.lists(st.integers(0, 200), max_size=20), st.integers(1, 9))
def test_text_in_every_way_of_reading(
    source: Source, text: str, cuts: list[int], size: int
) -> None:
    data = text.encode()
    for bufsize in (-1, 0):
        expected = in_memory(data, encoding="utf-8")
        with source(*split(data, cuts), text=True, bufsize=bufsize) as stream:
            assert stream.read(0) == ""
            assert stream.read(size) == expected.read(size)
            assert stream.readline() == expected.readline()
            assert stream.readline(size) == expected.readline(size)
            assert next(stream, "") == next(expected, "")
            assert list(stream) == list(expected)
            assert stream.readline() == ""
            assert stream.read(5) == ""


@FEW
@given(LETTERS, st.lists(st.integers(0, 200), max_size=20))
def test_a_text_wrapper_of_the_users_own(source: Source, text: str, cuts: list[int]) -> None:
    data = text.encode()
    for newline in (None, "", "\n", "\r\n"):
        expected = in_memory(data, encoding="utf-8", newline=newline).readlines()
        with source(*split(data, cuts)) as stream:
            with io.TextIOWrapper(stream, encoding="utf-8", newline=newline) as wrapper:
                assert wrapper.readlines() == expected


def test_what_is_not_text(source: Source) -> None:
    broken = b"ab\xffcd\xc3"
    with source(broken, text=True, errors="replace") as stream:
        assert stream.read() == broken.decode(errors="replace")
    with source(broken, text=True, errors="surrogateescape") as stream:
        assert stream.read().encode(errors="surrogateescape") == broken
    with source(broken, text=True) as stream:
        with pytest.raises(UnicodeDecodeError):
            stream.read()
    with source(b"ab\xc3", text=True) as stream:  # the last one is cut
        with pytest.raises(UnicodeDecodeError):
            stream.read()


def test_text_there_and_back(maker: Maker) -> None:
    with maker.channel(text=True) as channel:
        for line in ("plain\n", "é€\N{GRINNING FACE}\n", "a" * 40_000 + "\n"):
            assert channel.writer.write(line) == len(line)
            channel.writer.flush()
            assert channel.reader.readline() == line
        print("printed", 1, file=channel.writer, flush=True)
        assert channel.reader.readline() == "printed 1\n"
        channel.writer.writelines(["a\n", "b\n"])
        channel.writer.flush()
        assert [next(channel.reader), next(channel.reader)] == ["a\n", "b\n"]
        with pytest.raises(TypeError):
            channel.writer.write(b"bytes")


def test_attributes_of_text(maker: Maker) -> None:
    with maker.channel(encoding="latin-1", errors="replace") as channel:
        for end in (channel.reader, channel.writer):
            assert end.encoding == "latin-1"
            assert end.errors == "replace"
            assert not end.isatty()
            assert not end.seekable()
            with pytest.raises(OSError):
                end.tell()
        channel.writer.write("é€\n")
        channel.writer.flush()
        assert channel.reader.readline() == "é?\n"
