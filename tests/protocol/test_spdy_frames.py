"""SPDY frames: the published vectors, every cut, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kubews.errors import RemoteProtocolError
from kubews.protocol import spdy_frames as frames
from kubews.protocol.spdy_frames import (
    MAX_CONTROL,
    DataPiece,
    Framer,
    GoAwayFrame,
    Headers,
    Ping,
    RstStream,
    SynReply,
    SynStream,
)

BLOCK = b"block"


def control(kind: int, body: bytes = b"", flags: int = 0, version: int = 3) -> bytes:
    """Build a control frame as the specification words it, without the code under test."""
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def stream(number: int, more: bytes = b"") -> bytes:
    return struct.pack(">I", number) + more


def plain(received: Any) -> list[Any]:
    """Frames with copies of their payloads, to compare."""
    return [
        (frame.stream_id, bytes(frame.payload), frame.fin)
        if isinstance(frame, DataPiece)
        else frame
        for frame in received
    ]


VECTORS = [
    ("00000001 01000000", frames.data(1, b"", True), [(1, b"", True)]),
    ("00000003 00000002 6869", frames.data(3, b"hi"), [(3, b"hi", False)]),
    ("80030003 00000008 00000003 00000005", frames.rst_stream(3, 5), [RstStream(3, 5)]),
    ("80030006 00000004 00000001", frames.ping(1), [Ping(1)]),
    ("80030007 00000008 00000000 00000000", frames.goaway(0, 0), [GoAwayFrame(0, 0)]),
    (
        "80030001 0000000f 00000001 00000000 0000 626c6f636b",
        frames.syn_stream(1, BLOCK),
        [SynStream(1, BLOCK, False)],
    ),
    (
        "80030001 0100000f 00000003 00000000 0000 626c6f636b",
        frames.syn_stream(3, BLOCK, True),
        [SynStream(3, BLOCK, True)],
    ),
    (
        "80030002 00000009 00000001 626c6f636b",
        frames.syn_reply(1, BLOCK),
        [SynReply(1, BLOCK, False)],
    ),
]


@pytest.mark.parametrize(("raw", "made", "frame"), VECTORS)
def test_vectors(raw: str, made: bytes, frame: list[Any]) -> None:
    assert made == bytes.fromhex(raw)
    assert plain(Framer().receive(bytes.fromhex(raw))) == frame


def test_all_vectors_at_every_cut() -> None:
    """R-2: two pieces, cut at every byte; then every byte apart."""
    whole = b"".join(made for _, made, _ in VECTORS)
    expected = [frame for _, _, each in VECTORS for frame in each]
    for cut in range(len(whole) + 1):
        framer = Framer()
        received = plain(framer.receive(whole[:cut])) + plain(framer.receive(whole[cut:]))
        if received != expected:  # the only frame that may be told in two pieces
            at = received.index((3, b"h", False))
            received[at : at + 2] = [(3, b"hi", False)]
        assert received == expected
    framer = Framer()
    received = [frame for byte in whole for frame in plain(framer.receive(bytes([byte])))]
    at = received.index((3, b"h", False))
    assert received[at + 1] == (3, b"i", False)
    assert [*received[:at], (3, b"hi", False), *received[at + 2 :]] == expected


def test_data_is_passed_on_as_it_comes_and_not_copied() -> None:
    framer = Framer()
    (piece,) = framer.receive(payload := struct.pack(">II", 1, 0x01FFFFFF) + b"abc")
    assert isinstance(piece, DataPiece)
    assert (piece.payload, piece.fin) == (b"abc", False)
    assert piece.payload.obj is payload
    rest = bytes(0xFFFFFF - 3)
    assert plain(framer.receive(rest[:-1])) == [(1, rest[:-1], False)]
    assert plain(framer.receive(b"\0" + frames.ping(2))) == [(1, b"\0", True), Ping(2)]


def test_empty_data_without_an_end() -> None:
    assert plain(Framer().receive(bytes(3) + b"\1" + bytes(4))) == [(1, b"", False)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: Any) -> None:
    assert plain(Framer().receive(kind(b"\0\0\0\1\0\0\0\1x"))) == [(1, b"x", False)]
    assert list(Framer().receive(kind(b""))) == []


def test_the_reserved_bits_are_ignored() -> None:
    assert list(Framer().receive(control(3, stream(1 << 31 | 5) + stream(5)))) == [RstStream(5, 5)]
    assert list(Framer().receive(control(7, stream(1 << 31 | 5) + stream(0)))) == [
        GoAwayFrame(5, 0)
    ]


def test_other_flags_mean_nothing() -> None:
    assert plain(Framer().receive(struct.pack(">II", 1, 0xFE000001) + b"x")) == [(1, b"x", False)]
    assert list(Framer().receive(control(6, stream(1), flags=0xFF))) == [Ping(1)]
    assert list(Framer().receive(control(2, stream(1), flags=0xFE))) == [SynReply(1, b"", False)]


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        (control(8, stream(3, BLOCK)), Headers(3, BLOCK, False)),
        (control(8, stream(3, BLOCK), flags=1), Headers(3, BLOCK, True)),
        (control(2, stream(3, BLOCK), flags=1), SynReply(3, BLOCK, True)),
        (
            control(1, stream(3, stream(1, b"\xe0\x07" + BLOCK))),
            SynStream(3, BLOCK, False),
        ),
        (control(6, stream(0xFFFFFFFF)), Ping(0xFFFFFFFF)),
        (
            control(1, stream(1, bytes(MAX_CONTROL - 4))),
            SynStream(1, bytes(MAX_CONTROL - 10), False),
        ),
    ],
)
def test_frames_that_are_never_sent_from_here(raw: bytes, frame: Any) -> None:
    assert list(Framer().receive(raw)) == [frame]


@pytest.mark.parametrize(
    "raw",
    [
        control(4),
        control(4, stream(1, bytes(8))),
        control(4, bytes(MAX_CONTROL)),
        control(9),
        control(9, stream(1, stream(65536))),
    ],
)
def test_ignored(raw: bytes) -> None:
    """Windows and settings: Kubernetes' end has none."""
    assert list(Framer().receive(raw + frames.ping(1))) == [Ping(1)]


MALFORMED = [
    (b"HTTP/1.1", None),  # a data frame, for all that can be told
    (control(1, bytes(10), version=2), "SPDY version 2"),
    (control(1, bytes(10), version=0x7FFF), "SPDY version 32767"),
    (control(0), "unknown type 0"),
    (control(5), "unknown type 5"),
    (control(10, bytes(8)), "unknown type 10"),
    (control(0xFFFF), "unknown type 65535"),
    (control(1, bytes(9)), "a SYN_STREAM frame of 9 bytes"),
    (control(1, bytes(MAX_CONTROL + 1)), "a SYN_STREAM frame of 65537 bytes"),
    (control(2, bytes(3)), "a SYN_REPLY frame of 3 bytes"),
    (control(3, bytes(7)), "a RST_STREAM frame of 7 bytes"),
    (control(3, bytes(9)), "a RST_STREAM frame of 9 bytes"),
    (control(4, bytes(MAX_CONTROL + 1)), "a SETTINGS frame of 65537 bytes"),
    (control(6), "a PING frame of 0 bytes"),
    (control(6, bytes(8)), "a PING frame of 8 bytes"),
    (control(7, bytes(4)), "a GOAWAY frame of 4 bytes"),
    (control(7, bytes(12)), "a GOAWAY frame of 12 bytes"),
    (control(8, bytes(3)), "a HEADERS frame of 3 bytes"),
    (control(9, bytes(MAX_CONTROL + 1)), "a WINDOW_UPDATE frame of 65537 bytes"),
    (control(1, stream(0, bytes(6))), "stream 0"),
    (control(2, stream(0)), "stream 0"),
    (control(2, stream(1 << 31)), "stream 0"),
    (control(3, stream(0, stream(5))), "stream 0"),
    (control(8, stream(0)), "stream 0"),
    (struct.pack(">II", 0, 1) + b"x", "stream 0"),
    (control(3, stream(1, stream(0))), "status 0"),
    (control(6, stream(0)), "id 0"),
]


@pytest.mark.parametrize(("raw", "message"), MALFORMED)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_malformed(raw: bytes, message: str | None, size: int) -> None:
    framer = Framer()
    assert plain(framer.receive(frames.data(1, b"before"))) == [(1, b"before", False)]
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    if message is None:
        assert [frame for piece in pieces for frame in framer.receive(piece)] == []
        return
    with pytest.raises(RemoteProtocolError, match=message):
        for piece in pieces:
            assert list(framer.receive(piece)) == []


def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    with pytest.raises(RemoteProtocolError, match="16777215 bytes"):
        list(Framer().receive(bytes.fromhex("8003000100ffffff")))
