"""open: a file of a pod as a file object, for everything that takes one.

What is read goes on where it was cut. What is written has its name, or is appended, when it is closed and has arrived
whole; a ``with`` block that an exception ends writes nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from kubews import checksums
from kubews.command import StrOrBytesPath
from kubews.copying import CUT, Attempts
from kubews.errors import CopyError, KubewsError, StreamBroken, TruncatedTransfer
from kubews.popen import PIPE, Popen
from kubews.remotefiles import Found, lacking, look, missing, path_of, quoted, script
from kubews.sendfile import (
    check_written,
    name_command,
    remove,
    run,
    temporary_name,
    write_command,
)

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import WriteableBuffer
    from typing_extensions import Buffer

    from kubews.targets import Target

TextMode = Literal["r", "w", "a", "rt", "wt", "at"]
WriteMode = Literal["wb", "ab"]
AnyMode = Union[TextMode, Literal["rb"], WriteMode]

_BUFFER = 256 << 10
_RETRIES = 3
# So far ahead is read on; farther away another command is started.
_NEAR = 256 << 10

_READ = 'if [ "$1" = 1 ]; then FIRST; else tail -c "+$1"; fi <"$p"'
_APPEND = 't=$(printf %b. "$1"); t=${t%.}; cat <"$p" >>"$t" && rm -f -- "$p"'


class PodReader(io.RawIOBase):
    """The bytes of a file in a pod.

    Args:
        pod: the pod itself.
        path: in it.
        found: what is known about it.

    Threads: one.
    """

    mode = "rb"

    def __init__(self, pod: Target, path: str, found: Found) -> None:
        self._pod, self.name, self._found = pod, path, found
        self._attempts = Attempts(pod, path, _RETRIES)
        self._process: Optional[Popen] = None
        self._position = self._there = 0  # where to read, and where the command is
        self._finalizing = False

    def __repr__(self) -> str:
        return f"<kubews.PodReader {self.name!r} of {self._pod.where}>"

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether it has a size, and the image a program that reads from somewhere on."""
        return self._found.kind == "file" and "tail" in self._found.programs

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read from another place on; return it.

        Threads: does not block.
        """
        self._check_open()
        if not self.seekable():
            raise io.UnsupportedOperation(
                f"{self!r} cannot be read but from its beginning to its end"
            )
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size or 0}
        if whence not in base:
            raise ValueError(f"invalid whence ({whence})")
        if base[whence] + offset < 0:
            raise ValueError(f"negative seek position {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the place that is read next."""
        self._check_open()
        return self._position

    def readinto(self, b: WriteableBuffer) -> int:
        """Read at least one byte into ``b``; return their number, 0 at the end.

        Raises:
            TruncatedTransfer: it was cut too often, or the file is another one by now.
            CopyError: it cannot be read.

        Threads: blocks.
        """
        self._check_open()
        view = memoryview(b).cast("B")
        while len(view):
            try:
                process = self._reach()
                count = int(process.stdout.readinto(view))
                if not count:
                    self._end(process)
                self._position += count
                self._there = self._position
                return count
            except CUT as exc:
                self._stop()
                if not self.seekable():
                    raise
                self._attempts.after(exc, self._position, self._found.size)
                self._look_again()
        return 0

    def _reach(self) -> Popen:
        """Return a command that is at the place to be read."""
        ahead = self._position - self._there
        if self._process is not None and 0 <= ahead <= _NEAR:
            while ahead and (data := self._process.stdout.read(ahead)):
                ahead -= len(data)
            self._there = self._position
            return self._process
        self._stop()
        first = "cat" if "cat" in self._found.programs else "tail -c +1"
        argv = script(self.name, _READ.replace("FIRST", first), str(self._position + 1))
        self._process = Popen(argv, pod=self._pod, bufsize=0, stdout=PIPE, stderr=PIPE)
        self._there = self._position
        return self._process

    def _end(self, process: Popen) -> None:
        """See whether the end is one."""
        self._attempts.ended(process)
        self._stop()
        size = self._found.size or 0
        if self._position < size and self.seekable():
            self._look_again()
            # Those of /proc and /sys have less in them than they say.
            argv = script(self.name, 'wc -c <"$p"')
            with Popen(argv, pod=self._pod, stdout=PIPE, stderr=PIPE) as counting:
                output, _ = counting.communicate()
            if output.strip().isdigit() and int(output) > self._position:
                raise TruncatedTransfer(
                    "the end is missing", received=self._position, expected=size
                )

    def _look_again(self) -> None:
        now = look(self._pod, self.name)
        before = (self._found.size, self._found.mtime)
        if now is None or (now.size, now.mtime) != before:
            raise CopyError(f"{self!r} was changed while it was read", member=self.name)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._finalizing:
            process.stdout.abort()
        else:
            process.close(0.0)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def close(self) -> None:
        """End the command that reads; again is nothing.

        Threads: one.
        """
        if not self.closed:
            try:
                self._stop()
            finally:
                super().close()

    def __del__(self) -> None:
        self._finalizing = True
        super().__del__()

    def _dealloc_warn(self, source: Any) -> None:
        # A wrapper calls this when it is being finalized, just before it closes us.
        self._finalizing = True


class PodWriter(io.RawIOBase):
    """A file in a pod that is being written.

    Args:
        pod: the pod itself.
        path: in it.
        found: what is known about it.
        append: whether to write behind what is there.

    Raises:
        CopyError: it cannot be written there.
        HalfCloseUnsupported: servers before 1.30 cannot tell a command that nothing more will come.

    Threads: one.
    """

    def __init__(self, pod: Target, path: str, found: Found, append: bool) -> None:
        self._finalizing = self._discarded = False
        self._process: Optional[Popen] = None
        self._pod, self.name, self._found, self._append = pod, path, found, append
        self.mode = "ab" if append else "wb"
        self._attempts = Attempts(pod, path, 0)
        self._size = 0
        self._whole = True  # whether all that was given was sent: Ctrl-C may have come between
        self._kind = checksums.choose(found.programs, None)
        self._digest = self._kind.make() if self._kind else None
        self._temporary = temporary_name(path)
        argv = write_command(self._temporary, found, pod, None, 0, self._kind)
        self._process = Popen(argv, pod=pod, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        if not self._process.stdout.readline():  # it says that it has opened the file, or not
            self._attempts.ended(self._process)

    def __repr__(self) -> str:
        return f"<kubews.PodWriter {self.name!r} of {self._pod.where}>"

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, b: Buffer) -> int:
        """Send all of ``b``; return its length.

        Raises:
            CopyError: the remote command has failed; with its words.
            TruncatedTransfer: the connection is lost.

        Threads: blocks.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        data = memoryview(b).cast("B")
        if self._finalizing or self._discarded:
            return len(data)  # a wrapper that nobody has closed, or whose block has failed
        assert self._process is not None
        self._whole = False
        try:
            self._process.stdin.write(data)
        except StreamBroken:
            self._finish()  # which knows why
            raise
        if self._digest is not None:
            self._digest.update(bytes(data))
        self._size += len(data)
        self._whole = True
        return len(data)

    def discard(self) -> None:
        """Forget what was written; closing is only closing then."""
        self._discarded = True

    def close(self) -> None:
        """Verify what has arrived, and give it its name.

        Raises:
            TruncatedTransfer: it has not arrived whole; the file is as it was.
            CopyError: something else has; or it cannot have the name.

        Threads: blocks.
        """
        if self.closed:
            return
        try:
            if self._finalizing:
                if self._process is not None:
                    self._process.stdout.abort()
            elif self._discarded:
                self._give_up()
            else:
                self._commit()
        finally:
            super().close()

    def _commit(self) -> None:
        try:
            output = self._finish()
            if not self._whole:
                raise TruncatedTransfer("writing was interrupted", received=self._size)
            check_written(output, self._size, self._kind, self._digest, self._attempts)
            argv = name_command(self._temporary, self.name, self._found.mode, None)
            if self._append and self._found.kind == "file":
                argv = script(self._temporary, _APPEND, quoted(self.name))
            run(self._pod, argv, self._attempts)
        except CUT as exc:
            self._give_up()
            self._attempts.after(exc, self._size)
        except BaseException:
            self._give_up()
            raise

    def _finish(self) -> bytes:
        process = self._process
        assert process is not None
        with contextlib.suppress(StreamBroken):
            process.stdin.close()
        output: bytes = process.stdout.readall()
        self._attempts.ended(process)
        process.close()
        return output

    def _give_up(self) -> None:
        if self._process is not None:
            self._process.close(0.0)
        remove(self._pod, self._temporary)

    def __del__(self) -> None:
        self._finalizing = True
        super().__del__()

    def _dealloc_warn(self, source: Any) -> None:
        # A wrapper calls this when it is being finalized, just before it closes us.
        self._finalizing = True


class BufferedPodWriter(io.BufferedWriter):
    """A buffered file to write. Leaving its block by an exception writes nothing.

    Threads: any, one at a time.
    """

    raw: PodWriter

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is not None:
            self.raw.discard()
        super().__exit__(kind, exc, trace)


class TextPodWriter(io.TextIOWrapper):
    """A file to write text to. Leaving its block by an exception writes nothing.

    Threads: one.
    """

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is not None:
            raw: Any = self.buffer
            raw.raw.discard()
        super().__exit__(kind, exc, trace)


def open_file(
    pod: Target,
    path: StrOrBytesPath,
    mode: str,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Union[io.TextIOWrapper, io.BufferedReader, io.BufferedWriter]:
    """Open a file; see ``Pod.open``.

    Threads: blocks.
    """
    letters = mode.replace("t", "").replace("b", "")
    binary = "b" in mode
    if letters not in ("r", "w", "a") or len(mode) > 2 or (binary and "t" in mode):
        raise ValueError(f"invalid mode: {mode!r}; there are r, w and a, with b or t behind them")
    if binary and (encoding, errors, newline) != (None, None, None):
        raise ValueError("binary mode doesn't take encoding, errors or newline")
    name, pod = path_of(path), pod.pin()
    found = _look(pod, name, letters)
    buffered: Union[io.BufferedReader, io.BufferedWriter]
    if letters == "r":
        buffered = io.BufferedReader(PodReader(pod, name, found), _BUFFER)
    else:
        buffered = BufferedPodWriter(PodWriter(pod, name, found, letters == "a"), _BUFFER)
    if binary:
        return buffered
    kind = io.TextIOWrapper if letters == "r" else TextPodWriter
    try:
        return kind(buffered, encoding or "utf-8", errors, newline)
    except BaseException:  # no such encoding
        if isinstance(buffered, BufferedPodWriter):
            buffered.raw.discard()
        with contextlib.suppress(KubewsError):
            buffered.close()
        raise


def _look(pod: Target, path: str, letters: str) -> Found:
    found = look(pod, path)
    if found is None:
        raise lacking(pod, "opening a file", "sh")
    if found.kind == "directory":
        raise CopyError(f"{pod.where}: {path} is a directory", member=path)
    if letters == "r":
        if found.kind == "missing":
            raise missing(pod, path)
        if not found.programs & {"cat", "tail"}:
            raise lacking(pod, "reading a file", "cat", "tail")
        return found
    if not found.parent:
        raise missing(pod, path.rpartition("/")[0] or "/")
    if not found.programs >= {"cat", "mv", "rm"}:
        raise lacking(pod, "writing a file", "cat, mv and rm")
    if found.kind == "other":
        raise CopyError(f"{pod.where}: {path} is no file", member=path)
    return found
