"""A file that is being written here, under a temporary name."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional, Union

from kubews.files import parts
from kubews.files.places import NO_LINK, Place, restore

if TYPE_CHECKING:
    from typing_extensions import Self

    from kubews.files.parts import Part

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK
_PIECE = 256 << 10
_BLOCK = 32 << 10  # zeros at a multiple of it become a hole


class Arriving:
    """A file that is being written under a temporary name; leaving the block without ``finish`` removes it.

    Args:
        place: the directory.
        name: its final name there.
        mode: the lower nine bits count; None for what new files get here.
        mtime: seconds; None for now.
        fresh: whether nobody looks at the directory yet, so that a name that is free can be taken at once.
        part: go on with what an earlier call has left, and leave such a thing for the next one.

    Threads: one.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        mode: Optional[int],
        mtime: Optional[float],
        *,
        fresh: bool = False,
        part: Optional[Part] = None,
    ) -> None:
        self._place, self._name, self._part = place, name, part
        self._mode, self._mtime = mode, mtime
        #: What is to be removed if this fails; the final name itself only if it was free.
        self._temporary: Optional[str] = None
        self._hole = False  # at the end
        first = 0o666 if mode is None else 0o600
        left = self._left_over(part) if part else None
        self._file = left or self._create(first, fresh)
        #: Bytes so far.
        self.size = left.seek(0, os.SEEK_END) if left else 0

    def _create(self, mode: int, fresh: bool) -> io.FileIO:
        name = self._name if fresh else self._new_name()
        try:
            descriptor = os.open(self._place.at(name), _NEW, mode, **self._place.here)
        except FileExistsError:  # of a fresh directory: an archive may name a file twice
            name = self._new_name()
            descriptor = os.open(self._place.at(name), _NEW, mode, **self._place.here)
        self._temporary = name
        if self._part:
            _lock(descriptor)
        return io.FileIO(descriptor, "r+")

    def _new_name(self) -> str:
        return self._part.new_name() if self._part else parts.new_name()

    def _left_over(self, part: Part) -> Optional[io.FileIO]:
        """Return what there is of this version of the source; what there is of others is removed."""
        chosen = None
        with contextlib.ExitStack() as undo:
            for name in self._place.names():
                file = _alone(self._place, name) if name.startswith(part.target) else None
                if file is None:
                    continue
                if chosen is None and name.startswith(part.version):
                    self._temporary, chosen = name, undo.enter_context(file)
                else:
                    file.close()
                    self._place.unlink(name)
            undo.pop_all()
        return chosen

    def so_far(self) -> Iterator[bytes]:
        """Yield what was there already; all of it must be taken."""
        self._file.seek(0)
        while data := self._file.read(_PIECE):
            yield data

    def write(self, data: Union[bytes, bytearray]) -> None:
        """Append; blocks of zeros become holes."""
        view, begun, end = memoryview(data), 0, 0
        while end < len(data):
            start, end = end, min(len(data), end + _BLOCK - self.size % _BLOCK)
            self.size += end - start
            self._hole = (
                not data[start] and not data[end - 1] and data.count(0, start, end) == end - start
            )
            if self._hole:
                self._write(view[begun:start])
                self._file.seek(end - start, os.SEEK_CUR)
                begun = end
        self._write(view[begun:])

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._file.write(view) :]

    def restart(self) -> None:
        """Forget all that was written."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self._hole = 0, False

    def inode(self) -> int:
        """Return its number, which a second name of it has, too."""
        return os.fstat(self._file.fileno()).st_ino

    def finish(self) -> None:
        """Give the file its mode, its time and its name.

        Raises:
            OSError: a directory has the name, or the disk is full.
        """
        assert self._temporary is not None
        if self._hole:
            self._file.truncate(self.size)
        restore(self._file.fileno(), self._place, self._temporary, self._mode, self._mtime)
        self._file.close()  # before: it may tell of a full disk
        if self._temporary != self._name:
            self._place.rename(self._temporary, self._name)
        self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: Optional[BaseException], trace: object) -> None:
        kept = self._part is not None and exc is not None and parts.worth_keeping(exc)
        try:
            if kept and self._hole:
                self._file.truncate()  # here: size may count what Ctrl-C kept from being written
            self._file.close()
        finally:
            if self._temporary is not None and not (kept and self.size):
                self._place.unlink(self._temporary)


def _alone(place: Place, name: str) -> Optional[io.FileIO]:
    """Open what an earlier call has left, if it has; None if it is somebody else's, or is being written."""
    try:
        descriptor = os.open(place.at(name), os.O_RDWR | NO_LINK, **place.here)
    except OSError:
        return None
    info = os.fstat(descriptor)
    ours = not hasattr(os, "geteuid") or info.st_uid == os.geteuid()
    if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and ours and _lock(descriptor):
        return io.FileIO(descriptor, "r+")
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    """Keep others from going on with the same part, where the platform can; return whether nobody else does."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
