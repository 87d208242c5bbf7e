"""What ends a process in a pod, and all that it has started there."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Optional

from kubews.copier import OutputCopier
from kubews.errors import ConnectionLost
from kubews.signals import GRACE, KILL, TERM, Tree
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Expired

# Seconds for the Status of a process that is gone.
_STATUS_GRACE = 5.0

# Seconds for its last output to be in the user's files, which may be stuck.
_COPY_GRACE = 0.5


class Ending:
    """The methods of ``Popen`` that end its process; with ``signals=True`` they can.

    Threads: any.
    """

    _connection: Connection
    _tree: Optional[Tree] = None
    _returncode: Optional[int] = None
    _copiers: Sequence[OutputCopier] = ()

    def _exit_code(self, deadline: Deadline, *, explain: bool = False) -> int:
        """Wait until the process has ended; raise what it is if there is no exit code."""
        raise NotImplementedError

    def _record(self, code: Optional[int], deadline: Deadline) -> None:
        """Take an exit code once all output is in the user's files; raise what one of them has raised."""
        # What one has raised is told before another is waited for.
        for copier in sorted(self._copiers, key=lambda copier: not copier.done.done()):
            copier.done.get(deadline)
        self._returncode = code

    def send_signal(self, sig: int, *, children: bool = True) -> None:
        """Send a signal to the process and to everything that it has started; needs ``signals=True``.

        A second exec in the same container does that. It reaches children under ``nohup`` and those that
        the process has left behind, too; see ``kubews.signals``.

        Args:
            sig: its number in Linux, or one of ``signal.Signals``.
            children: False for the process alone.

        Raises:
            io.UnsupportedOperation: it was started without ``signals=True``, and runs.
            SignalRefused: the container's user may not.
            KubewsError: the container could not be reached, or not be looked into.

        Threads: blocks.
        """
        if self._tree is not None:
            self._tree.send(sig, children=children)
        elif not self._connection.status.done():
            raise self._unreachable()
        elif self._returncode is None:
            code = self._exit_code(NEVER)  # which says so if nobody will know how it ended
            with contextlib.suppress(Exception):  # of a file: that is for wait() and poll() to tell
                self._record(code, Deadline(0))

    def terminate(self) -> None:
        """Send SIGTERM; see ``send_signal``."""
        self.send_signal(TERM)

    def kill(self) -> None:
        """Send SIGKILL; see ``send_signal``."""
        self.send_signal(KILL)

    def end(self, grace: float = GRACE) -> bool:
        """Send SIGTERM, SIGKILL to what still runs after a while, and look whether anything is left.

        It does so over a connection of its own, also when this one is lost or closed.

        Args:
            grace: seconds between the two signals.

        Returns:
            Whether the process and everything that it has started is seen to be gone.

        Raises:
            io.UnsupportedOperation: it was started without ``signals=True``.
            KubewsError: see ``send_signal``.

        Threads: blocks a little longer than ``grace``, if anything needs that.
        """
        if self._tree is None:
            raise self._unreachable()
        gone = self._tree.end(grace)
        self._await_status(gone)
        return gone

    def _unreachable(self) -> io.UnsupportedOperation:
        return io.UnsupportedOperation(
            "the API server passes no signals to a process. Start it with signals=True, which needs sh in "
            "the container; else there are run(['kill', ...]) in the container, and tty=True and \\x03"
        )

    def _end_unfinished(self, unread: Iterable[Pipe] = ()) -> None:
        """End what nobody will wait for; drop its output, or it could wait for a reader."""
        if self._tree is None or not self._tree.own or self._connection.succeeded():
            return  # a fork ends nothing of its parent's unless it is told to
        for pipe in unread:
            pipe.discard()
        self._await_status(self._tree.end_or_warn())

    def _await_status(self, gone: bool) -> None:
        """Take the exit code of what is known to be gone, if the connection can tell it."""
        with contextlib.suppress(Expired, ConnectionLost):
            status = self._connection.status.get(Deadline(_STATUS_GRACE if gone else 0.0))
            with contextlib.suppress(Exception):  # of a file, as above
                self._record(status.exit_code, Deadline(_COPY_GRACE))
