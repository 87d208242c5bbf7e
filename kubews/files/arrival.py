"""What comes from a pod, judged entry by entry before anything is written.

Who runs the pod may be hostile, and its ``tar`` too: see ``tests/test_archives.py`` for what it may try.
What no honest ``tar`` sends is refused with ``UnsafeArchive``; what an honest one may send and is not made
here (devices, FIFOs, links that lead out of the copy) is left out and told as a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Optional

from kubews.errors import TruncatedTransfer, UnsafeArchive
from kubews.files.landing import Landing, Name

#: Bytes that are taken and written at a time.
PIECE = 64 << 10

# More are not kept: a pod could say something about each of a million files.
_WARNINGS = 1000

# Parts of a name. What is nested deeper than Python calls itself, ``shutil.rmtree`` cannot remove.
_DEEPEST = 500


class Entry(NamedTuple):
    """One entry of an archive, or of the listing that a shell sends.

    Threads: a value.
    """

    kind: Literal["file", "directory", "symlink", "link", "other"]
    name: str
    size: int = 0
    mode: Optional[int] = None
    mtime: Optional[float] = None
    target: str = ""
    what: str = ""
    #: Reads at most so many bytes of a file's contents, ``b""`` at the end.
    read: Callable[[int], bytes] = lambda size: b""


class Limits(NamedTuple):
    """How much a copy may bring.

    Threads: a value.
    """

    files: int = 1_000_000
    bytes: int = 1 << 40


_LIMITS = Limits()


class Arrival:
    """Take entries, check them, and write them below a landing.

    Args:
        landing: where.
        prefix: what every name begins with; what stands there is not what was asked for otherwise.
        replaced_by: what it is here.
        limits: how much may come.
        symlinks: whether those are made that stay within the copy.
        progress: called with the bytes of contents so far.

    Threads: one.
    """

    def __init__(
        self,
        landing: Landing,
        *,
        prefix: Name = (),
        replaced_by: Name = (),
        limits: Limits = _LIMITS,
        symlinks: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._landing, self._limits, self._symlinks = landing, limits, symlinks
        self._prefix, self._replaced_by = prefix, replaced_by
        self._progress = progress
        self._promised = self._entries = 0
        #: What has come: files, and bytes of their contents.
        self.files = self.size = 0
        self.warnings: list[str] = []

    def take(self, entries: Iterable[Entry]) -> None:
        """Write all entries; what is whole before an exception stays.

        Raises:
            UnsafeArchive: something is refused; nothing of that entry was written.
            TruncatedTransfer: the end is missing.
            CopyError: something cannot be written here.

        Threads: blocks.
        """
        for entry in entries:
            self._count(entry)
            name = self._name(entry.name, entry.name)
            if not name and entry.kind in ("file", "link"):
                raise UnsafeArchive(
                    f"{entry.name!r} is a {entry.kind} in place of the whole", member=entry.name
                )
            if entry.kind == "file":
                self._take_file(entry, name)
            elif entry.kind == "directory":
                if name:
                    self._landing.directory(name, entry.mode, entry.mtime)
            elif entry.kind == "link":
                self._take_link(entry, name)
            elif entry.kind == "symlink":
                self._take_symlink(entry, name)
            else:
                self.warn(f"{entry.name}: left out, because it is {entry.what}")
        self._landing.finish()

    def warn(self, line: str) -> None:
        """Keep a warning, unless there are too many."""
        if len(self.warnings) < _WARNINGS:
            self.warnings.append(line)

    def _count(self, entry: Entry) -> None:
        self._entries += 1
        if self._entries > self._limits.files:
            raise UnsafeArchive(
                f"more than {self._limits.files:,} files come from the pod: max_files= allows more",
                member=entry.name,
            )
        if entry.size < 0:
            raise UnsafeArchive(f"{entry.name!r} says that its size is negative", member=entry.name)
        self._promised += entry.size
        if self._promised > self._limits.bytes:
            raise UnsafeArchive(
                f"with {entry.name!r} more than {self._limits.bytes:,} bytes come from the pod: "
                "max_bytes= allows more",
                member=entry.name,
            )

    def _name(self, text: str, member: str) -> Name:
        """Return where a name of the archive is to be.

        Raises:
            UnsafeArchive: it is absolute, leads upwards, or is not below what was asked for.
        """
        parts = tuple(part for part in text.split("/") if part and part != ".")
        if text.startswith("/") or ".." in parts or not text:
            raise UnsafeArchive(f"the name {text!r} leads out of the destination", member=member)
        if len(parts) > _DEEPEST:
            raise UnsafeArchive(
                f"a name has more than {_DEEPEST} parts: {text[:80]!r}…", member=member
            )
        if "\0" in text or (os.sep != "/" and (os.sep in text or ":" in text)):
            raise UnsafeArchive(f"the name {text!r} cannot be a name here", member=member)
        if parts[: len(self._prefix)] != self._prefix:
            asked = "/".join(self._prefix)
            raise UnsafeArchive(f"{text!r} is not below {asked!r}, as was asked", member=member)
        return self._replaced_by + parts[len(self._prefix) :]

    def _take_file(self, entry: Entry, name: Name) -> None:
        with (
            self._landing.about(name),
            self._landing.file(name, entry.mode, entry.mtime) as arriving,
        ):
            left = entry.size
            while left:
                data = entry.read(min(left, PIECE))
                if not data:
                    raise TruncatedTransfer(
                        f"{entry.name!r} ended after {arriving.size:,} of {entry.size:,} bytes",
                        member=entry.name,
                        received=self.size,
                    )
                arriving.write(data)
                left -= len(data)
                self.size += len(data)
                self._progress(self.size)
            self._landing.settle(arriving)
        self.files += 1

    def _take_link(self, entry: Entry, name: Name) -> None:
        target = self._name(entry.target, entry.name)
        text = self._landing.link_at(target)
        if text is not None:  # a symbolic link may have several names, too
            self._take_symlink(entry._replace(target=text), name)
        elif self._landing.hard_link(name, target):
            self.files += 1
        else:
            self.warn(f"{entry.name}: left out, because {entry.target} is no file of this copy")

    def _take_symlink(self, entry: Entry, name: Name) -> None:
        if not self._symlinks:
            self.warn(f"{entry.name}: left out, because it is a symbolic link (symlinks=True)")
        elif not stays_below(entry.target, len(name) - len(self._replaced_by) - 1):
            self.warn(f"{entry.name}: left out, because it is a link out of the copy")
        else:
            self._landing.symlink(name, entry.target)


def stays_below(target: str, depth: int) -> bool:
    """Tell whether a symbolic link surely leads to somewhere within the copy.

    Dots may stand at its beginning only: behind a name, which may be a link itself, they lead from where that
    leads to, which may be higher up than it looks.

    Args:
        target: the text of the link.
        depth: how many directories of the copy it is in.
    """
    if (
        not target
        or target.startswith("/")
        or "\0" in target
        or (os.sep != "/" and (os.sep in target or ":" in target))
    ):
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    return ups <= depth and ".." not in parts[ups:]
