"""Header blocks: the published vectors, both ends against each other, and what is refused."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import LocalProtocolError, RemoteProtocolError
from kubews.protocol.spdy_headers import DICTIONARY, MAX_BLOCK, Decoder, Encoder

PLAIN = bytes.fromhex(
    "00000003 00000004 706f7274 00000004 38303830 00000009 726571756573746964 00000001 30"
    "0000000a 73747265616d74797065 00000005 6572726f72"
)
HEADERS = {"port": "8080", "requestid": "0", "streamtype": "error"}
# Of two SYN_STREAM and two SYN_REPLY frames, each pair from one connection.
FROM_CLIENT = (
    "78f9e3c6a7c202253a48f95b044eea16061606409ab308125f99a074cc68004e892545a989b9d0c28635151415"
    "00000000ffff",
    "225333a8a44a04 000000ffff",
)
FROM_SERVER = ("78f9e3c6a7c2 62606060 00000000ffff", "0261 00000000ffff")

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
names = text.map(str.lower).filter(lambda name: name == name.lower())
headers = st.dictionaries(names, text, max_size=6)


def block(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    """Build a block as the specification words it, without the code under test."""
    sized = [struct.pack(">I", len(item)) + item for pair in pairs for item in pair]
    return struct.pack(">I", len(pairs) if count is None else count) + b"".join(sized)


def compressed(plain: bytes, finish: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 15, 8, 0, DICTIONARY)
    return compressor.compress(plain) + compressor.flush(finish)


def test_dictionary() -> None:
    assert len(DICTIONARY) == 1423
    assert hashlib.sha256(DICTIONARY).hexdigest() == (
        "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"
    )
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_vectors() -> None:
    decoder = Decoder()
    assert decoder.decode(bytes.fromhex(FROM_CLIENT[0])) == HEADERS
    assert decoder.decode(bytes.fromhex(FROM_CLIENT[1])) == {**HEADERS, "streamtype": "data"}
    decoder = Decoder()
    assert [decoder.decode(bytes.fromhex(each)) for each in FROM_SERVER] == [{}, {}]


def test_the_encoder_makes_the_block_of_the_vectors() -> None:
    inflater = zlib.decompressobj(zdict=DICTIONARY)
    encoder = Encoder()
    first, second = encoder.encode(HEADERS), encoder.encode({**HEADERS, "streamtype": "data"})
    assert inflater.decompress(first) == PLAIN
    assert inflater.decompress(second) == PLAIN[:-9] + b"\0\0\0\4data"
    for each in (first, second):
        assert each.endswith(b"\0\0\xff\xff")
    # With a dictionary, and this one.
    assert first[1] & 0x20
    assert first[2:6] == bytes.fromhex("e3c6a7c2")
    assert int.from_bytes(first[:2], "big") % 31 == 0
    assert len(second) < 20 < len(first)


def test_names_go_out_in_lower_case() -> None:
    assert Decoder().decode(Encoder().encode({"StreamType": "Error"})) == {"streamtype": "Error"}


def test_bytes_that_are_not_utf8_and_several_values() -> None:
    value = b"\xff\0a".decode("utf-8", "surrogateescape")
    assert Decoder().decode(compressed(block((b"x", b"\xff\0a")))) == {"x": value}
    assert Decoder().decode(Encoder().encode({"x": value})) == {"x": value}


@given(blocks=st.lists(headers, max_size=8))
def test_both_ends(blocks: list[dict[str, str]]) -> None:
    encoder, decoder = Encoder(), Decoder()
    for each in blocks:
        assert decoder.decode(encoder.encode(each)) == each


def test_a_thousand_blocks() -> None:
    """The window slides far beyond the dictionary."""
    encoder, decoder = Encoder(), Decoder()
    for number in range(1000):
        sent = {"port": str(number), "requestid": f"{number * 7919:x}", "streamtype": "data"}
        assert decoder.decode(encoder.encode(sent)) == sent


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "cut off"),
        (bytes(20), "cannot be decompressed"),
        (zlib.compressobj(zdict=b"another").compress(b"x") + b"\x78", "cannot be decompressed"),
        (compressed(b""), "cut off"),
        (compressed(b"\0\0\0"), "cut off"),
        (compressed(block(count=1)), "cut off"),
        (compressed(block(count=0xFFFFFFFF)), "cut off"),
        (compressed(block((b"a", b"b"), count=2)), "cut off"),
        (compressed(block((b"a", b"b"))[:-1]), "cut off"),
        (compressed(block((b"a", b""))[:-1]), "cut off"),
        (compressed(b"\0\0\0\1\0\0\0\x09a\0\0\0\0"), "cut off"),
        (compressed(b"\0\0\0\1\xff\xff\xff\xffa"), "cut off"),
        (compressed(block((b"a", b"b"), count=0)), "14 bytes long, its headers 4"),
        (compressed(block((b"a", b"b")) + b"\0"), "15 bytes long, its headers 14"),
        (compressed(block((b"Port", b"80"))), "upper case or repeated: 'Port'"),
        (compressed(block((b"a", b"1"), (b"a", b"2"))), "upper case or repeated: 'a'"),
        (compressed(block(), zlib.Z_FINISH) + b"\0", "goes on behind its end"),
        (compressed(block((b"a", bytes(MAX_BLOCK)))), "larger than 65536"),
        (compressed(bytes(4 << 20)), "larger than 65536"),
    ],
)
def test_refused(raw: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        Decoder().decode(raw)


def test_the_largest() -> None:
    room = MAX_BLOCK - len(block((b"a", b"")))
    largest = {"a": "x" * room}
    assert Decoder().decode(Encoder().encode(largest)) == largest
    encoder = Encoder()
    with pytest.raises(LocalProtocolError, match="65537 bytes of headers"):
        encoder.encode({"a": "x" * (room + 1)})
    # Nothing of it has got into the stream.
    assert Decoder().decode(encoder.encode({"b": "1"})) == {"b": "1"}


@given(raw=st.binary(max_size=60))
def test_anything(raw: bytes) -> None:
    for each in (raw, compressed(raw), compressed(PLAIN) + raw):
        try:
            Decoder().decode(each)
        except RemoteProtocolError:
            pass
