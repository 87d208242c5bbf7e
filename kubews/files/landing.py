"""Where a copy lands: files, directories and links below one directory here, and nothing outside of it.

Every path is walked from a descriptor of that directory, a name at a time and without following a link, so
that neither what an archive has brought nor what somebody else puts there meanwhile leads elsewhere. A file is
written under a temporary name and renamed when it is whole. No owner is ever changed.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.errors import CopyError, KubewsError, UnsafeArchive

if TYPE_CHECKING:
    from typing_extensions import Self

#: The parts of a path below the destination; none of them is empty, ``.`` or ``..``.
Name = tuple[str, ...]

#: What names begin with that a copy has not finished.
TEMPORARY = ".kubews-"

_BY_DESCRIPTOR = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
_MODES = 0o777  # what of a mode is restored: never setuid, setgid or sticky


class Place:
    """A directory, by its descriptor where the platform has such calls, else by its path.

    Args:
        path: of the directory, or its name in ``parent``.
        parent: the directory that it is in; then it must be no symbolic link.

    Threads: one.
    """

    def __init__(self, path: str, parent: Optional[Place] = None) -> None:
        self.path: str = path if parent is None else os.path.join(parent.path, path)
        self.fd: Optional[int] = None
        if _BY_DESCRIPTOR:
            flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
            if parent is None:
                self.fd = os.open(path, flags)
            else:
                self.fd = os.open(path, flags | _NO_LINK, dir_fd=parent.fd)
        elif not stat.S_ISDIR(os.lstat(self.path).st_mode) and parent is not None:
            raise NotADirectoryError(20, os.strerror(20), self.path)

    def at(self, name: str) -> str:
        """Return what a call of ``os`` takes for a name in here, together with ``here``."""
        return name if self.fd is not None else os.path.join(self.path, name)

    @property
    def here(self) -> dict[str, Any]:
        """The argument of ``os`` that goes with ``at``."""
        return {} if self.fd is None else {"dir_fd": self.fd}

    def rename(self, old: str, new: str) -> None:
        """Rename what is in here; what has the new name is replaced."""
        both = {} if self.fd is None else {"src_dir_fd": self.fd, "dst_dir_fd": self.fd}
        os.replace(self.at(old), self.at(new), **both)

    def unlink(self, name: str) -> None:
        """Remove a name, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(name), **self.here)

    def lstat(self, name: str) -> Optional[os.stat_result]:
        """Return what is known of a name, None if there is none; a link is not followed."""
        try:
            return os.stat(self.at(name), follow_symlinks=False, **self.here)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let go of the descriptor; again is nothing."""
        descriptor, self.fd = self.fd, None
        if descriptor is not None:
            os.close(descriptor)


class Arriving:
    """A file that is being written under a temporary name; leaving the block without ``finish`` removes it.

    Args:
        place: the directory.
        name: its final name there.
        mode: the lower nine bits count; None for what new files get here.
        mtime: seconds; None for now.
        fresh: whether nobody looks at the directory yet, so that a name that is free can be taken at once.

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
    ) -> None:
        self._place, self._name = place, name
        self._mode, self._mtime = mode, mtime
        #: What is to be removed if this fails; the final name itself only if it was free.
        self._temporary: Optional[str] = None
        self._hole = False  # at the end
        first = 0o666 if mode is None else 0o600
        self._file = self._create(first, fresh)
        #: Bytes so far.
        self.size = 0

    def _create(self, mode: int, fresh: bool) -> io.FileIO:
        for name in (self._name,) * fresh + (TEMPORARY + secrets.token_hex(8),):
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(self._place.at(name), _NEW, mode, **self._place.here)
                self._temporary = name
                return io.FileIO(descriptor, "w")
        raise FileExistsError(17, os.strerror(17), self._name)

    def write(self, data: bytes) -> None:
        """Append; a whole piece of zeros becomes a hole."""
        self.size += len(data)
        if data and not data[0] and not data[-1] and data.count(0) == len(data):
            self._file.seek(len(data), os.SEEK_CUR)
            self._hole = True
            return
        self._hole = False
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def restart(self) -> None:
        """Forget all that was written."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self._hole = 0, False

    def finish(self) -> int:
        """Give the file its mode, its time and its name; return its inode.

        Raises:
            OSError: a directory has the name, or the disk is full.
        """
        assert self._temporary is not None
        if self._hole:
            self._file.truncate(self.size)
        _restore(self._file.fileno(), self._place, self._temporary, self._mode, self._mtime)
        inode = os.fstat(self._file.fileno()).st_ino
        self._file.close()  # before: it may tell of a full disk
        if self._temporary != self._name:
            self._place.rename(self._temporary, self._name)
        self._temporary = None
        return inode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._file.close()
        finally:
            if self._temporary is not None:
                self._place.unlink(self._temporary)


class Landing:
    """A directory here, below which a copy is written.

    Args:
        root: the directory, which exists.
        preserve: whether modes and times are those of the source.
        fresh: whether all that is written goes below a new directory that has a temporary name itself.

    Threads: one. Close it, or use it in a ``with`` block.
    """

    def __init__(self, root: str, *, preserve: bool = True, fresh: bool = False) -> None:
        self._preserve, self._fresh = preserve, fresh
        self._root = Place(root)
        self._current: tuple[Name, Place] = ((), self._root)
        # Directories on the way to this one.
        self._unfinished: list[tuple[Name, Optional[int], Optional[float]]] = []
        self._links: dict[Name, str] = {}
        self._arrived: set[int] = set()  # inodes, for hard links

    def directory(self, name: Name, mode: Optional[int], mtime: Optional[float]) -> None:
        """Have a directory. It gets its time at its end, and a new one its mode."""
        self._leave(name)
        self._links.pop(name, None)
        if not self._preserve:
            mode = mtime = None
        with _about(name):
            place = self._enter(name[:-1])
            try:
                os.mkdir(place.at(name[-1]), 0o777 if mode is None else 0o700, **place.here)
            except FileExistsError:
                self._enter(name)  # which says what is wrong with it
                mode = None
        self._unfinished.append((name, mode, mtime))

    @contextlib.contextmanager
    def file(self, name: Name, mode: Optional[int], mtime: Optional[float]) -> Iterator[Arriving]:
        """Write a file, in a ``with`` block; it has its name once ``settle`` was called."""
        self._leave(name)
        self._links.pop(name, None)
        if not self._preserve:
            mode = mtime = None
        with _about(name):
            place = self._enter(name[:-1])
            with Arriving(place, name[-1], mode, mtime, fresh=self._fresh) as arriving:
                yield arriving

    def settle(self, arriving: Arriving) -> None:
        """Give a file that is whole its mode, time and name."""
        inode = arriving.finish()
        if not self._fresh:  # else all that is there has arrived
            self._arrived.add(inode)

    def hard_link(self, name: Name, target: Name) -> None:
        """Make a second name of a file that this copy has brought.

        Raises:
            UnsafeArchive: the target is anything else.
        """
        self._leave(name)
        self._links.pop(name, None)
        with _about(name):
            source = self._walk(target[:-1])
            try:
                info = source.lstat(target[-1]) if target else None
                if info is None or not self._has_arrived(info):
                    path, other = "/".join(name), "/".join(target)
                    raise UnsafeArchive(
                        f"{path!r} would be a hard link to {other!r}, which is no file of this copy",
                        member=path,
                    )
                if target != name:
                    _link(source, target[-1], self._enter(name[:-1]), name[-1])
            finally:
                if source is not self._root:
                    source.close()

    def _has_arrived(self, info: os.stat_result) -> bool:
        return stat.S_ISREG(info.st_mode) and (self._fresh or info.st_ino in self._arrived)

    def symlink(self, name: Name, target: str) -> None:
        """Make a symbolic link, at the very end: nothing is ever written through it."""
        self._links[name] = target

    def finish(self) -> None:
        """Make the links, and give the directories that are still open their modes and times."""
        for name, target in self._links.items():
            with _about(name):
                place, temporary = self._enter(name[:-1]), TEMPORARY + secrets.token_hex(8)
                with _as_before(place):
                    os.symlink(target, place.at(temporary), **place.here)
                    try:
                        place.rename(temporary, name[-1])
                    finally:
                        place.unlink(temporary)
        self._leave(())

    def close(self) -> None:
        """Let go of the descriptors; again is nothing."""
        self._current[1].close()
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _leave(self, name: Name) -> None:
        """Finish the directories that ``name`` is not below: archives have the contents behind them."""
        while self._unfinished:
            done, mode, mtime = self._unfinished[-1]
            if done == name[: len(done)]:
                return
            self._unfinished.pop()
            if done not in self._links:
                with _about(done):
                    place = self._enter(done)
                    _restore(place.fd, place, ".", mode, mtime)

    def _enter(self, name: Name) -> Place:
        """Return a directory below the root; the last one stays open. What is missing is made."""
        if self._current[0] == name:
            return self._current[1]
        place = self._walk(name)
        before, self._current = self._current[1], (name, place)
        if before is not self._root:
            before.close()
        return place

    def _walk(self, name: Name) -> Place:
        place = self._root
        for part in name:
            try:
                below = _step(place, part)
            finally:
                if place is not self._root:
                    place.close()
            place = below
        return place


def _step(place: Place, part: str) -> Place:
    try:
        return Place(part, place)
    except FileNotFoundError:
        os.mkdir(place.at(part), **place.here)
        return Place(part, place)
    except OSError:
        info = place.lstat(part)
        if info is not None and stat.S_ISLNK(info.st_mode):
            path = os.path.join(place.path, part)
            raise UnsafeArchive(
                f"{path!r} is a symbolic link, and nothing is written through one", member=path
            ) from None
        raise


def _link(source: Place, old: str, place: Place, new: str) -> None:
    temporary = TEMPORARY + secrets.token_hex(8)
    both = {} if source.fd is None else {"src_dir_fd": source.fd, "dst_dir_fd": place.fd}
    try:
        os.link(source.at(old), place.at(temporary), follow_symlinks=False, **both)
        # To rename one name of a file to another of the same does nothing, so the temporary one may be left.
        place.rename(temporary, new)
    finally:
        place.unlink(temporary)


def _restore(
    descriptor: Optional[int],
    place: Place,
    name: str,
    mode: Optional[int],
    mtime: Optional[float],
) -> None:
    path = os.path.join(place.path, name)

    def which(call: object) -> Union[int, str]:
        return path if descriptor is None or call not in os.supports_fd else descriptor

    if mode is not None:
        os.chmod(which(os.chmod), mode & _MODES)
    if mtime is not None:
        with contextlib.suppress(OverflowError, ValueError):  # no time that this system knows
            os.utime(which(os.utime), (mtime, mtime))


@contextlib.contextmanager
def _as_before(place: Place) -> Iterator[None]:
    """Add to a directory that has its mode and its time already."""
    if place.fd is None:
        yield
        return
    info = os.fstat(place.fd)
    if not info.st_mode & stat.S_IWUSR:
        os.chmod(place.fd, info.st_mode & _MODES | stat.S_IRWXU)
    try:
        yield
    finally:
        os.utime(place.fd, ns=(info.st_atime_ns, info.st_mtime_ns))
        if not info.st_mode & stat.S_IWUSR:
            os.chmod(place.fd, stat.S_IMODE(info.st_mode))


@contextlib.contextmanager
def _about(name: Name) -> Iterator[None]:
    """Say of an error of the system which member it is about."""
    try:
        yield
    except KubewsError:
        raise  # a lost connection, too, is an OSError
    except OSError as exc:
        # The name that a new directory has for now says nothing to anybody.
        path = "/".join(name[1:] if name[0].startswith(TEMPORARY) else name)
        raise CopyError(f"{path!r} cannot be written here: {exc}", member=path) from exc
