"""Checksums that a container can calculate, too: which to take, and the same here.

``cksum`` is POSIX's CRC: no proof against somebody who wants to deceive, but what arrives over TLS need only be
proved whole, and it takes a tenth of the time of SHA-256, which would be longer than the copy itself.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Callable
from typing import NamedTuple, Optional, Protocol, Union

# The bits of each byte in the other order: zlib's CRC is that of POSIX seen in a mirror.
_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES = 0xFFFFFFFF


class Digest(Protocol):
    """A checksum that is being calculated.

    Threads: one.
    """

    def update(self, data: Union[bytes, bytearray], /) -> None:
        """Take more."""

    def hexdigest(self) -> str:
        """Return it as the program prints it."""


class Cksum:
    """What ``cksum`` prints.

    Threads: one.
    """

    def __init__(self) -> None:
        self._add = _compiled() or add
        self._crc, self._size = _ONES, 0

    def update(self, data: Union[bytes, bytearray]) -> None:
        """Take more."""
        self._crc = self._add(data, self._crc)
        self._size += len(data)

    def hexdigest(self) -> str:
        """Return the first number that ``cksum`` prints: behind the data it has seen their size."""
        length = self._size.to_bytes(-(-self._size.bit_length() // 8), "little")
        return str(self._add(length, self._crc))


def add(data: Union[bytes, bytearray], crc: int) -> int:
    """Return the CRC of POSIX of some data behind others, whose CRC is given: ``_ONES`` for none."""
    return _mirrored(zlib.crc32(data.translate(_MIRROR), _mirrored(crc)))


def _mirrored(crc: int) -> int:
    return int(f"{crc:032b}"[::-1], 2)


@functools.cache
def _compiled() -> Optional[Callable[[Union[bytes, bytearray], int], int]]:
    """Return what does the same without turning each byte first (the extra ``speed``), or None."""
    try:
        from fastcrc.crc32 import cksum

        cksum(bytearray(), _ONES)  # a release that is too old takes bytes only
    except (ImportError, TypeError):
        return None
    return cksum


class Checksum(NamedTuple):
    """A kind of checksum.

    Threads: a value.
    """

    name: str
    #: What prints it, as the first word, of its input.
    program: str
    make: Callable[[], Digest]


_CKSUM = Checksum("cksum", "cksum", Cksum)
_SHA256 = Checksum("sha256", "sha256sum", hashlib.sha256)


def kinds(wanted: Optional[bool]) -> tuple[Checksum, ...]:
    """Return the kinds of checksum that will do, the best first.

    Args:
        wanted: None for the quickest, True for SHA-256 and nothing else, False for none.
    """
    if wanted is False:
        return ()
    return (_SHA256,) if wanted else (_CKSUM, _SHA256)


def choose(programs: frozenset[str], wanted: Optional[bool]) -> Optional[Checksum]:
    """Return the checksum to take for an image that has these programs, None for none.

    Args:
        programs: their names.
        wanted: see ``kinds``.
    """
    return next((each for each in kinds(wanted) if each.program in programs), None)
