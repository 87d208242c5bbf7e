"""One exec: from the request to a connection that somebody holds."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Optional

from kubews.protocol.channels import OFFER, STDERR, STDOUT, Channels
from kubews.protocol.requests import attach_path, exec_path
from kubews.targets import Target
from kubews.transport.connection import Connection
from kubews.transport.deadline import Deadline


class Session:
    """The connection of one process, held by its Popen and each of its streams.

    When all of them are forgotten the connection is cut, with a ResourceWarning.

    Args:
        connection: which does not know its session, or the two would keep each other alive.

    Threads: any.
    """

    def __init__(self, connection: Connection) -> None:
        self._dismissed = self._cut = False
        #: What is to be said if nobody waits for it.
        self.forgotten = f"{connection.where} is still running; wait for it or close it"
        self.connection = connection

    def __repr__(self) -> str:
        return f"<session with {self.connection.where}>"

    def __del__(self) -> None:
        if not hasattr(self, "connection"):
            return  # Ctrl-C came before
        self.forget()  # first: a warning may be an exception
        if self._cut and not self._dismissed:
            warnings.warn(
                self.forgotten,
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def forget(self) -> None:
        """Cut the connection in a finalizer of what holds this; the warning follows.

        Threads: any, finalizers too; does not block.
        """
        # Before the cut, which is an end too.
        self._cut = self._cut or not self.connection.status.done()
        self.connection.abort("the process was forgotten")

    def dismiss(self) -> None:
        """Cut the connection, which nobody has seen yet.

        Threads: any, finalizers too; does not block.
        """
        self._dismissed = True
        self.connection.abort()


def held(connection: Connection) -> Session:
    """Return a session for a connection that nobody holds yet.

    Threads: does not block.
    """
    try:
        return Session(connection)
    except BaseException:  # Ctrl-C
        connection.abort()
        raise


def open_exec(
    target: Target,
    argv: Optional[Sequence[str]],
    *,
    stdin: bool,
    merged: bool,
    tty: bool,
    deadline: Deadline,
    codec: Callable[..., Channels] = Channels,
) -> Session:
    """Start a command in a container.

    Args:
        target: the pod itself, see ``pin``; if the server asks for a container, it remembers the choice.
        argv: the argument vector; None attaches to the process that the container has.
        stdin: whether there will be input.
        merged: whether stderr is read together with stdout, in the order of arrival.
        tty: whether the process gets a terminal; there is no stderr then.
        deadline: for everything; the client's ``connect_timeout`` holds too.
        codec: ``Channels``, or what is called as it is.

    Raises:
        ApiError: the server refused.
        ConnectFailed: it could not be reached.

    Threads: blocks.
    """
    inbound = {STDOUT: STDOUT}
    if not tty:
        inbound[STDERR] = STDOUT if merged else STDERR

    def path() -> str:
        if argv is None:
            return attach_path(
                target.namespace, target.name, container=target.container, stdin=stdin, tty=tty
            )
        return exec_path(
            target.namespace,
            target.name,
            argv,
            container=target.container,
            stdin=stdin,
            # Always asked for: a request for no stream is refused, and what nobody wants is dropped
            # on this side. With a terminal there is no separate stderr.
            stdout=True,
            stderr=not tty,
            tty=tty,
        )

    what, resource = ("attach to", "pods/attach") if argv is None else ("exec in", "pods/exec")

    def attempt() -> Connection:
        return target.client.open(
            path(),
            OFFER,
            functools.partial(codec, tty=tty),
            inbound=inbound,
            where=target.where,
            what=f"{what} {target.where}",
            deadline=deadline,
        )

    return held(target.with_container(attempt, deadline, resource=resource))
