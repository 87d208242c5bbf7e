"""copy_from: files and directories of a pod, here.

It is ``tar`` in the pod, or a shell where there is no tar, or for one file whatever prints it. What comes is
believed when the remote tools have ended with exit code 0 and sizes, the archive's end and, of one file, a
checksum are as they should be.
"""

from __future__ import annotations

import io
import os
import selectors
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError, ExecError, NoSuchFile, TruncatedTransfer
from kubews.files import checksums
from kubews.files.arrival import Limits
from kubews.files.copying import CUT, Attempts, Copied, Wishes
from kubews.files.landing import Landing
from kubews.files.parts import Part, part_of
from kubews.files.progress import Meter, Progress
from kubews.files.receivetree import TreeReceiver
from kubews.files.remotefiles import (
    Found,
    base_of,
    check_readable,
    is_absent,
    is_directory,
    is_directory_name,
    lacking,
    look,
    missing,
    no_directory,
    path_of,
    size_of,
)
from kubews.files.source import PRINTERS, Source, source_at
from kubews.popen import PIPE, Popen
from kubews.transport.deadline import NEVER
from kubews.transport.patience import ready

if TYPE_CHECKING:
    from kubews.targets import Target

# Bytes that are taken, summed and written at a time: the buffer is made once, since memory that is new for each
# piece costs as much as the checksum.
_PIECE = 256 << 10


class HasWrite(Protocol):
    """A binary file object.

    Threads: the caller's.
    """

    def write(self, data: bytes, /) -> Any:
        """Write all of it, or return how much."""


class _Sink(Protocol):
    """Where the bytes of one file go.

    Threads: one.
    """

    size: int

    def write(self, data: bytearray) -> None:
        """Append; what is in ``data`` is another thing afterwards."""

    def restart(self) -> None:
        """Forget all that was written."""


class _UserFile:
    """A file object of the user, which takes bytes only once.

    Threads: one.
    """

    def __init__(self, file: HasWrite) -> None:
        self._file = file
        self.size = 0

    def write(self, piece: bytearray) -> None:
        data = bytes(piece)  # the user may keep it
        self.size += len(data)
        while data:
            count, full = self._write(data)
            if full:  # somebody made it one that does not block
                ready(self._file, selectors.EVENT_WRITE, NEVER)  # type: ignore[arg-type]
            elif count == 0:
                raise OSError(f"{type(self._file).__name__}.write() takes no bytes")
            data = data[count:] if isinstance(count, int) else b""

    def _write(self, data: bytes) -> tuple[Any, bool]:
        """Return what ``write`` does, and whether the descriptor below it takes no more for now."""
        try:
            count = self._file.write(data)
        except BlockingIOError as exc:
            # What others raise, as GzipFile does, counts other bytes than these.
            if not isinstance(self._file, (io.BufferedWriter, io.BufferedRandom)):
                raise
            return exc.characters_written, True
        if count is None and _does_not_block(self._file):
            if not isinstance(self._file, (io.FileIO, socket.SocketIO)):
                raise OSError(
                    f"{type(self._file).__name__}.write() returned None, and its descriptor does not block: "
                    "return how many bytes were taken"
                )
            return 0, True
        return count, False

    def restart(self) -> None:
        raise CopyError(
            "the file has changed in the pod, and what was written cannot be taken back"
        )


class Download:
    """One copy from a pod, with what is known about it.

    Args:
        pod: the pod itself.
        path: in it, as ``path_of`` returns it.
        meter: who is told how far it is.
        wishes: what else is wanted.
        limits: how much may come.
        symlinks: whether to make links that stay within the copy.
        into: whether the path was written as that of a directory, with a slash behind it.

    Threads: one.
    """

    def __init__(
        self,
        pod: Target,
        path: str,
        meter: Meter,
        wishes: Wishes,
        limits: Limits,
        symlinks: bool,
        into: bool,
    ) -> None:
        self._into = into
        self._pod, self._path, self._meter = pod, path, meter
        self._wishes, self._limits = wishes, limits
        self._attempts = Attempts(pod, path, wishes.retries)
        self._trees = TreeReceiver(
            pod,
            path,
            self._attempts,
            meter,
            limits=limits,
            preserve=wishes.preserve,
            symlinks=symlinks,
        )

    def to_file(self, file: HasWrite) -> Copied:
        """Copy one file into a file object."""
        sink = _UserFile(file)
        with self._source() as source:
            found = source.found
            if found is None:
                self._need_no_checksum()
                self._attempts = Attempts(self._pod, self._path, 0)  # it cannot be gone on with
                return self._without_shell(sink)
            self._check(found)
            if found.kind == "directory":
                raise is_directory(self._pod, self._path)
            if self._into:
                raise no_directory(self._pod, self._path)
            verified = self._fetch(source, found, sink)
        return Copied("", 1, sink.size, verified, tuple(self._attempts.warnings))

    def to_path(self, local: str) -> Copied:
        """Copy a file or a directory to a path; into it, if that is a directory."""
        target = self._target(local)
        with self._source() as source:
            found = source.found
            if found is None:
                self._need_no_checksum()
                return self._tree_or_file_without_shell(target)
            self._check(found)
            if found.kind == "directory":
                if self._wishes.checksum:
                    raise CopyError(
                        "checksum=True is for single files; a tree is verified as an archive"
                    )
                return self._attempts.until_done(lambda: self._trees.receive(source, found, target))
            if not found.programs & PRINTERS.keys() and "tar" in found.programs:
                self._need_no_checksum()
                return self._attempts.until_done(lambda: self._trees.receive_anything(target))
            if self._into:
                raise no_directory(self._pod, self._path)
            if local.endswith(("/", os.sep)) and not os.path.isdir(local):
                raise _no_directory_here(local)
            return self._file(source, found, target)

    def _source(self) -> Source:
        # With resume it may be the rest of a file that is wanted.
        kinds = () if self._wishes.resume else checksums.kinds(self._wishes.checksum)
        programs = [kind.program for kind in kinds]
        return self._attempts.answer(lambda: source_at(self._pod, self._path, programs))

    def _file(self, source: Source, found: Found, target: str) -> Copied:
        folder, name = os.path.split(target)
        part = self._part(name, found)
        with (
            Landing(folder or ".", preserve=self._wishes.preserve) as landing,
            landing.about((name,)),
            landing.file((name,), found.mode, found.mtime, part) as arriving,
        ):
            if arriving.size and "tail" not in found.programs:
                arriving.restart()
            verified = self._fetch(source, found, arriving, arriving.so_far())
            landing.settle(arriving)
        return Copied(target, 1, arriving.size, verified, tuple(self._attempts.warnings))

    def _need_no_checksum(self) -> None:
        if self._wishes.checksum:
            raise lacking(self._pod, "checksum=True", "sh, cat, head and sha256sum")

    def _target(self, local: str) -> str:
        """Return the path that the copy will have; links that the user names are followed."""
        path = os.path.realpath(local)
        if os.path.isdir(path):
            path = os.path.join(path, base_of(self._path))
            return path.rstrip(os.sep) if base_of(self._path) else path
        if local.endswith(("/", os.sep)) and not os.path.isdir(os.path.dirname(path)):
            raise _no_directory_here(local)
        if not os.path.isdir(os.path.dirname(path)):
            raise _no_directory_here(os.path.dirname(path))
        return path

    def _check(self, found: Found) -> None:
        check_readable(self._pod, self._path, found)
        if found.kind == "other":
            raise CopyError(
                f"{self._pod.where}: {self._path} is neither a file nor a directory",
                member=self._path,
            )

    # -- one file

    def _part(self, name: str, found: Found) -> Optional[Part]:
        """Return what an earlier call may have left of the same contents."""
        if not self._wishes.resume or found.mtime is None:
            return None
        source = (self._pod.where, self._path, found.size, found.mtime)
        return part_of(name, *source, self._wishes.preserve)  # who makes the file gives it its mode

    def _fetch(
        self, source: Source, found: Found, sink: _Sink, so_far: Iterable[bytes] = ()
    ) -> str:
        """Copy the contents of one file, going on after cuts; return what was verified."""
        kind = self._kind(found)
        digest = kind.make() if kind else None
        if digest:
            for piece in so_far:
                digest.update(piece)
        self._meter.total, was_cut = found.size, False
        while True:
            try:
                if was_cut:
                    found = self._same(found, sink)
                    if kind and not sink.size:
                        digest = kind.make()
                program = kind.program if kind else ""
                remote = self._fetch_rest(source, found, sink, digest, program)
                break
            except CUT as exc:
                self._attempts.after(exc, sink.size, found.size)
                was_cut = True
        if found.size and sink.size > found.size:
            self._attempts.warnings.append(f"{self._path}: was written to while it was read")
        if kind is None or digest is None:
            return "" if found.size is None else "size"
        if self._wishes.checksum and sink.size and not found.size:
            raise CopyError(
                f"{self._pod.where}: {self._path} does not say how much is in it, so that checksum=True cannot be",
                member=self._path,
            )
        self._attempts.compare(kind, remote, digest.hexdigest())
        return kind.name

    def _kind(self, found: Found) -> Optional[checksums.Checksum]:
        wanted = self._wishes.checksum
        kind = checksums.choose(found.programs, wanted)
        if wanted and (kind is None or "head" not in found.programs):
            raise lacking(self._pod, "checksum=True", "sha256sum and head")
        return kind if (found.size or wanted) and "head" in found.programs else None

    def _fetch_rest(
        self,
        source: Source,
        found: Found,
        sink: _Sink,
        digest: Optional[checksums.Digest],
        program: str,
    ) -> Optional[str]:
        """Copy what is missing; return the checksum that the pod has calculated meanwhile."""
        printers = [name for name in PRINTERS if name in found.programs]
        if not printers:
            raise lacking(self._pod, "copying a file", "cat, tail, dd", "tar")
        size = found.size or 0
        with source.file(printers[0], size, sink.size, program) as process:
            remote = self._take(process, sink, digest, size)
        if sink.size < size:
            # Files of /proc and /sys, and those that were cut there, have less in them than was said.
            now = size_of(self._pod, self._path)
            if now is None or sink.size < now:
                raise TruncatedTransfer("the end is missing", received=sink.size, expected=size)
            if now < sink.size:
                raise CopyError(
                    f"{self._pod.where}: {self._path} has become shorter while it was read",
                    member=self._path,
                    warnings=self._attempts.warnings,
                )
        return remote

    def _take(
        self, process: Popen, sink: _Sink, digest: Optional[checksums.Digest] = None, size: int = 0
    ) -> Optional[str]:
        """Take what a process prints, the first ``size`` bytes into the digest; return the checksum that it tells."""
        buffer = bytearray(_PIECE)
        while count := process.stdout.readinto(buffer):
            if sink.size + count > self._limits.bytes:
                raise CopyError(
                    f"{self._path} has more than {self._limits.bytes:,} bytes: max_bytes= allows more"
                )
            data = buffer if count == _PIECE else buffer[:count]
            if digest is not None:
                summed = max(0, size - sink.size)
                digest.update(data if summed >= count else data[:summed])
            sink.write(data)
            self._meter(sink.size)
        return self._attempts.ended(process)

    def _same(self, found: Found, sink: _Sink) -> Found:
        """Look again after a cut, and forget what came if the file is another one or cannot be gone on with."""
        now = look(self._pod, self._path)
        if now is None or now.kind != "file":
            raise missing(self._pod, self._path)
        if (now.size, now.mtime) != (found.size, found.mtime) or "tail" not in now.programs:
            sink.restart()
        return now

    # -- without a shell

    def _tree_or_file_without_shell(self, target: str) -> Copied:
        try:
            return self._attempts.until_done(lambda: self._trees.receive_anything(target))
        except ExecError as exc:
            if not is_absent(exc):
                raise
        folder, name = os.path.split(target)
        with (
            Landing(folder or ".") as landing,
            landing.about((name,)),
            landing.file((name,), None, None) as arriving,
        ):
            copied = self._without_shell(arriving)
            landing.settle(arriving)
        return copied._replace(path=target)

    def _without_shell(self, sink: _Sink) -> Copied:
        def attempt() -> None:
            if sink.size:
                sink.restart()
            with Popen(
                ["cat", self._path], pod=self._pod, bufsize=0, stdout=PIPE, stderr=PIPE
            ) as process:
                self._take(process, sink)

        try:
            self._attempts.until_done(attempt)
        except ExecError as exc:
            if not is_absent(exc):
                raise
            raise lacking(self._pod, "copying from it", "sh", "tar", "cat") from exc
        return Copied("", 1, sink.size, "", tuple(self._attempts.warnings))


def _does_not_block(file: Any) -> bool:
    """Tell whether ``None`` that ``write`` returned may mean nothing, and not all as of a file of the user's."""
    try:
        return isinstance(file, io.RawIOBase) and not os.get_blocking(file.fileno())
    except OSError:  # it has no descriptor
        return False


def _no_directory_here(path: str) -> NoSuchFile:
    return NoSuchFile(f"{path}: there is no such directory here", member=path)


def _open_in_place(name: str) -> Optional[io.FileIO]:
    """Open what is written as it is: a device, a FIFO, a descriptor of this process (``/dev/stdout``)."""
    if not os.path.exists(name) or os.path.isdir(name):
        return None
    link = name
    while True:
        folder, last = os.path.realpath(os.path.dirname(link)), os.path.basename(link)
        if folder in (f"/proc/{os.getpid()}/fd", "/dev/fd") and last.isdigit():
            # Not by its name: a file would be written from its beginning, over what is there.
            return open(int(last), "wb", buffering=0, closefd=False)
        if not os.path.islink(link):
            break
        link = os.path.join(folder, os.readlink(link))
    return None if os.path.isfile(name) else open(name, "wb", buffering=0)


def copy_from(
    pod: Target,
    remote: StrOrBytesPath,
    local: Union[StrOrBytesPath, HasWrite],
    *,
    wishes: Wishes,
    symlinks: bool,
    progress: Progress,
    limits: Limits,
) -> Copied:
    """Copy from a pod; see ``Pod.copy_from``.

    Threads: blocks.
    """
    path = path_of(remote)
    if not hasattr(local, "write") and not os.fsdecode(local):
        raise ValueError("the path here is empty")
    with Meter(progress, base_of(path) or path) as meter:
        into = is_directory_name(remote)
        download = Download(pod.pin(), path, meter, wishes, limits, symlinks, into)
        if hasattr(local, "write"):
            if wishes.resume:
                raise ValueError("resume=True is for files that have a path, here and there")
            return download.to_file(local)  # type: ignore[arg-type]
        name = os.fsdecode(local)
        if file := _open_in_place(name):
            with file:
                return download.to_file(file)
        return download.to_path(name)
