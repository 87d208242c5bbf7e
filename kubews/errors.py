"""Every exception that kubews raises, in one tree.

::

    KubewsError
      ConfigError(ValueError)              kubeconfig, context, the name of a target or of a port
        CredentialsError                   a credential that cannot be read or used
          AuthPluginError                  an exec plugin failed: .command .exit_code .stderr .install_hint
      ApiError                             an HTTP status instead of the stream: .code .reason .status
        BadRequest Unauthorized Forbidden NotFound TooManyRequests ServerError
      ConnectFailed(ConnectionError)       DNS, TCP, proxy, TLS
        ConnectTimeout(TimeoutError)       any of these, or the upgrade, took too long
      PortRefused(ConnectionRefusedError)  the pod's port could not be connected to
      ConnectionLost(ConnectionError)      the stream ended without a Status: .partial .received
      ExecError                            a Status that is no exit code: .status
      SignalRefused(PermissionError)       the container's user may not signal a process
      NotReady(TimeoutError)               wait_ready= saw no running container, or no pod of deploy/web runs
      StreamBroken(BrokenPipeError)        write after the process or the connection ended
      HalfCloseUnsupported(io.UnsupportedOperation)   v4 cannot end stdin
      TerminalError(io.UnsupportedOperation)          there is no terminal, here or there
      BufferFull(BufferError)              everything waits for a channel that nobody reads
      ReadTimeout(TimeoutError)            recv(timeout=)
      ProtocolError
        LocalProtocolError                 this side was asked for something the protocol forbids
        RemoteProtocolError                the peer did something the protocol forbids
      ProcessError(subprocess.CalledProcessError)                run(check=True)
      TimeoutExpired(subprocess.TimeoutExpired, TimeoutError)    run, wait, communicate
      CopyError(OSError)                   files could not be copied, or are not as they should be: .member .warnings
        NoSuchFile(FileNotFoundError)      there is nothing at the path in the pod
        UnsafeArchive                      what came from the pod would have been written elsewhere, or without end
        TruncatedTransfer                  less arrived than was sent: .received .expected

Where the standard library has an exception that a caller would expect, ours inherits from it too, so
``except subprocess.TimeoutExpired`` and ``except ConnectionError`` work. All of them can be pickled.
No message, repr or attribute carries a credential.

Threads: exceptions are values; share them freely.
"""

from __future__ import annotations

import errno as _errno
import io
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Optional


class KubewsError(Exception):
    """The root of every exception that kubews raises.

    Threads: a value, like every class in this module.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException pickles by calling cls(*args), which fails for constructors with keyword
        # arguments and drops what they set; OSError, a base of some, forgets args without its own
        # __init__. So neither constructor takes part.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[KubewsError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> KubewsError:
    exc = kind.__new__(kind, *args)
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


class ConfigError(KubewsError, ValueError):
    """A kubeconfig, a context, or the name of a target or of a port cannot be used."""


class CredentialsError(ConfigError):
    """A credential named by the configuration cannot be read or used."""


class AuthPluginError(CredentialsError):
    """A credential plugin of the kubeconfig gave no credentials. Nobody is asked without them.

    Args:
        message: what happened, with the command, the end of what it said, and the install hint.
        command: the program; its arguments may hold secrets and are not told.
        exit_code: how it ended (negative: by that signal), or None if it did not run to its end.
        stderr: the last part of what it wrote there, unless it wrote to the terminal itself.
        install_hint: of the kubeconfig.
    """

    def __init__(
        self,
        message: str,
        *,
        command: str = "",
        exit_code: Optional[int] = None,
        stderr: str = "",
        install_hint: str = "",
    ) -> None:
        super().__init__(message)
        self.command = command
        self.exit_code = exit_code
        self.stderr = stderr
        self.install_hint = install_hint


class ApiError(KubewsError):
    """The API server (or the kubelet behind it) answered with an HTTP error.

    Args:
        message: one line for a person, with the cure where there is one.
        code: the HTTP status code.
        reason: the reason of the Status (``"NotFound"``), else the HTTP reason phrase.
        status: the decoded ``metav1.Status`` of the body, or None if the body was none.
        body: the text of the body, at most 64 KiB.
        retry_after: seconds from the ``Retry-After`` header, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        reason: str = "",
        status: Optional[Mapping[str, Any]] = None,
        body: str = "",
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.status = status
        self.body = body
        self.retry_after = retry_after


class BadRequest(ApiError):
    """HTTP 400: the request cannot be carried out as it is, for example for want of a container name."""


class Unauthorized(ApiError):
    """HTTP 401: the server does not know who is asking."""


class Forbidden(ApiError):
    """HTTP 403: the user lacks a permission, or no offered subprotocol is known to the server."""


class NotFound(ApiError):
    """HTTP 404: no such pod, namespace or path."""


class TooManyRequests(ApiError):
    """HTTP 429: try again after ``retry_after`` seconds."""


class ServerError(ApiError):
    """HTTP 500 to 599; the kubelet answers so when the container is not running."""


class ConnectFailed(KubewsError, ConnectionError):
    """No connection could be made: DNS, TCP or TLS."""


class ConnectTimeout(ConnectFailed, TimeoutError):
    """No connection could be made, or no answer to the upgrade came, within the time limit."""


class PortRefused(KubewsError, ConnectionRefusedError):
    """Nothing in the pod answers on this port, or the forwarded connection failed there; with the server's text."""


class ConnectionLost(KubewsError, ConnectionError):
    """The connection ended before the Status that would have told how the process ended.

    What the process did is unknown: it may still run. Retrying is the caller's decision.

    Args:
        message: what happened, with pod, container and subprotocol.
        received: bytes received on each channel by name (``{"stdout": 4096}``).
        partial: what a call had gathered when the connection ended: bytes or str from a ``read``,
            a tuple of stdout and stderr from ``run`` and ``communicate``, else None.
    """

    def __init__(
        self,
        message: str,
        *,
        received: Optional[Mapping[str, int]] = None,
        partial: Any = None,
    ) -> None:
        super().__init__(message)
        self.received: Mapping[str, int] = received or {}
        self.partial = partial


class ExecError(KubewsError):
    """The server's final Status is not an exit code: the command could not start, or broke on the way.

    Args:
        message: the server's text, with pod and container.
        status: the decoded Status (empty if it could not be parsed).
        partial: the output that ``run`` or ``communicate`` had gathered, else None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Optional[Mapping[str, Any]] = None,
        partial: Any = None,
    ) -> None:
        super().__init__(message)
        self.status: Mapping[str, Any] = status or {}
        self.partial = partial


class SignalRefused(KubewsError, PermissionError):
    """The container's user may not send a signal to a process that has become another user's."""


class NotReady(KubewsError, TimeoutError):
    """The container did not run within the time that ``wait_ready=`` gave it, or has ended for good.

    Of ``deploy/web`` and the like: none of its pods runs.
    """


class StreamBroken(KubewsError, BrokenPipeError):
    """Written to a stream whose process or connection has ended."""


class HalfCloseUnsupported(KubewsError, io.UnsupportedOperation):
    """The negotiated subprotocol has no way to end stdin without ending the connection."""


class TerminalError(KubewsError, io.UnsupportedOperation):
    """A terminal is needed where there is none: of this process, or of the remote one."""


class BufferFull(KubewsError, BufferError):
    """A channel that nobody reads holds so much that the awaited one cannot be reached.

    Read the channel that the message names and call again. No channel has lost anything. But a call that
    gathers, such as ``readline()`` of a buffered or text stream, has dropped what it had of its line, as for
    every file whose read fails.
    """


class ReadTimeout(KubewsError, TimeoutError):
    """``recv(timeout=)`` saw no byte in time. Nothing was consumed."""


class ProtocolError(KubewsError):
    """Something that the protocol forbids."""


class LocalProtocolError(ProtocolError):
    """This side was asked to do something that the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The peer did something that the protocol forbids."""


class ProcessError(KubewsError, subprocess.CalledProcessError):
    """The command ended with an exit code other than 0 and ``check=True`` was given."""


class TimeoutExpired(KubewsError, subprocess.TimeoutExpired, TimeoutError):
    """The command did not end in time; ``stdout`` and ``stderr`` hold what had arrived, as bytes."""

    def __init__(
        self,
        cmd: Any,
        timeout: float,
        output: Optional[bytes] = None,
        stderr: Optional[bytes] = None,
    ) -> None:
        super().__init__(cmd, timeout, output, stderr)
        # OSError, behind TimeoutError, leaves this empty, and then a repr would say nothing.
        self.args = (cmd, timeout)


class CopyError(KubewsError, OSError):
    """Files could not be copied, or what arrived is not what was sent.

    Args:
        message: what happened, with the cure where there is one.
        member: the path that it is about, in the pod or here; empty if it is about all of them.
        warnings: what the remote tools have said on stderr, in lines.
        errno: of the error of the system here that it comes from, such as ``errno.ENOSPC``.
    """

    def __init__(
        self,
        message: str,
        *,
        member: str = "",
        warnings: Sequence[str] = (),
        errno: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.args = (message,)
        self.member = member
        self.warnings = tuple(warnings)
        self._errno = errno

    @property
    def errno(self) -> Optional[int]:  # type: ignore[override]  # what C keeps is lost by pickle and copy
        """The number of the system's error here, None if it was not one; ``ENOENT`` if nothing is there."""
        return self._errno

    @property
    def filename(self) -> Optional[str]:
        """The path that it is about."""
        return self.member or None

    def __str__(self) -> str:
        return str(self.args[0])


class NoSuchFile(CopyError, FileNotFoundError):
    """There is nothing at the path in the pod or here, or no directory for it to be in."""

    def __init__(self, message: str, *, member: str = "") -> None:
        super().__init__(message, member=member, errno=_errno.ENOENT)


class UnsafeArchive(CopyError):
    """What came from the pod would have been written outside of the destination, or without end."""


class TruncatedTransfer(CopyError):
    """Less arrived than was sent; nothing of it has the final name.

    Args:
        message: what happened.
        member: as for ``CopyError``.
        warnings: as for ``CopyError``.
        received: bytes that arrived.
        expected: bytes that should have, None if that is unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        member: str = "",
        warnings: Sequence[str] = (),
        received: int = 0,
        expected: Optional[int] = None,
    ) -> None:
        super().__init__(message, member=member, warnings=warnings)
        self.received = received
        self.expected = expected
