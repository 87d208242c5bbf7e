"""The checksum of copies, with and without the extra ``speed``; the program of that name is the oracle."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubews.files import checksums
from kubews.files.checksums import Cksum


def told(data: bytes) -> str:
    done = subprocess.run(["cksum"], input=data, capture_output=True, check=True, timeout=30)
    return done.stdout.split()[0].decode()


def summed(pieces: list[bytes]) -> str:
    digest = Cksum()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(params=["compiled", "pure"])
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Calculate as with and as without the extra ``speed``."""
    checksums._compiled.cache_clear()
    if request.param == "pure":
        # None in there makes an import fail.
        monkeypatch.setitem(sys.modules, "fastcrc.crc32", None)
    assert bool(checksums._compiled()) is (request.param == "compiled")
    yield request.param
    checksums._compiled.cache_clear()


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 65535, 65536, 1 << 18, (1 << 18) + 1])
def test_it_is_what_cksum_says_r46(speed: str, size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(251)), size))
    assert summed([data]) == summed([bytearray(data[:99]), data[99:]]) == told(data)  # type: ignore[list-item]


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=300)))
def test_pieces_make_no_difference_and_neither_does_the_extra_r46(pieces: list[bytes]) -> None:
    compiled = checksums._compiled()
    assert compiled is not None
    crc = other = 0xFFFFFFFF
    for piece in pieces:
        crc, other = compiled(piece, crc), checksums.add(piece, other)
        assert crc == other
    assert summed(pieces) == summed([b"".join(pieces)])
