"""Where a copy lands: files, directories and links below one directory here, and nothing outside of it.

Every path is walked from a descriptor of that directory, a name at a time and without following a link, so
that neither what an archive has brought nor what somebody else puts there meanwhile leads elsewhere. A file is
written under a temporary name and renamed when it is whole. No owner is ever changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from kubews.errors import CopyError, KubewsError, UnsafeArchive
from kubews.files.newfile import Arriving
from kubews.files.parts import TEMPORARY, Part, new_name
from kubews.files.places import MODES, Place, restore

if TYPE_CHECKING:
    from typing_extensions import Self

#: The parts of a path below the destination; none of them is empty, ``.`` or ``..``.
Name = tuple[str, ...]

# What a file takes the place of; or fails to, because it is a directory.
_REPLACED = {stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR}


class Landing:
    """A directory here, below which a copy is written.

    Args:
        root: the directory, which exists.
        preserve: whether modes and times are those of the source.
        called: the path that a new directory will have, if all that is written goes below one, which has a
            temporary name itself.

    Threads: one. Close it, or use it in a ``with`` block.
    """

    def __init__(self, root: str, *, preserve: bool = True, called: str = "") -> None:
        self._preserve, self._called = preserve, called
        try:
            self._root = Place(root)
        except OSError as exc:
            raise CopyError(
                f"{root!r} cannot be used: {exc.strerror}", member=root, errno=exc.errno
            ) from exc
        self._current: tuple[Name, Place] = ((), self._root)
        # Directories on the way to this one.
        self._unfinished: list[tuple[Name, Optional[int], Optional[float]]] = []
        self._links: dict[Name, str] = {}
        self._arrived: set[int] = set()  # inodes, for hard links

    def about(self, name: Name) -> _About:
        """Say of an error of the system which path it is about, in a ``with`` block."""
        return _About(self, name)

    def path(self, name: Name) -> str:
        """Return the path here, for messages: what has a temporary name has its final one in it."""
        if name and name[0].startswith(TEMPORARY):
            return os.path.join(self._called, *name[1:])
        return os.path.join(self._root.path, *name)

    def directory(self, name: Name, mode: Optional[int], mtime: Optional[float]) -> None:
        """Have a directory. It gets its time at its end, and a new one its mode."""
        self._leave(name)
        self._links.pop(name, None)
        if not self._preserve:
            mode = mtime = None
        with self.about(name):
            place = self._enter(name[:-1])
            try:
                os.mkdir(place.at(name[-1]), 0o777 if mode is None else 0o700, **place.here)
            except FileExistsError:
                self._enter(name)  # which says what is wrong with it
                mode = None
        self._unfinished.append((name, mode, mtime))

    def file(
        self,
        name: Name,
        mode: Optional[int],
        mtime: Optional[float],
        part: Optional[Part] = None,
    ) -> Arriving:
        """Return a file to write, in a ``with`` block within ``about``; it has its name once ``settle`` was called."""
        self._leave(name)
        self._links.pop(name, None)
        if not self._preserve:
            mode = mtime = None
        place = self._enter(name[:-1])
        self._check_replaced(place, name)
        return Arriving(place, name[-1], mode, mtime, fresh=bool(self._called), part=part)

    def settle(self, arriving: Arriving) -> None:
        """Give a file that is whole its mode, time and name."""
        inode = None if self._called else arriving.inode()  # else all that is there has arrived
        arriving.finish()
        if inode is not None:
            self._arrived.add(inode)

    def hard_link(self, name: Name, target: Name) -> bool:
        """Make a second name of a file that this copy has brought; return False if there is no file.

        Raises:
            UnsafeArchive: the target is a file that was here before.
        """
        self._leave(name)
        self._links.pop(name, None)
        with self.about(name):
            source = self._walk(target[:-1])
            try:
                info = source.lstat(target[-1]) if target else None
                if info is None or not stat.S_ISREG(info.st_mode):
                    return False
                if not self._called and info.st_ino not in self._arrived:
                    path, other = _told(name), _told(target)
                    raise UnsafeArchive(
                        f"{path!r} would be a hard link to {other!r}, which is no file of this copy",
                        member=path,
                    )
                if target != name:
                    place = self._enter(name[:-1])
                    self._check_replaced(place, name)
                    _link(source, target[-1], place, name[-1])
            finally:
                if source is not self._root:
                    source.close()
        return True

    def link_at(self, name: Name) -> Optional[str]:
        """Return the text of a symbolic link that will be made, None if there will be none."""
        return self._links.get(name)

    def symlink(self, name: Name, target: str) -> None:
        """Make a symbolic link, at the very end: nothing is ever written through it."""
        self._links[name] = target

    def finish(self) -> None:
        """Make the links, and give the directories that are still open their modes and times."""
        for name, target in self._links.items():
            with self.about(name):
                place, temporary = self._enter(name[:-1]), new_name()
                self._check_replaced(place, name)
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

    def _check_replaced(self, place: Place, name: Name) -> None:
        """Refuse what would take the place of a device, a FIFO or a socket."""
        info = None if self._called else place.lstat(name[-1])
        if info and stat.S_IFMT(info.st_mode) not in _REPLACED:
            raise CopyError(f"{_told(name)!r} here is no file, and stays", member=_told(name))

    def _leave(self, name: Name) -> None:
        """Finish the directories that ``name`` is not below: archives have the contents behind them."""
        while self._unfinished:
            done, mode, mtime = self._unfinished[-1]
            if done == name[: len(done)]:
                return
            self._unfinished.pop()
            if done not in self._links:
                with self.about(done):
                    place = self._enter(done)
                    restore(place.fd, place, ".", mode, mtime)

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
    temporary = new_name()
    both = {} if source.fd is None else {"src_dir_fd": source.fd, "dst_dir_fd": place.fd}
    try:
        os.link(source.at(old), place.at(temporary), follow_symlinks=False, **both)
        # To rename one name of a file to another of the same does nothing, so the temporary one may be left.
        place.rename(temporary, new)
    finally:
        place.unlink(temporary)


@contextlib.contextmanager
def _as_before(place: Place) -> Iterator[None]:
    """Add to a directory that has its mode and its time already."""
    if place.fd is None:
        yield
        return
    info = os.fstat(place.fd)
    if not info.st_mode & stat.S_IWUSR:
        os.chmod(place.fd, info.st_mode & MODES | stat.S_IRWXU)
    try:
        yield
    finally:
        os.utime(place.fd, ns=(info.st_atime_ns, info.st_mtime_ns))
        if not info.st_mode & stat.S_IWUSR:
            os.chmod(place.fd, stat.S_IMODE(info.st_mode))


class _About:
    # A class, because it is entered for each of many small files.
    def __init__(self, landing: Landing, name: Name) -> None:
        self._landing, self._name = landing, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: Optional[BaseException], trace: object) -> None:
        # A lost connection, too, is an OSError.
        if isinstance(exc, OSError) and not isinstance(exc, KubewsError):
            raise CopyError(
                f"{self._landing.path(self._name)!r} cannot be written here: {exc.strerror or exc}",
                member=_told(self._name),
                errno=exc.errno,
            ) from exc


def _told(name: Name) -> str:
    # The name that a new directory has for now says nothing to anybody.
    return "/".join(name[1:] if name[0].startswith(TEMPORARY) else name) or "."
