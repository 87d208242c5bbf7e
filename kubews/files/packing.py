"""Files here as a stream for a pod: a tar archive, or the lines that a shell without tar understands."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Optional

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError, NoSuchFile
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
        NoSuchFile: there is nothing of that name.
    """
    several = isinstance(local, Sequence) and not isinstance(local, (str, bytes))
    named: Sequence[StrOrBytesPath] = local if several else [local]  # type: ignore[assignment,list-item]
    paths: list[str] = []
    for each in map(os.fsdecode, named):
        found = [each] if os.path.lexists(each) else sorted(glob.glob(each))
        if not found:
            # kubectl's words (``cmd/cp/cp.go: copyToPod``)
            raise NoSuchFile(f"{each} doesn't exist in local filesystem", member=each)
        paths += found
    return paths


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Say of an error of the system what it is about."""
    try:
        yield
    except OSError as exc:
        raise CopyError(
            f"{path} cannot be read: {exc.strerror}", member=path, errno=exc.errno
        ) from exc


def opened(path: str) -> io.FileIO:
    """Return a file to read.

    Raises:
        CopyError: it cannot be read.
    """
    with reading(path):
        return open(path, "rb", buffering=0)


def walk(path: str, name: str) -> Iterator[Item]:
    """Yield a file or a directory with all that is in it, the contents before ``left``.

    Args:
        path: here; if it is a symbolic link, it is followed, and those below it are sent as links.
        name: there.

    Raises:
        CopyError: something cannot be read.
    """
    open_ones: list[tuple[Item, Iterator[str]]] = []  # a tree may be deeper than calls may be
    with reading(path):
        item = _item(path, name, os.stat(path))
    while True:
        yield item
        if item.kind == "directory":
            with reading(item.path):
                open_ones.append((item, iter(sorted(os.listdir(item.path)))))
        inside = None
        while open_ones and inside is None:
            folder, names = open_ones[-1]
            inside = next(names, None)
            if inside is None:
                open_ones.pop()
                yield folder._replace(kind="left")
        if inside is None:
            return
        path = os.path.join(folder.path, inside)
        with reading(path):
            item = _item(path, posixpath.join(folder.name, inside), os.lstat(path))


def _item(path: str, name: str, info: os.stat_result) -> Item:
    about = (info.st_mode & _MODES, int(info.st_mtime // 1))
    if stat.S_ISDIR(info.st_mode):
        return Item("directory", name, path, 0, *about)
    if stat.S_ISREG(info.st_mode):
        return Item("file", name, path, info.st_size, *about)
    if stat.S_ISLNK(info.st_mode):
        return Item("symlink", name, path, 0, *about, os.readlink(path))
    return Item("other", name, path)


def contents(
    path: str,
    size: int,
    changed: list[str],
    offset: int = 0,
    before: Optional[os.stat_result] = None,
) -> Iterator[bytes]:
    """Yield the bytes of a file from an offset on, as many as were announced.

    Args:
        path: of the file.
        size: of the whole, as announced.
        changed: gets a message if somebody has written to it meanwhile.
        offset: where to begin.
        before: what was known about it before, if that is more than ``size``.

    Raises:
        CopyError: there are fewer by now, or it is another one.
    """
    with opened(path) as file:
        first = _written(before or os.fstat(file.fileno()))
        if offset and _written(os.fstat(file.fileno())) != first:
            raise CopyError(f"{path} has changed while it was read", member=path)
        file.seek(offset)
        left = size - offset
        while left:
            with reading(path):
                data = file.read(min(left, _PIECE))
            if not data:
                raise CopyError(f"{path} has become shorter while it was read", member=path)
            left -= len(data)
            yield data
        if _written(os.fstat(file.fileno())) != first:
            changed.append(f"{path}: was written to while it was read")


def _written(info: os.stat_result) -> tuple[int, int]:
    """Return what changes when somebody writes to a file."""
    return info.st_size, info.st_mtime_ns


def archive_size(items: Iterable[Item], mark: str, twice: bool) -> int:
    """Return how many bytes ``as_archive`` will yield."""
    size = 0
    for item in items:
        size += len(_header(item, twice)) + item.size + -item.size % tarfile.BLOCKSIZE
    return size + len(_header(_marked(mark), twice)) + len(_END)


def as_archive(
    items: Iterable[Item], mark: str, twice: bool, changed: list[str]
) -> Iterator[bytes]:
    """Yield a tar archive in GNU's format, which names of any bytes fit into.

    Args:
        items: what is to be in it; no owner is told.
        mark: the name of an empty last member.
        twice: whether directories come again behind their contents. Busybox sets mode and time of one at
            once, so that a read-only one could not be filled, and the time would not stay.
        changed: gets a message about each file that somebody has written to meanwhile.
    """
    for item in items:
        yield _header(item, twice)
        if item.kind == "file":
            yield from contents(item.path, item.size, changed)
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


def as_lines(items: Iterable[Item], changed: list[str]) -> Iterator[bytes]:
    """Yield a line for each item, with the contents of files behind theirs; see ``as_archive``."""
    for item in items:
        yield _line(item)
        if item.kind == "file":
            yield from contents(item.path, item.size, changed)
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


def exactly(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield pieces that are so many bytes together.

    Raises:
        CopyError: they are not.
    """
    for piece in pieces:
        size -= len(piece)
        if size < 0:
            break
        yield piece
    if size:
        raise CopyError("a file or a directory has changed while it was read")
