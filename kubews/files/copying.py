"""What both directions of a copy have in common: the result, and what is done about a cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Optional, TypeVar

from kubews.errors import (
    ConnectFailed,
    ConnectionLost,
    CopyError,
    ServerError,
    StreamBroken,
    TruncatedTransfer,
)
from kubews.files.remotefiles import Found, failed, read_some, said
from kubews.popen import PIPE, Popen

if TYPE_CHECKING:
    from kubews.files.checksums import Checksum
    from kubews.targets import Target

_T = TypeVar("_T")

#: What a cut looks like: it can be tried again. A server that comes up again, or has lost a node, says 5xx.
CUT = (ConnectionLost, ConnectFailed, ServerError, TruncatedTransfer)

_CUT_CODE = 75  # of our scripts (EX_TEMPFAIL)
# Not "file shrank by ... bytes; padding with zeros": that is no longer what was there.
_CHANGED = ("file changed as we read it", "File removed before we read it")
_PAUSE = 0.1  # seconds before another try, doubled each time
_LONGEST_PAUSE = 5.0


class Copied(NamedTuple):
    """What was copied.

    Threads: a value.
    """

    #: Where the copy is: a path here or in the pod, empty for a file object.
    path: str
    files: int
    #: Bytes of contents.
    size: int
    #: What was compared besides the exit code: ``cksum``, ``sha256``, ``archive``, ``size`` or nothing.
    verified: str
    #: What the remote tools have said, and what was left out, in lines.
    warnings: tuple[str, ...]


class Wishes(NamedTuple):
    """What the caller wants of a copy, either way; see ``Pod.copy_from``.

    Threads: a value.
    """

    preserve: bool
    retries: int
    checksum: Optional[bool]
    resume: bool


class Attempts:
    """The attempts at one copy.

    Args:
        pod: the pod itself.
        path: in it.
        retries: how often to go on after a cut.
        doing: what they are for, for messages.

    Threads: one.
    """

    def __init__(self, pod: Target, path: str, retries: int, doing: str = "copying") -> None:
        self._doing = doing
        self._pod, self._path, self._left = pod, path, retries
        self._pause = _PAUSE
        #: What the remote tools of the last attempt have said.
        self.warnings: list[str] = []

    def until_done(self, attempt: Callable[[], _T]) -> _T:
        """Call a function again after each cut, from the beginning."""
        while True:
            try:
                return attempt()
            except CUT as exc:
                self.after(exc)

    def answer(self, ask: Callable[[], _T]) -> _T:
        """Call a function that asks what is there; again after a cut, but not if it could not be asked at all."""
        was_cut = False
        while True:
            try:
                return ask()
            except CUT as exc:
                if not was_cut and not isinstance(exc, ConnectionLost):
                    raise
                self.after(exc, 0)
                was_cut = True

    def after(self, exc: Exception, size: Optional[int] = None, of: Optional[int] = None) -> None:
        """Wait before another attempt, or raise what the cut is to the caller.

        Args:
            exc: the cut.
            size: bytes that have arrived, if it does not say so itself.
            of: bytes that there are.

        Raises:
            TruncatedTransfer: there were enough attempts.
        """
        if self._left > 0:
            self._left -= 1
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return
        if size is None:
            received = getattr(exc, "received", 0)
            size = received if isinstance(received, int) else sum(received.values())
        raise TruncatedTransfer(
            f"{self._pod.where}: copying {self._path} was cut after {size:,} bytes: {exc}",
            member=self._path,
            received=size,
            expected=of,
            warnings=self.warnings,
        ) from exc

    def ended(self, process: Popen, *, may_change: bool = False) -> Optional[str]:
        """Wait for the remote tools, whose output was read; return the checksum that they tell on stderr.

        Args:
            process: that runs them.
            may_change: whether it is GNU tar, whose exit code 1 says of a whole archive that files were written to
                or removed meanwhile (its manual, "Synopsis"); that is a warning.

        Raises:
            CopyError: an exit code other than 0.
            ConnectionLost: nobody knows it.
        """
        self.warnings, checksum = said(read_some(process.stderr))
        code = process.wait()
        if code == _CUT_CODE:
            raise TruncatedTransfer("the end did not arrive in the pod")
        only_changed = may_change and code == 1 and bool(self.warnings)
        if only_changed and all(line.endswith(_CHANGED) for line in self.warnings):
            return checksum
        if code:
            raise failed(self._pod, f"{self._doing} {self._path}", code, self.warnings)
        return checksum

    def compare(self, kind: Checksum, there: Optional[str], here: str) -> None:
        """Compare checksums.

        Raises:
            CopyError: they differ, or the pod has told none.
        """
        if there == here:
            return
        what = (
            f"has another {kind.name} there than here: it was changed meanwhile, or on the way"
            if there
            else f"could not be verified: {kind.program} there has told nothing (checksum=False does without)"
        )
        raise CopyError(
            f"{self._pod.where}: {self._path} {what}", member=self._path, warnings=self.warnings
        )


def pipe(
    pod: Target,
    argv: list[str],
    pieces: Iterable[bytes],
    found: Found,
    attempts: Attempts,
    *,
    wait_open: bool = False,
) -> bytes:
    """Send a stream to a command, and return its output once it has succeeded.

    Args:
        pod: the pod itself.
        argv: the command.
        pieces: of the stream.
        found: what is known about the server.
        attempts: who hears what the remote tools say.
        wait_open: whether the command says in a first line that it is ready.

    Raises:
        CopyError: the command has failed.
        ConnectionLost: it was cut.

    Threads: blocks.
    """
    with Popen(argv, pod=pod, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            # An end instead: the exit code tells why.
            for piece in pieces if not wait_open or process.stdout.readline() else ():
                process.stdin.write(piece)
            if found.half_close:
                process.stdin.close()
        except StreamBroken:
            pass  # the exit code tells why, or that there is none
        output = read_some(process.stdout)
        attempts.ended(process)
    return output
