"""copy_to: files and directories from here to a pod.

Everything goes to a temporary name beside its final one, is verified there, and is renamed then: a stream that
was cut leaves nothing that looks like a file. ``tar`` in the pod unpacks trees, without it a shell does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError
from kubews.files import packing
from kubews.files.copying import Attempts, Copied
from kubews.files.progress import Meter, Progress
from kubews.files.remotefiles import Found, base_of, lacking, look, missing, path_of
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
        preserve: whether modes and times are those here.
        retries: how often to go on after a cut.
        checksum: None where the image can; True or not at all; False never.

    Threads: one.
    """

    def __init__(
        self,
        pod: Target,
        path: str,
        meter: Meter,
        *,
        preserve: bool,
        retries: int,
        checksum: Optional[bool],
    ) -> None:
        self._pod, self._path, self._meter = pod, path, meter
        self._preserve, self._checksum = preserve, checksum
        self._attempts = Attempts(pod, path, retries)

    def from_file(self, file: HasRead) -> Copied:
        """Copy what a file object gives to a path."""
        found = self._look()
        if found.kind == "directory":
            raise CopyError(
                f"{self._pod.where}: {self._path} is a directory: name the file that is to be in it",
                member=self._path,
            )

        first = file.read(PIECE)
        if isinstance(first, str):
            raise TypeError("copy_to needs a file that gives bytes, not str")

        def pieces(offset: int) -> Iterator[bytes]:
            data = first
            while data:
                yield bytes(data)
                data = file.read(PIECE)

        contents = Contents(pieces, None if first else 0, found.mode, None, again=not first)
        return self._file_sender(found).send(contents, self._path)

    def from_paths(self, paths: Sequence[str]) -> Copied:
        """Copy files and directories; into the path, if that is a directory."""
        found = self._look()
        inside = found.kind == "directory"
        if len(paths) > 1 and not inside:
            raise CopyError(
                f"{self._pod.where}: {self._path} is no directory, and {len(paths)} are to be copied into it",
                member=self._path,
            )
        if len(paths) == 1 and os.path.isfile(paths[0]):
            target = f"{self._path.rstrip('/')}/{_base(paths[0])}" if inside else self._path
            return self._file_sender(found).send(self._contents(paths[0]), target)
        if self._checksum:
            raise CopyError("checksum=True is for single files; a tree is verified as an archive")
        if not inside and found.kind != "missing":
            raise CopyError(f"{self._pod.where}: {self._path} is no directory", member=self._path)
        folder = self._path if inside else self._path.rpartition("/")[0] or "/"
        names = [_base(each) if inside else base_of(self._path) for each in paths]
        sender = TreeSender(self._pod, found, self._attempts, self._meter, self._preserve)
        sources = list(zip(paths, names, strict=True))
        return self._attempts.until_done(lambda: sender.send(sources, folder))

    def _file_sender(self, found: Found) -> FileSender:
        return FileSender(self._pod, found, self._attempts, self._meter, self._checksum)

    def _look(self) -> Found:
        found = look(self._pod, self._path)
        if found is None:
            raise lacking(self._pod, "copying to it", "sh")
        if not found.parent:
            raise missing(self._pod, self._path.rpartition("/")[0] or "/")
        needed = {"mv", "rm"} - found.programs
        if needed:
            raise lacking(self._pod, "copying to it", *sorted(needed))
        return found

    def _contents(self, path: str) -> Contents:
        try:
            info = os.stat(path)
        except OSError as exc:
            raise CopyError(f"{path} cannot be read: {exc.strerror}", member=path) from exc

        def pieces(offset: int) -> Iterator[bytes]:
            with open(path, "rb", buffering=0) as file:
                file.seek(offset)
                while data := file.read(PIECE):
                    yield data

        kept = (stat.S_IMODE(info.st_mode) & 0o777, int(info.st_mtime // 1))
        mode, mtime = kept if self._preserve else (None, None)
        return Contents(pieces, info.st_size, mode, mtime, again=True)


def _base(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


def copy_to(
    pod: Target,
    local: Union[StrOrBytesPath, Sequence[StrOrBytesPath], HasRead],
    remote: StrOrBytesPath,
    *,
    preserve: bool,
    retries: int,
    checksum: Optional[bool],
    progress: Progress,
) -> Copied:
    """Copy to a pod; see ``Pod.copy_to``.

    Threads: blocks.
    """
    path = path_of(remote)
    source: Any = local
    stream = hasattr(source, "read")
    paths = [] if stream else packing.expand(source)
    with Meter(progress, base_of(path) or path) as meter:
        upload = Upload(
            pod.pin(), path, meter, preserve=preserve, retries=retries, checksum=checksum
        )
        return upload.from_file(source) if stream else upload.from_paths(paths)
