"""SPDY/3 header blocks: name/value pairs through one zlib stream per direction of a connection.

A block can only be read after all blocks before it, so none may be skipped, not even that of a stream
which nobody wants any more.

Sources: SPDY/3 draft, "Name/Value Header Block" (layout and dictionary); moby/spdystream ``spdy/read.go``
(a block must use up the bytes of its frame; names in upper case and repeated names are fatal).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from kubews.errors import LocalProtocolError, RemoteProtocolError

#: Bytes of a block, uncompressed. What Kubernetes sends has 60; this bounds what a peer can make of few.
MAX_BLOCK = 64 * 1024

_LENGTH = struct.Struct(">I")

# The first part of the dictionary: each word goes in behind its length.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base content-encoding "
    "content-language content-length content-location content-md5 content-range content-type date "
    "etag expect expires from host if-match if-modified-since if-none-match if-range "
    "if-unmodified-since last-modified location max-forwards pragma proxy-authenticate "
    "proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url "
    "public set-cookie keep-alive origin"
)
# The second: as it is.
_TEXT = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    b"Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 "
    b"Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service "
    b"UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, "
    b"Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    b"application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    b"charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


#: What both zlib streams start from.
DICTIONARY = b"".join(_sized(word.replace("_", " ").encode()) for word in _WORDS.split()) + _TEXT

# A compressor of zlib's default size takes 256 KiB, for each of perhaps hundreds of connections. A window
# of 2 KiB still holds the dictionary (1423 bytes), and blocks are short: 24 KiB, and the same frames.
_WINDOW_BITS = 11
_MEMORY_LEVEL = 5


class Encoder:
    """The compressing end: the blocks must go out in the order in which they were made.

    Threads: one.
    """

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(
            zlib.Z_BEST_COMPRESSION,
            zlib.DEFLATED,
            _WINDOW_BITS,
            _MEMORY_LEVEL,
            zlib.Z_DEFAULT_STRATEGY,
            DICTIONARY,
        )

    def encode(self, headers: Mapping[str, str]) -> bytes:
        """Make the next block.

        Args:
            headers: names are sent in lower case; surrogate escapes stand for bytes that are no UTF-8.

        Raises:
            LocalProtocolError: too many bytes for one block.
        """
        parts = [_LENGTH.pack(len(headers))]
        for name, value in headers.items():
            parts += (_sized(_bytes(name.lower())), _sized(_bytes(value)))
        block = b"".join(parts)
        if len(block) > MAX_BLOCK:
            raise LocalProtocolError(f"{len(block)} bytes of headers; {MAX_BLOCK} is the limit")
        return self._zlib.compress(block) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decoder:
    """The decompressing end: it must be given every block that comes, in order.

    Threads: one.
    """

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def decode(self, block: bytes) -> dict[str, str]:
        """Read the next block.

        Raises:
            RemoteProtocolError: it is no header block, or too large a one.
        """
        try:
            plain = self._zlib.decompress(block, MAX_BLOCK + 1)
        except zlib.error as exc:
            raise RemoteProtocolError(f"a header block cannot be decompressed: {exc}") from exc
        if len(plain) > MAX_BLOCK:
            raise RemoteProtocolError(f"a header block is larger than {MAX_BLOCK} bytes")
        if self._zlib.unused_data:
            raise RemoteProtocolError("a header block goes on behind its end")
        return _parse(plain)


def _parse(plain: bytes) -> dict[str, str]:
    try:
        (count,) = _LENGTH.unpack_from(plain)
        # Every pair takes eight bytes at least, so a made-up count ends soon.
        position, headers = _LENGTH.size, {}
        for _ in range(count):
            name, position = _take(plain, position)
            value, position = _take(plain, position)
            if name != name.lower() or name in headers:
                raise RemoteProtocolError(f"a header name in upper case or repeated: {name[:80]!r}")
            headers[name] = value
    except struct.error as exc:
        raise RemoteProtocolError("a header block is cut off") from exc
    if position != len(plain):
        raise RemoteProtocolError(
            f"a header block is {len(plain)} bytes long, its headers {position}"
        )
    return headers


def _take(plain: bytes, position: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(plain, position)
    start = position + _LENGTH.size
    if start + length > len(plain):
        raise struct.error
    return plain[start : start + length].decode("utf-8", "surrogateescape"), start + length


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
