"""A tar archive that comes as a stream, read entry by entry, and believed only if its end came too.

``tarfile`` parses; it would take an archive that was cut at a member's border, or that goes on as something
else, for whole, and headers without end for a reason to allocate memory without end. So what it reads is
counted here.
"""

from __future__ import annotations

import functools
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from kubews.errors import CopyError, TruncatedTransfer, UnsafeArchive
from kubews.files.arrival import Entry

# What headers of one member may take: long names, attributes, maps of sparse files.
_HEADERS = 1 << 20
# What tarfile reads at a time, more than it needs.
_AHEAD = 32 << 10
# Two blocks of zeros are the end (POSIX pax, "ustar Interchange Format").
_END = 2 * tarfile.BLOCKSIZE
# What may follow them: archives are written in records, of 10 KiB by default and 1 MiB at most.
_PADDING = 4 << 20
# Reads at the end of the stream after which whoever reads is taken to read for ever.
_PATIENCE = 100

# Older tarfiles look for words behind digits, from each digit to the last (CVE-2024-6232): a megabyte of them
# takes hours. No name has so many.
_DIGITS = re.compile(rb"(?<!\d)\d{512}")
# What a record of a pax header begins with, "length keyword=value\n"; newer tarfiles allow no more digits.
_LENGTH = re.compile(rb"([0-9]{1,20}) ")
# Each copies what is said for all that follows, and tarfile has all of one member in its hands at once.
_MOST_LISTS = 16
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)

# What tarfile raises for what is no archive.
_NO_HEADER = ("bad checksum", "invalid header")
_BROKEN = (tarfile.TarError, ValueError, LookupError, OverflowError, EOFError, RecursionError)


_WORDS = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}


class _Stream:
    """The stream as the file that ``tarfile`` reads, with the position of its last byte that is no zero, and limits.

    ``tarfile`` has such a thing itself (``r|``); it copies what it has read ahead for every header, and
    contents twice.

    Threads: one.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._ahead, self._at = b"", 0
        #: Bytes that have come, and up to the last one that is no zero.
        self.size = self.last = 0
        self._limit: Optional[int] = None
        self._headers = self._records = False
        self._lists = 0  # of records, for one member
        #: Whether less was there than tarfile wanted.
        self.short = False
        self._at_end = 0

    def expect_headers(self, passed: int) -> None:
        """Say that what comes is the headers of a member, behind so many bytes that are passed over."""
        self._limit, self._headers = self.size + passed + _HEADERS + _AHEAD, True
        self._lists = 0

    def expect_records(self) -> None:
        """Say that what is read next is the records of a pax header."""
        self._records = True
        self._lists += 1
        if self._lists > _MOST_LISTS:
            raise UnsafeArchive(
                f"the archive has more than {_MOST_LISTS} pax headers for one member"
            )

    def expect_contents(self, most: Optional[int]) -> None:
        """Say that what comes is contents, so many bytes at most; None if somebody else counts them."""
        self._limit = None if most is None else self.size + most + _AHEAD
        self._headers = False

    def fetch(self, size: int) -> bytes:
        """Return at least one and at most so many bytes behind all that has come, ``b""`` at the end."""
        data = self._read(size)
        self.size += len(data)
        kept = len(data.rstrip(b"\0"))
        if kept:
            self.last = self.size - len(data) + kept
        if not data:
            self._at_end += 1
        if self._at_end > _PATIENCE:
            raise TruncatedTransfer("the archive ended", received=self.size)
        if self._limit is not None and self.size > self._limit:
            what = "headers" if self._headers else "a sparse file"
            raise UnsafeArchive(f"the archive has {what} without end")
        return data

    def some(self, size: int) -> bytes:
        """Return the next bytes, at least one and at most so many, ``b""`` at the end."""
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        return data or self.fetch(size)

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end, if they are no header that tarfile would choke on."""
        data = self._exactly(size)
        if self._headers and size > tarfile.BLOCKSIZE and _DIGITS.search(data):
            raise UnsafeArchive("the archive has a header with hundreds of digits in a row")
        if self._records:
            self._records = False
            if self.short:
                raise EOFError("within a pax header")
            _check_records(data)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        if len(data) == size <= tarfile.BLOCKSIZE:
            return data
        pieces, left = [data], size - len(data)
        while left and self._more():
            pieces.append(self._ahead[:left])
            self._at = len(pieces[-1])
            left -= self._at
        self.short = left > 0
        return b"".join(pieces)

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self.size - len(self._ahead) + self._at

    def seek(self, position: int) -> None:
        """Go forward."""
        if position < self.tell():
            raise tarfile.StreamError("the stream cannot be read again")
        while (left := position - self.tell()) and (self._at < len(self._ahead) or self._more()):
            self._at = min(self._at + left, len(self._ahead))

    def seekable(self) -> bool:
        """Return True: tarfile goes forward only."""
        return True

    def _more(self) -> bool:
        self._ahead, self._at = self.fetch(_AHEAD), 0
        return bool(self._ahead)


def _check_records(data: bytes) -> None:
    """Refuse a pax header with a record that does not end where it says, as newer tarfiles do.

    Older ones look for the end of a keyword in all that follows: where records overlap, each has the whole
    rest for its own, and a hundred kilobytes take gigabytes.
    """
    at = 0
    while data[at : at + 1].strip(b"\0"):  # at a NUL every tarfile stops
        length = _LENGTH.match(data, at)
        keyword, end = (length.end(), at + int(length[1])) if length else (at, at)
        if data.find(b"=", keyword, end - 1) <= keyword or data[end - 1 : end] != b"\n":
            raise UnsafeArchive("the archive has a pax header that is no list of records")
        at = end


class _Member(tarfile.TarInfo):
    """A member of which the stream is told when its pax header comes.

    Threads: one.
    """

    def _proc_member(self, tar: Any) -> Any:  # which tarfile says "can be overridden in a subclass"
        if self.type in _PAX:
            tar.fileobj.expect_records()
        return super()._proc_member(tar)  # type: ignore[misc]


def _passed_over(member: tarfile.TarInfo) -> int:
    """Return the size of what is not known, for which there may be contents that tarfile passes over."""
    known = member.isreg() or member.type in tarfile.SUPPORTED_TYPES
    return 0 if known else member.size


def _check_shared(headers: Mapping[str, str]) -> None:
    """Refuse too many headers that are for all members that follow: tarfile copies them for each."""
    if headers and sum(len(name) + len(value) for name, value in headers.items()) > _HEADERS:
        raise UnsafeArchive("the archive has headers without end")


class TarReader:
    """Read an archive.

    Args:
        read: returns at least one and at most so many bytes of it, ``b""`` at the end.

    Threads: one.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._stream = _Stream(read)

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._stream.size

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; its contents can be read until the next one is asked for.

        Raises:
            TruncatedTransfer: the end is missing.
            UnsafeArchive: the headers have no end.
            CopyError: it is no archive.
        """
        try:
            self._stream.expect_headers(0)
            tar = self._open()
            # An archive of nothing: Python 3.10 would look for its first member again, and not find back.
            member = tar.next() if tar.firstmember else None  # type: ignore[attr-defined]
            while member is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would grow with each
                _check_shared(tar.pax_headers)
                passed = _passed_over(member)
                self._stream.expect_contents(member.size if member.issparse() else None)
                yield self._entry(member, tar, passed)
                self._stream.expect_headers(passed)
                self._stream.seek(tar.offset)
                member = tar.next()
            self._check_end(tar.offset)
        except _BROKEN as exc:
            raise self._broken(exc) from exc

    def _open(self) -> tarfile.TarFile:
        stream: Any = self._stream
        return tarfile.TarFile(
            fileobj=stream, tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        )

    def _check_end(self, end: int) -> None:
        """Look for the end-of-archive blocks: nothing but zeros from where the headers end, two blocks of them."""
        self._stream.expect_contents(None)
        allowed = self._stream.size + _PADDING
        while self._stream.fetch(_AHEAD):
            if self._stream.size > allowed:
                raise UnsafeArchive("the archive goes on behind its end")
        cut = self._stream.short or self._stream.size < end + tarfile.BLOCKSIZE
        if self._stream.last > end and not cut:
            raise CopyError(
                f"what came from the pod is no whole archive: no header at byte {end:,}"
            )
        if cut or self._stream.size < end + _END:
            raise TruncatedTransfer(
                f"the end of the archive is missing: it was cut after {self._stream.size:,} bytes",
                received=self._stream.size,
            )

    def _broken(self, exc: Exception) -> CopyError:
        size = self._stream.size
        # Newer Pythons call contents of a header that end early an invalid header.
        if self._stream.short or (str(exc) not in _NO_HEADER and not self._stream.fetch(1)):
            return TruncatedTransfer(
                f"the archive was cut after {size:,} bytes ({exc})", received=size
            )
        return CopyError(f"what came from the pod is no archive: {exc}")

    def _entry(self, member: tarfile.TarInfo, tar: tarfile.TarFile, passed: int) -> Entry:
        mode, mtime = stat.S_IMODE(member.mode), float(member.mtime)
        # tarfile lets a path that is said besides come before it, which leads to a directory that never was.
        member.name = member.pax_headers.get("GNU.sparse.name", member.name)
        if member.isreg():
            read = self._stream.some
            if member.issparse():
                read = functools.partial(self._expanded, tar.extractfile(member))
            return Entry("file", member.name, member.size, mode, mtime, read=read)
        if member.isdir():
            return Entry("directory", member.name, 0, mode, mtime)
        if member.issym():
            return Entry("symlink", member.name, target=member.linkname)
        if member.islnk():
            return Entry("link", member.name, target=member.linkname)
        what = _WORDS.get(member.type, f"an entry of the unknown type {member.type!r}")
        return Entry("other", member.name, passed, what=what)

    def _expanded(self, source: Any, size: int) -> bytes:
        try:
            return bytes(source.read(size))
        except _BROKEN as exc:
            raise self._broken(exc) from exc
