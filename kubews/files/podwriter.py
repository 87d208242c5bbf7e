"""PodWriter: a file in a pod that is being written, and has its name when it has arrived whole."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from kubews.errors import CopyError, KubewsError, StreamBroken, TruncatedTransfer
from kubews.files import checksums
from kubews.files.copying import CUT, Attempts, pipe
from kubews.files.remotefiles import Found, read_some
from kubews.files.sendfile import (
    NAME,
    check_written,
    name_command,
    remove,
    run,
    temporary_name,
    write_command,
)
from kubews.popen import PIPE, Popen
from kubews.transport.wait import fresh

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from kubews.targets import Target

_T = TypeVar("_T")

# Where nothing was, something may be by now.
_APPEND = (
    't=$(printf %b. "$1"); t=${t%.}; if [ -e "$t" ]; then cat <"$p" >>"$t" && rm -f -- "$p"; exit; fi'
    + NAME
)


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
        self._target = found.real or path
        self.mode = "ab" if append else "wb"
        self._attempts = Attempts(pod, path, 0, "writing")
        self._start, self._size = (found.size or 0) if append else 0, 0
        #: Whether a ``TextIOWrapper`` is being made of it.
        self.in_the_making = False
        #: Whether all that was given is sent, or waits in a wrapper: Ctrl-C may have come between.
        self.whole = True
        self._owner = os.getpid()
        # Raised again by all that follows: what a wrapper's last flush raises is hidden by what closing does.
        self._failure: Optional[Exception] = None
        self._kind = checksums.choose(found.programs, None)
        self._digest = self._kind.make() if self._kind else None
        self._temporary = temporary_name(self._target)
        argv = write_command(self._temporary, found, pod, None, 0, self._kind)
        try:
            self._process = Popen(argv, pod=pod, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            if not self._process.stdout.readline():  # it says that it has opened the file, or not
                self._attempts.ended(self._process)
        except BaseException:
            self._give_up()
            raise
        self._process.if_forgotten(
            f"{self!r} was forgotten, and nothing of it is written: close it, or use it in a with block"
        )
        _writers.add(self)

    def __repr__(self) -> str:
        return f"<kubews.PodWriter {self.name!r} of {self._pod.where}>"

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False, except to a ``TextIOWrapper``: it asks once, and else begins no file with a byte order mark."""
        return self.in_the_making

    def tell(self) -> int:
        """Return where in the file the next byte will be."""
        return self._start + self._size

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
        size = len(data)
        if self._finalizing or self._discarded:
            return size  # a wrapper that nobody has closed, or whose block has failed
        self._check()
        self.whole = False
        self._send(data)
        if self._digest is not None:
            self._digest.update(bytes(data))
        self._size += size
        # No call from here on, where Ctrl-C could come: a buffer would send all of it again.
        self.whole = True
        return size

    def warn_at_exit(self) -> None:
        """Warn if it should have been closed."""
        if not (self.closed or self._discarded) and os.getpid() == self._owner:
            warnings.warn(
                f"{self!r} is open when the interpreter exits, and nothing of it is written: close it, or use it in a "
                "with block",
                ResourceWarning,
                stacklevel=2,
            )

    def discard(self) -> None:
        """Forget what was written; closing is only closing then."""
        self._discarded = True

    def close(self) -> None:
        """Verify what has arrived, and give it its name.

        Raises:
            TruncatedTransfer: it has not arrived whole; the file is as it was.
            CopyError: something else has; or it cannot have the name, or nobody knows whether it has.

        Threads: blocks.
        """
        if self.closed:
            return
        try:
            if self._finalizing:
                if self._process is not None:
                    self._process.forget()
            elif self._discarded:
                self._give_up()
            else:
                try:
                    self._check()
                    self._commit()
                except BaseException:
                    self._give_up()
                    raise
        finally:
            super().close()

    def _check(self) -> None:
        if self._failure is not None:
            raise fresh(self._failure)
        if not self.whole:
            raise TruncatedTransfer(
                f"{self._pod.where}: writing {self.name} was interrupted, and it is not known how much of it was "
                "sent: write it anew",
                member=self.name,
                received=self._size,
            )

    def _send(self, data: memoryview) -> None:
        assert self._process is not None
        try:
            self._process.stdin.write(data)
        except StreamBroken:
            failure = self._why()
            self._failure = fresh(failure)
            raise failure from failure.__cause__  # which is not that the stream is broken

    def _why(self) -> Exception:
        """Return what has ended the remote command before all was written."""
        try:
            try:
                self._finish()
            except CUT as exc:
                self._attempts.after(exc, self._size)
        except KubewsError as exc:
            return exc
        return CopyError(
            f"{self._pod.where}: what writes {self.name} there has ended before all was written",
            member=self.name,
        )

    def _commit(self) -> None:
        try:
            output = self._finish() if self._size else self._finish_empty()
            check_written(output, self._size, self._kind, self._digest, self._attempts)
        except CUT as exc:
            self._attempts.after(exc, self._size)
        name = _APPEND if self._append else NAME
        argv = name_command(self._temporary, self._target, self._found.mode, None, name)
        try:
            run(self._pod, argv, self._attempts)
        except CUT as exc:
            how = "how much of it is appended to" if self._append else "whether it has replaced"
            raise CopyError(
                f"{self._pod.where}: what was written has arrived, but it is not known {how} {self.name}: {exc}",
                member=self.name,
            ) from exc

    def _finish(self) -> bytes:
        process = self._process
        assert process is not None
        with contextlib.suppress(StreamBroken):
            process.stdin.close()
        output = read_some(process.stdout)
        self._attempts.ended(process)
        process.close()
        return output

    def _finish_empty(self) -> bytes:
        # Without ending the input: containerd may forget to tell, if nothing came before. And under another name:
        # who gets nothing removes what it has made.
        assert self._process is not None
        self._process.close(0.0)
        self._temporary = temporary_name(self._target)
        argv = write_command(self._temporary, self._found, self._pod, 0, 0, self._kind)
        return pipe(self._pod, argv, (), self._found, self._attempts, wait_open=True)

    def _give_up(self) -> None:
        if self._process is not None:
            self._process.close(0.0)
        if os.getpid() == self._owner:  # in a fork it is the parent's still
            remove(self._pod, self._temporary)

    def __del__(self) -> None:
        self._finalizing = True
        if hasattr(self, "_process"):  # otherwise Ctrl-C came before
            super().__del__()

    def _dealloc_warn(self, source: Any) -> None:
        # A wrapper calls this when it is being finalized, just before it closes us.
        self._finalizing = True


_writers: weakref.WeakSet[PodWriter] = weakref.WeakSet()


@atexit.register
def _warn_at_exit() -> None:
    # Later, when they are finalized, all connections are cut, and nobody could tell which were in use.
    for writer in list(_writers):
        writer.warn_at_exit()


def _raised_here(exc: BaseException) -> bool:
    """Tell whether what the caller has caught comes from a function that is not Python's, and that it has called."""
    return exc.__traceback__ is not None and exc.__traceback__.tb_next is None


def _came_through(exc: BaseException, code: CodeType) -> bool:
    """Tell whether an exception was raised in a function, or by what it has called, or by a signal there."""
    at = exc.__traceback__
    while at is not None and at.tb_frame.f_code is not code:
        at = at.tb_next
    return at is not None


class _Whole:
    """What a buffered and a text file have in common: what has failed, or has been stopped, writes nothing.

    Threads: any, one at a time.
    """

    _raw: PodWriter

    def close(self) -> None:
        """Send the rest, verify what has arrived, and give it its name; see ``PodWriter.close``."""
        if not (self.closed or self._finalizing):  # type: ignore[attr-defined]  # as ``io`` calls it
            try:
                super().flush()  # type: ignore[misc]
            except BaseException as exc:
                if type(exc) is RuntimeError and _raised_here(exc):
                    raise  # in a signal handler, within a call of this very file, which goes on
                # Ctrl-C: ``io`` would go on closing, and name what has no end.
                self._raw.discard()
                with contextlib.suppress(Exception):
                    self._close()
                raise
        self._close()

    def _close(self) -> None:
        try:
            super().close()  # type: ignore[misc]
        finally:
            if not self._raw.closed:  # Ctrl-C on the way there: ``io`` does not go there again
                self._raw.discard()
                with contextlib.suppress(Exception):
                    self._raw.close()

    def __exit__(self, *exc_info: Any) -> None:
        if exc_info[0] is not None:
            self._raw.discard()
        super().__exit__(*exc_info)  # type: ignore[misc]  # of the file


class BufferedPodWriter(_Whole, io.BufferedWriter):
    """A buffered file to write. Leaving its block by an exception writes nothing.

    Threads: any, one at a time.
    """

    raw: PodWriter

    def __init__(self, raw: PodWriter, size: int) -> None:
        self._raw = raw
        super().__init__(raw, size)


class TextPodWriter(_Whole, io.TextIOWrapper):
    """A file to write text to. Leaving its block by an exception writes nothing.

    Threads: any, one at a time.
    """

    def __init__(self, buffer: BufferedPodWriter, *args: Any) -> None:
        self._raw = buffer.raw
        self._inside: set[int] = set()
        self._raw.in_the_making = True
        try:
            super().__init__(buffer, *args)
        finally:
            self._raw.in_the_making = False

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        return self._alone(super().write, text)

    def flush(self) -> None:
        """Send what was written."""
        if threading.get_ident() in self._inside:
            super().flush()  # for ``io`` itself; a signal handler has nothing to send, and is refused by the buffer
        else:
            self._alone(super().flush)

    def tell(self) -> int:
        """Return where in the file the next text will be; what was written is sent for that."""
        return self._alone(super().tell)

    def close(self) -> None:
        """Send the rest, verify what has arrived, and give it its name; see ``PodWriter.close``."""
        self._alone(super().close)

    def _alone(self, call: Callable[..., _T], *args: Any) -> _T:
        """Call a method of ``io``, which forgets what it was to write when that fails: then the file is not whole.

        Raises:
            RuntimeError: this thread is in such a call, and a signal handler makes another.
        """
        me = threading.get_ident()
        if me in self._inside:
            raise RuntimeError(f"reentrant call inside {self!r}")
        try:
            self._inside.add(me)
            return call(*args)
        except BaseException as exc:
            whole, self._raw.whole = self._raw.whole, False
            # Of a text that cannot be encoded, say, nothing was taken.
            harmless = isinstance(exc, (ValueError, TypeError, LookupError))
            if harmless and not _came_through(exc, PodWriter.write.__code__):
                self._raw.whole = whole
            raise
        finally:
            self._inside.discard(me)
