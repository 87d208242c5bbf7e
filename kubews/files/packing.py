"""Files here as a stream for a pod: a tar archive, or the lines that a shell without tar understands."""

from __future__ import annotations

import glob
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError
from kubews.files.remotefiles import quoted

_PIECE = 256 << 10
_END = bytes(2 * tarfile.BLOCKSIZE)
_MODES = 0o777


class Item(NamedTuple):
    """Something to send.

    Threads: a value.
    """

    kind: Literal["file", "directory", "symlink", "left", "other"]
    #: Its name there, with slashes.
    name: str
    path: str
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    target: str = ""


def expand(local: StrOrBytesPath | Sequence[StrOrBytesPath]) -> list[str]:
    """Return the paths that were named: what exists is itself, anything else is a glob.

    Raises:
        CopyError: there is nothing of that name.
    """
    several = isinstance(local, Sequence) and not isinstance(local, (str, bytes))
    named: Sequence[StrOrBytesPath] = local if several else [local]  # type: ignore[assignment,list-item]
    paths: list[str] = []
    for each in map(os.fsdecode, named):
        found = [each] if os.path.lexists(each) else sorted(glob.glob(each))
        if not found:
            # kubectl's words (``cmd/cp/cp.go: copyToPod``)
            raise CopyError(f"{each} doesn't exist in local filesystem", member=each)
        paths += found
    return paths


def walk(path: str, name: str) -> Iterator[Item]:
    """Yield a file or a directory with all that is in it, the contents before ``left``.

    Args:
        path: here; if it is a symbolic link, it is followed, and those below it are sent as links.
        name: there.

    Raises:
        CopyError: something cannot be read.
    """
    try:
        yield from _walk(path, name, os.stat(path))
    except OSError as exc:
        if isinstance(exc, CopyError):
            raise
        raise CopyError(
            f"{exc.filename or path} cannot be read: {exc.strerror}", member=path
        ) from exc


def _walk(path: str, name: str, info: os.stat_result) -> Iterator[Item]:
    about = (info.st_mode & _MODES, int(info.st_mtime // 1))
    if stat.S_ISDIR(info.st_mode):
        yield Item("directory", name, path, 0, *about)
        with os.scandir(path) as found:
            names = sorted(entry.name for entry in found)
        for each in names:
            inside = os.path.join(path, each)
            yield from _walk(inside, f"{name}/{each}", os.lstat(inside))
        yield Item("left", name, path, 0, *about)
    elif stat.S_ISREG(info.st_mode):
        yield Item("file", name, path, info.st_size, *about)
    elif stat.S_ISLNK(info.st_mode):
        yield Item("symlink", name, path, 0, *about, os.readlink(path))
    else:
        yield Item("other", name, path)


def contents(item: Item) -> Iterator[bytes]:
    """Yield the bytes of a file, as many as were announced.

    Raises:
        CopyError: there are fewer by now.
    """
    with open(item.path, "rb", buffering=0) as file:
        left = item.size
        while left:
            data = file.read(min(left, _PIECE))
            if not data:
                raise CopyError(
                    f"{item.path} has become shorter while it was read", member=item.path
                )
            left -= len(data)
            yield data


def archive_size(items: Iterable[Item], mark: str, twice: bool) -> int:
    """Return how many bytes ``as_archive`` will yield."""
    size = 0
    for item in items:
        size += len(_header(item, twice)) + item.size + -item.size % tarfile.BLOCKSIZE
    return size + len(_header(_marked(mark), twice)) + len(_END)


def as_archive(items: Iterable[Item], mark: str, twice: bool) -> Iterator[bytes]:
    """Yield a tar archive in GNU's format, which names of any bytes fit into.

    Args:
        items: what is to be in it; no owner is told.
        mark: the name of an empty last member.
        twice: whether directories come again behind their contents. Busybox sets mode and time of one at
            once, so that a read-only one could not be filled, and the time would not stay.
    """
    for item in items:
        yield _header(item, twice)
        if item.kind == "file":
            yield from contents(item)
            yield bytes(-item.size % tarfile.BLOCKSIZE)
    yield _header(_marked(mark), twice)
    yield _END


def _marked(mark: str) -> Item:
    return Item("file", mark, "")


_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "left": tarfile.DIRTYPE,
}


def _header(item: Item, twice: bool) -> bytes:
    if item.kind not in _TYPES or (item.kind == "left" and not twice):
        return b""
    info = tarfile.TarInfo(item.name)
    info.type, info.size, info.mode = _TYPES[item.kind], item.size, item.mode
    if twice and item.kind == "directory":
        info.mode |= stat.S_IRWXU
    info.mtime, info.linkname = item.mtime, item.target
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def lines_size(items: Iterable[Item]) -> int:
    """Return how many bytes ``as_lines`` will yield."""
    return sum(len(_line(item)) + item.size for item in items) + len(_LAST)


def as_lines(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield a line for each item, with the contents of files behind theirs."""
    for item in items:
        yield _line(item)
        if item.kind == "file":
            yield from contents(item)
    yield _LAST


_LETTERS = {"file": "f", "directory": "d", "symlink": "l", "left": "D"}
_LAST = b"e 0 0 0 e e\n"


def _line(item: Item) -> bytes:
    if item.kind not in _LETTERS:
        return b""
    words = (
        _LETTERS[item.kind],
        f"{item.mode:o}",
        str(item.mtime),
        str(item.size),
        quoted(item.name),
        quoted(item.target) or "-",
    )
    return " ".join(words).encode("ascii") + b"\n"


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces that are worth a message."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)
