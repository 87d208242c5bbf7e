"""Place: a directory here, in which names are used without following links."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import Any, Optional, Union

_BY_DESCRIPTOR = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd
#: Flags of ``os.open`` for what must be no symbolic link.
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: What of a mode is restored: never setuid, setgid or sticky.
MODES = 0o777


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
                self.fd = os.open(path, flags | NO_LINK, dir_fd=parent.fd)
        elif not stat.S_ISDIR(os.lstat(self.path).st_mode) and parent is not None:
            raise NotADirectoryError(20, os.strerror(20), self.path)
        #: The argument of ``os`` that goes with ``at``.
        self.here: dict[str, Any] = {} if self.fd is None else {"dir_fd": self.fd}

    def at(self, name: str) -> str:
        """Return what a call of ``os`` takes for a name in here, together with ``here``."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def rename(self, old: str, new: str) -> None:
        """Rename what is in here; what has the new name is replaced."""
        both = {} if self.fd is None else {"src_dir_fd": self.fd, "dst_dir_fd": self.fd}
        os.replace(self.at(old), self.at(new), **both)

    def unlink(self, name: str) -> None:
        """Remove a name, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.at(name), **self.here)

    def names(self) -> list[str]:
        """Return all names in here."""
        return os.listdir(self.path if self.fd is None else self.fd)

    def lstat(self, name: str) -> Optional[os.stat_result]:
        """Return what is known of a name, None if there is none; a link is not followed."""
        try:
            return os.stat(self.at(name), follow_symlinks=False, **self.here)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Let go of the descriptor; again is nothing."""
        descriptor, self.fd, self.here = self.fd, None, {}
        if descriptor is not None:
            os.close(descriptor)


def restore(
    descriptor: Optional[int],
    place: Place,
    name: str,
    mode: Optional[int],
    mtime: Optional[float],
) -> None:
    """Give something in a place a mode and a time, by its descriptor where there is one."""

    if mode is not None:
        os.chmod(_which(os.chmod, descriptor, place, name), mode & MODES)
    if mtime is not None:
        with contextlib.suppress(OverflowError, ValueError):  # no time that this system knows
            os.utime(_which(os.utime, descriptor, place, name), (mtime, mtime))


def _which(
    call: Callable[..., None], descriptor: Optional[int], place: Place, name: str
) -> Union[int, str]:
    if descriptor is None or call not in os.supports_fd:
        return os.path.join(place.path, name)
    return descriptor
