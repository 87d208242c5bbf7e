"""Opening the log of one container, and opening it again where it was cut."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
import time
from typing import Any, NamedTuple, Optional, Union

from kubews import documents
from kubews.documents import Json
from kubews.errors import (
    ApiError,
    BadRequest,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    Forbidden,
    KubewsError,
    NotFound,
    NotReady,
    ServerError,
    TooManyRequests,
)
from kubews.protocol.logs import LOG, OFFER, LogCodec
from kubews.protocol.requests import log_path
from kubews.session import Session, held
from kubews.targets import Target
from kubews.transport import forks
from kubews.transport.connection import Connection
from kubews.transport.deadline import Deadline
from kubews.transport.link import INHERITED
from kubews.transport.wait import DaemonThread, Expired, Outcome

_log = logging.getLogger("kubews")

#: Seconds before now, or a moment.
Since = Union[None, float, datetime.datetime]

# Seconds before another try, doubled each time.
_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

#: What may pass: an API server or a kubelet that starts again is back within a minute.
PASSING = (ConnectFailed, ServerError, TooManyRequests)

_NO_CONTENT = 204


@dataclasses.dataclass(frozen=True)
class LogQuery:
    """What is asked for of a log.

    Args:
        follow: whether to stay when it is read.
        previous: whether the run before the present one is meant.
        stamps: whether each line is to come with its time.
        tail: lines from the end; None for all.
        since_seconds: only what is not older; None for all.
        since_time: likewise, in RFC 3339; empty for all.
        limit: bytes that the server is to send; None for all.
        unverified: whether any kubelet is believed, whatever its certificate says.
        asked: when it is asked for first, by ``time.monotonic``.

    Threads: a value.
    """

    follow: bool = False
    previous: bool = False
    stamps: bool = False
    tail: Optional[int] = None
    since_seconds: Optional[int] = None
    since_time: str = ""
    limit: Optional[int] = None
    unverified: bool = False
    asked: float = dataclasses.field(default_factory=time.monotonic)

    def again(self, since: str, *, previous: bool) -> LogQuery:
        """Return what asks for the rest, from a moment on; from where it began if that is empty."""
        query = LogQuery(
            self.follow,
            self.previous or previous,
            self.stamps,
            since_time=since,
            unverified=self.unverified,
        )
        if since:
            return query
        passed = int(time.monotonic() - self.asked)
        if self.tail == 0 and passed:  # what came meanwhile is not in the tail any more
            return dataclasses.replace(query, since_seconds=passed)
        seconds = None if self.since_seconds is None else self.since_seconds + passed
        return dataclasses.replace(self, previous=query.previous, since_seconds=seconds)

    def path(self, pod: Target) -> str:
        """Return path and query for a container."""
        options = {
            "tailLines": self.tail,
            "sinceSeconds": self.since_seconds,
            "limitBytes": self.limit,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return log_path(
            pod.namespace,
            pod.name,
            container=pod.container,
            follow=self.follow,
            previous=self.previous,
            timestamps=self.stamps,
            sinceTime=self.since_time,
            insecureSkipTLSVerifyBackend=self.unverified,
            **given,
        )


def checked(name: str, value: Optional[int], least: int) -> Optional[int]:
    """Return a number that a query can have.

    Raises:
        TypeError: it is none.
        ValueError: it is too small.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, or None for no limit, not {value}")
    return value


def since_of(since: Since) -> dict[str, Any]:
    """Return what ``since`` is in a query: seconds before now, or a moment.

    Raises:
        TypeError: it is neither a number nor a datetime.
        ValueError: a datetime without a zone, or seconds that are none.
    """
    if since is None:
        return {}
    if isinstance(since, datetime.datetime):
        if since.utcoffset() is None:
            raise ValueError(f"since={since} has no time zone: datetime.now(timezone.utc) has")
        moment = since.astimezone(datetime.timezone.utc)
        return {"since_time": f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"}
    if isinstance(since, bool) or not isinstance(since, (int, float)):
        raise TypeError(f"since must be seconds or a datetime, not {since!r}")
    if not 0 < since < math.inf:
        raise ValueError(f"since must be seconds before now, more than 0, not {since}")
    return {"since_seconds": math.ceil(since)}


class Run(NamedTuple):
    """One run of a container: each restart is another.

    Args:
        uid: of the pod.
        container: its name.
        container_id: of the run; empty for the first, if the API server has not heard of it yet: a kubelet
            gives the log before that.

    Threads: a value.
    """

    uid: str
    container: str
    container_id: str


class Again(NamedTuple):
    """How a log goes on.

    Args:
        session: the new connection; None if there is nothing more to be had.
        reason: why it is over then, or will be when this connection has brought the rest; empty for a
            container that runs.
        exit_code: of the container that has ended, if it is known.
        gap: whether there was more, which nobody has any more.

    Threads: a value.
    """

    session: Optional[Session]
    reason: str = ""
    exit_code: Optional[int] = None
    gap: bool = False


def open_log(pod: Target, query: LogQuery, deadline: Deadline) -> Session:
    """Open the log of a container.

    Raises:
        ApiError: the server refused.
        ConnectFailed: it could not be reached.
        NotReady: the pod has no node yet.

    Threads: blocks.
    """

    def attempt() -> Connection:
        return pod.client.open(
            query.path(pod),
            OFFER,
            LogCodec,
            inbound={LOG: LOG},
            where=f"the log of {pod.where}",
            what=f"read the log of {pod.where}",
            deadline=deadline,
        )

    try:
        return held(pod.with_container(attempt, deadline, resource="pods/log"))
    except ApiError as exc:
        if exc.code != _NO_CONTENT:
            raise
        state = "has no log yet: no node has been chosen for it"
        raise NotReady(f"{pod.where} {state}; {pod.waits}") from None


def run_of(document: Json, container: str) -> Run:
    """Return the run of a container whose log a server gives at this moment."""
    status = documents.container_status(document, container)
    uid, container_id = documents.at(document, "metadata", "uid"), status.get("containerID")
    return Run(str(uid), container, str(container_id or ""))


class Resumption:
    """Opening a log again, in a thread, so that who waits for it can be woken at once.

    Args:
        pod: one pod.
        query: what to ask for.
        run: of the container, if it is known.
        deadline: when to give up.

    Threads: any; there is no lock but that of ``found``.
    """

    def __init__(
        self, pod: Target, query: LogQuery, since: str, run: Optional[Run], deadline: Deadline
    ) -> None:
        self.found: Outcome[Again] = Outcome()
        self._pod = pod
        self._query = query
        self._since = since
        self._run = run
        self._deadline = deadline
        forks.tell(self)

    def start(self, pause: float) -> None:
        """Begin, after so many seconds.

        Threads: does not block.
        """
        DaemonThread(self._work, f"kubews log of {self._pod.where}", (pause,)).start()

    def stop(self) -> None:
        """Give up; what has been opened meanwhile is closed.

        Threads: any; does not block.
        """
        if self.found.set_exception(KubewsError("the log was closed")):
            return
        try:
            session = self.found.get(Deadline(0)).session
        except (KubewsError, TimeoutError):
            return
        if session is not None:
            session.dismiss()

    def _after_fork(self) -> None:
        self.found._after_fork()
        self.found.set_exception(ConnectionLost(f"the log of {self._pod.where}: {INHERITED}"))

    def _work(self, pause: float) -> None:
        try:
            again = self._open(pause)
        except Exception as exc:
            self.found.set_exception(exc)
            return
        if not self.found.set(again) and again.session is not None:
            again.session.dismiss()

    def _open(self, pause: float) -> Again:
        before: Optional[Exception] = None
        while True:
            self._wait(pause)
            try:
                return self._try()
            except PASSING as exc:
                if self._deadline.expired() or self.found.done():
                    # The last try has little time, so that it may say nothing else.
                    raise (before if isinstance(exc, ConnectTimeout) and before else exc) from None
                before = exc
                _log.debug("the log of %s: %s; trying again", self._pod.where, str(exc))
            pause = min(max(2 * pause, _PAUSE), _LONGEST_PAUSE)

    def _wait(self, pause: float) -> None:
        try:
            if pause:
                self.found.get(Deadline(pause))
        except Expired:
            pass  # nobody has said that it is not wanted any more

    def _try(self) -> Again:
        again, previous = self._look()
        if again.reason == "deleted" or again.gap:
            return again
        query = self._query.again(self._since, previous=previous)
        try:
            return again._replace(session=open_log(self._pod, query, self._deadline))
        except BadRequest as exc:
            if again.reason:  # that run's log is not there any more
                return again._replace(gap=True)
            raise ServerError(str(exc), code=exc.code) from exc  # a kubelet that has just begun
        except NotFound as exc:
            if f'"{self._pod.name}" not found' not in str(exc):
                raise ServerError(str(exc), code=exc.code) from exc  # likewise
            return Again(None, "deleted")

    def _look(self) -> tuple[Again, bool]:
        """Return what has become of the run, and whether its log is that of the one before by now."""
        if self._query.previous:
            return Again(None, "ended"), True
        if self._run is None:
            return Again(None), False
        uid, container, container_id = self._run
        try:
            remaining = self._deadline.at_most(self._pod.client.connect_timeout).remaining()
            document = self._pod.get(remaining)
        except NotFound:
            return Again(None, "deleted"), False
        except Forbidden:  # allowed a while ago
            return Again(None), False
        if documents.at(document, "metadata", "uid") != uid:
            return Again(None, "deleted"), False
        status = documents.container_status(document, container)
        if not container_id:
            container_id = _first_run(status)
        for state in ("state", "lastState"):
            end = documents.end_of(document, container, container_id, state)
            if end is not None:
                return Again(None, "ended", end.get("exitCode")), state == "lastState"
        if status.get("containerID", "") != container_id:
            return Again(None, "ended", gap=True), False  # two runs ago
        return Again(None), False


def _first_run(status: Json) -> str:
    """Return the id of the first run of a container; empty if it has not begun, or nobody knows any more."""
    restarts = status.get("restartCount", 0)
    run = {0: status, 1: documents.at(status, "lastState", "terminated")}.get(restarts)
    return str(documents.at(run, "containerID") or "")
