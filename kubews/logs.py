"""Logs of containers: read, or followed through cuts, with every line once."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from typing import Optional

from kubews.errors import ConnectionLost, Forbidden
from kubews.logsource import (
    PASSING,
    LogQuery,
    Resumption,
    Run,
    open_log,
    run_of,
)
from kubews.logstream import Gap, Line, Logs
from kubews.protocol.loglines import Given, Repeated
from kubews.protocol.logs import LOG
from kubews.session import Session
from kubews.targets import Target
from kubews.transport.deadline import Deadline
from kubews.transport.pipe import Taken
from kubews.transport.wait import Expired, fresh

_CHUNK = 65536
_NORMAL = 1000  # the code of the Close behind a log that is over, and behind some that are not

# A connection that lasts so many seconds, or brings a line, was none of the trouble that must end in time.
_GOOD = 5.0

# Seconds before a log that has just gone on is asked for once more: a kubelet tells the end of a container
# some time after the end of its log, within so many seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_TOLD = 5.0

# Seconds for a loop to do what was posted.
_MOMENT = 1.0


class ContainerLogs(Logs[Line]):
    """The log of one run of a container; ``Pod.logs`` makes it.

    Args:
        pod: one pod, with its container named where there are several.
        query: what to ask the server for.
        timestamps: whether lines keep the time that the server wrote before them.
        merged: whether they do in any case, for somebody who takes it off.
        limit: bytes to give out at most.
        encoding: as for ``Logs``.
        errors: as for ``Logs``.
        patience: seconds to try to go on with a log that was cut.
        deadline: for the connection.

    Threads: one reads; ``close`` is for any.
    """

    def __init__(
        self,
        pod: Target,
        query: LogQuery,
        *,
        timestamps: bool,
        merged: bool,
        limit: Optional[int],
        encoding: Optional[str],
        errors: Optional[str],
        patience: float,
        deadline: Deadline,
    ) -> None:
        super().__init__(encoding, errors)
        self.pod = pod
        self._resumed = 0
        self._confirms = False  # whether the connection is there to see that nothing more comes
        self._query = query
        self._timestamps = timestamps
        self._merged = merged
        self._left = limit
        self._patience = patience
        self._run = self._look(deadline) if query.follow and not query.previous else None
        self._lines: deque[bytes] = deque()  # as they came, to be given out
        self._begun: list[bytes] = []  # the pieces of a line that has no newline yet
        self._given = Given()
        self._repeated: Optional[Repeated] = None
        self._torn = False  # whether it is not known how far a line came
        self._resumption: Optional[Resumption] = None
        self._error: Optional[Exception] = None
        self._closed = False
        self._over = ""  # the reason that holds when this connection has ended well
        self._new_lines = False
        self._end_before: Optional[tuple[bytes, int]] = None  # how the last one has, if well
        self._pause = 0.0
        self._trouble: Optional[Deadline] = None  # when it must be over
        self._use(open_log(self.pod, query, deadline))

    def __repr__(self) -> str:
        state = f", {self.reason}" if self.reason else ""
        return f"<kubews.Logs of {self.pod.where}{state}>"

    def __del__(self) -> None:
        if hasattr(self, "_session") and self._resumption is not None:
            self._resumption.stop()  # or it would try on for as long as its patience

    @property
    def resumed(self) -> int:
        """How often it was cut and went on."""
        return self._resumed

    def close(self) -> None:
        """Read no more. Who reads is woken, and finds the end.

        Threads: any, and does not wait for the server; may be called again.
        """
        self.abandon()
        self._finish("closed")

    def abandon(self) -> None:
        """Close it soon.

        Threads: any, finalizers too; does not block.
        """
        self._closed = True
        resumption = self._resumption
        if resumption is not None:
            resumption.stop()
        self._session.connection.abort()

    def _look(self, deadline: Deadline) -> Optional[Run]:
        """Find out which run of the container this is: only so its end can be told from a cut."""
        self.pod.client.authenticate(deadline)
        remaining = deadline.at_most(self.pod.client.connect_timeout).remaining()
        try:
            document = self.pod.get(remaining)
        except Forbidden:
            return None  # a role with pods/log alone will do
        name = self.pod.container or self.pod.choose_container(document)
        self.pod = self.pod.in_container(name)
        return run_of(document, name)

    def _use(self, session: Session) -> None:
        self._session = session
        self._since = time.monotonic()
        self._new_lines = False
        if self._closed:
            session.connection.abort()

    # -- lines

    def _next(self, deadline: Deadline) -> bytes:
        while not self._closed:
            if self._torn:
                self._mend()
            elif self._lines:
                line = self._take()
                if line:
                    return line
            elif self.reason is not None:
                if self._error is not None:
                    raise fresh(self._error)
                return b""
            elif self._resumption is not None:
                self._go_on(self._resumption, deadline)
            else:
                self._receive(deadline)
        return b""

    def _receive(self, deadline: Deadline) -> None:
        pipe = self._session.connection.pipes[LOG]
        taken: Taken = []
        try:
            data = pipe.take(_CHUNK, deadline, taken)
            whole: deque[bytes] = deque()
            begun = [*self._begun, data]
            if b"\n" in data:
                *lines, rest = b"".join(begun).split(b"\n")
                whole = deque(line + b"\n" for line in lines)
                begun = [rest]
            # Invariant: no call between the two, so that Ctrl-C finds both done or none.
            self._lines = whole
            self._begun = begun
        except ConnectionLost as exc:
            self._end(exc)
        except BaseException:
            pipe.put_back(taken)
            raise

    def _take(self) -> bytes:
        try:
            return self._shown(self._lines.popleft())
        except BaseException:  # Ctrl-C, which may lose this line, and no other
            self._torn = self._query.follow
            raise

    def _mend(self) -> None:
        """Begin again behind the lines that are known to have been given out."""
        self._lines = deque()
        self._session.connection.abort()
        self._end_before = None
        self._resume()
        self._torn = False

    def _shown(self, line: bytes) -> bytes:
        """Return what is to be given out of a line that came; nothing if it came before."""
        uncounted = 0
        if self._query.stamps:
            repeated = self._repeated
            if repeated is not None:
                if repeated.has(line):
                    if repeated.done:
                        self._repeated = None
                    return b""
                self._note_gap(repeated, line.partition(b" ")[0].decode("utf-8", "replace"))
            text = self._given.take(line)
            if self._merged and not self._timestamps:
                uncounted = len(line) - len(text)
            elif not self._timestamps:
                line = text
        self._new_lines = True
        if self._confirms:
            self._confirms = False
            self._resumed += 1
        return line if self._left is None else self._within_limit(line, uncounted)

    def _within_limit(self, line: bytes, uncounted: int) -> bytes:
        assert self._left is not None
        line = line[: uncounted + self._left]
        self._left -= len(line) - uncounted
        if self._left <= 0:
            self._lines.clear()
            self.reason = "limit"  # also if the log has ended with this line
            self._finish(self.reason)
        return line

    def _note_gap(self, repeated: Repeated, before: str) -> None:
        self._repeated = None
        if repeated.gap:
            self.gaps.append(Gap(self.pod.where, self._given.stamp, before))

    # -- ends

    def _finish(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
        connection = self._session.connection
        connection.abort()
        # Nothing but the loop is waited for: who forgets the log now has closed it.
        with contextlib.suppress(Expired):
            connection.closed.get(Deadline(_MOMENT))

    def _end(self, lost: ConnectionLost) -> None:
        """Decide what the end of a connection is."""
        connection = self._session.connection
        with contextlib.suppress(Expired):  # it ends after its streams
            connection.closed.get(Deadline(_MOMENT))
        ended_well = connection.close_code == _NORMAL
        if not ended_well:
            self._end_before = None
        if self._closed or connection.closed_here:
            self._finish("closed")
        elif connection.inherited:
            self._fail(lost)
        elif ended_well and self._is_over():
            self._finish_with_rest(self._over or ("ended" if self._query.follow else "complete"))
        elif self._query.follow:
            self._resume()
        else:
            self._fail(self._loss("only one that is followed does", lost))

    def _is_over(self) -> bool:
        """Tell whether an end of the server's is that of the log, and not one that only looks like it."""
        if not self._query.follow:
            return True
        # The same twice, and nothing new: one end in the middle may look well, two hardly stand at one byte.
        end = (b"".join(self._begun), -1 if self._repeated is None else self._repeated.position)
        before, self._end_before = self._end_before, end
        # Who may not look at the pod knows no better.
        known = bool(self._over) or (self._run is None and self._resumed > 0)
        return known and not self._new_lines and end == before

    def _finish_with_rest(self, reason: str) -> None:
        if self._repeated is not None:
            self._repeated.end()
            self._note_gap(self._repeated, "")
        rest = b"".join(self._begun)
        self._begun = []
        if rest:
            self._lines.append(rest)
        self._finish(reason)

    def _fail(self, exc: Exception) -> None:
        self._error = exc
        self._finish("lost")

    # -- going on

    def _resume(self) -> None:
        self._begun = []  # what is not whole comes again
        lasted = time.monotonic() - self._since
        if self._trouble is None or self._new_lines or lasted > _GOOD:
            # What looks like the end is looked into also by who has no patience with a cut.
            patience = self._patience if self._end_before is None else max(self._patience, _TOLD)
            self._pause, self._trouble = 0.0, Deadline(patience)
        elif self._trouble.expired():
            self._fail(self._loss("it ends again and again"))
            return
        query = self._query
        # What there was has been given out: something that has no time, or, in all that time, nothing.
        if self._given.begun or (query.tail and lasted > _GOOD):
            query = dataclasses.replace(query, tail=0)
        if self._end_before is None:  # a second more rather than less of what is lost
            query = dataclasses.replace(query, asked=query.asked - 1)
        resumption = Resumption(self.pod, query, self._given.since, self._run, self._trouble)
        resumption.start(self._pause)
        self._resumption = resumption  # that is under way, or Ctrl-C would have us wait for nothing
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if self._closed:
            resumption.stop()

    def _go_on(self, resumption: Resumption, deadline: Deadline) -> None:
        try:
            again = resumption.found.get(deadline)
        except Expired:
            raise
        except Exception as exc:
            self._resumption = None
            if not self._closed:
                self._fail(self._loss(str(exc), exc) if isinstance(exc, PASSING) else exc)
            return
        self._over, self.exit_code = again.reason, again.exit_code
        if again.session is None:
            if self._end_before is None or again.gap:
                self.gaps.append(Gap(self.pod.where, self._given.stamp, ""))
            elif self._end_before[0]:
                self._lines.append(self._end_before[0])
            self._finish(again.reason)
            self._resumption = None
            return
        self._confirms = bool(again.reason)
        if not self._confirms:
            self._resumed += 1
        self._repeated = self._given.repeated()
        if self._repeated.done:
            self._repeated = None
        self._use(again.session)
        self._resumption = None  # last: after Ctrl-C all of this is done again

    def _loss(self, why: str, cause: Optional[Exception] = None) -> ConnectionLost:
        after = f"; the last line was of {self._given.stamp}" if self._given.stamp else ""
        lost = ConnectionLost(
            f"the log of {self.pod.where} was cut, and does not go on: {why}{after}"
        )
        lost.__cause__ = cause
        return lost
