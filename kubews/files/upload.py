"""copy_to: files and directories from here to a pod.

Everything goes to a temporary name beside its final one, is verified there, and is renamed then: a stream that
was cut leaves nothing that looks like a file. ``tar`` in the pod unpacks trees, without it a shell does.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError
from kubews.files import packing
from kubews.files.copying import Attempts, Copied, Wishes
from kubews.files.parts import part_of
from kubews.files.progress import Meter, Progress
from kubews.files.remotefiles import (
    Found,
    base_of,
    check_reachable,
    is_directory_name,
    lacking,
    look,
    no_directory,
    no_place,
    path_of,
)
from kubews.files.sendfile import PIECE, Contents, FileSender
from kubews.files.sendtree import TreeSender

if TYPE_CHECKING:
    from kubews.targets import Target


class HasRead(Protocol):
    """A binary file object.

    Threads: the caller's.
    """

    def read(self, size: int, /) -> Any:
        """Return at most so many bytes, ``b""`` at the end."""


class Upload:
    """One copy to a pod, with what is known about it.

    Args:
        pod: the pod itself.
        path: in it, as ``path_of`` returns it.
        meter: who is told how far it is.
        wishes: what else is wanted.
        into: whether the path was written as that of a directory, with a slash behind it.

    Threads: one.
    """

    def __init__(self, pod: Target, path: str, meter: Meter, wishes: Wishes, into: bool) -> None:
        self._pod, self._path, self._meter, self._wishes = pod, path, meter, wishes
        self._into = into
        self._attempts = Attempts(pod, path, wishes.retries)

    def from_file(self, file: HasRead) -> Copied:
        """Copy what a file object gives to a path."""
        found = self._look()
        if found.kind == "directory":
            raise CopyError(
                f"{self._pod.where}: {self._path} is a directory: name the file that is to be in it",
                member=self._path,
            )
        return self._send_stream(file, found, self._target(found), found.mode, None)

    def from_paths(self, paths: Sequence[str]) -> Copied:
        """Copy files and directories; into the path, if that is a directory."""
        found = self._look()
        inside = found.kind == "directory"
        if len(paths) > 1 and not inside:
            raise CopyError(
                f"{self._pod.where}: {self._path} is no directory, and {len(paths)} are to be copied into it",
                member=self._path,
            )
        names = [_base(each) if inside else base_of(self._path) for each in paths]
        if len(paths) > 1:
            _check_names(zip(paths, names, strict=True))
        if len(paths) == 1 and not os.path.isdir(paths[0]):
            target = f"{self._path.rstrip('/')}/{names[0]}" if inside else self._target(found)
            return self._send_one(paths[0], found, target)
        if self._wishes.checksum:
            raise CopyError("checksum=True is for single files; a tree is verified as an archive")
        if not inside and found.kind != "missing":
            raise CopyError(f"{self._pod.where}: {self._path} is no directory", member=self._path)
        folder = self._path if inside else self._path.rpartition("/")[0] or "/"
        sender = TreeSender(self._pod, found, self._attempts, self._meter, self._wishes.preserve)
        sources = list(zip(paths, names, strict=True))
        return self._attempts.until_done(lambda: sender.send(sources, folder))

    def _target(self, found: Found) -> str:
        """Return the path that a file will have; a link that the user names is followed."""
        if self._into:
            raise no_directory(self._pod, self._path)
        if found.kind == "other":  # a device, say, which is not to be replaced
            raise CopyError(f"{self._pod.where}: {self._path} is no file", member=self._path)
        return found.real or self._path

    def _look(self) -> Found:
        found = self._attempts.answer(lambda: look(self._pod, self._path))
        if found is None:
            raise lacking(self._pod, "copying to it", "sh")
        check_reachable(self._pod, self._path, found)
        if found.parent != "directory":
            raise no_place(self._pod, self._path, found)
        needed = {"mv", "rm"} - found.programs
        if needed:
            raise lacking(self._pod, "copying to it", *sorted(needed))
        return found

    def _send_one(self, path: str, found: Found, target: str) -> Copied:
        with packing.reading(path):
            info = os.stat(path)
        regular = stat.S_ISREG(info.st_mode)
        mode, mtime = found.mode, None
        if regular:
            kept = (stat.S_IMODE(info.st_mode) & 0o777, int(info.st_mtime // 1))
            mode, mtime = kept if self._wishes.preserve else (None, None)
        if not info.st_size or not regular:  # those of /proc do not say how much is in them
            with packing.opened(path) as file:
                return self._send_stream(file, found, target, mode, mtime)

        changed: list[str] = []

        def pieces(offset: int) -> Iterator[bytes]:
            return packing.contents(path, info.st_size, changed, offset, info)

        part = None
        if self._wishes.resume:
            source = os.path.abspath(path)
            part = part_of(base_of(target), source, info.st_size, info.st_mtime_ns)
        contents = Contents(pieces, info.st_size, mode, mtime, again=True, changed=changed)
        return self._file_sender(found).send(contents, target, part)

    def _send_stream(
        self, file: HasRead, found: Found, target: str, mode: Optional[int], mtime: Optional[int]
    ) -> Copied:
        first = _read(file)

        def pieces(offset: int) -> Iterator[bytes]:
            data = first
            while data:
                yield data
                data = _read(file)

        contents = Contents(pieces, None if first else 0, mode, mtime, again=not first)
        return self._file_sender(found).send(contents, target)

    def _file_sender(self, found: Found) -> FileSender:
        return FileSender(self._pod, found, self._attempts, self._meter, self._wishes.checksum)


def _read(file: HasRead) -> bytes:
    data = file.read(PIECE)
    if data is None or isinstance(data, str):  # a file that does not block gives None
        raise TypeError(f"copy_to needs a file that gives bytes, not {type(data).__name__}")
    return bytes(data)


def _base(path: str) -> str:
    """Return the name that a path has in a directory: none, if what is in it is meant, as of ``.`` and ``dir/.``."""
    if os.path.basename(path.rstrip("/")) == ".":
        return ""
    return os.path.basename(os.path.abspath(path))


def _check_names(sources: Iterable[tuple[str, str]]) -> None:
    """Refuse several files of one name; directories whose contents are meant are merged."""
    names: Counter[str] = Counter()
    folders: set[str] = set()
    for path, name in sources:
        if name:
            names[name] += 1
            continue
        for item in packing.walk(path, ""):
            if item.kind == "directory":
                folders.add(item.name)
            elif item.kind not in ("left", "other"):  # which are not sent
                names[item.name] += 1
    twice = sorted(name for name, count in names.items() if count > 1 or name in folders)
    if twice:
        raise CopyError(f"several of what is to be copied would be {twice[0]!r} in the pod")


def copy_to(
    pod: Target,
    local: Union[StrOrBytesPath, Sequence[StrOrBytesPath], HasRead],
    remote: StrOrBytesPath,
    *,
    wishes: Wishes,
    progress: Progress,
) -> Copied:
    """Copy to a pod; see ``Pod.copy_to``.

    Threads: blocks.
    """
    path = path_of(remote)
    source: Any = local
    stream = hasattr(source, "read")
    if stream and wishes.resume:
        raise ValueError("resume=True is for files that have a path, here and there")
    paths = [] if stream else packing.expand(source)
    with Meter(progress, base_of(path) or path) as meter:
        upload = Upload(pod.pin(), path, meter, wishes, is_directory_name(remote))
        return upload.from_file(source) if stream else upload.from_paths(paths)
