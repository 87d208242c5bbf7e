"""Popen: a process in a pod."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews import redirection
from kubews.client import Client
from kubews.command import Args, StrOrBytesPath, command, cure
from kubews.communicate import Communicating, has_descriptor
from kubews.copier import InputCopier, OutputCopier
from kubews.errors import (
    ConnectionLost,
    ExecError,
    HalfCloseUnsupported,
    StreamBroken,
    TerminalError,
    TimeoutExpired,
)
from kubews.protocol.channels import RESIZE, STDERR, STDIN, Channels, window_size
from kubews.protocol.channels import STDOUT as STDOUT_CHANNEL
from kubews.session import open_exec
from kubews.signals import Tree
from kubews.streams import Stream
from kubews.targets import Target, target_of
from kubews.transport import forks
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.wait import Expired, nothing
from kubews.userfiles import InputFile, OutputFile, Sink, Source, terminal_size
from kubews.wrappers import BUFFER_SIZE, ReadStream, TextReadStream, TextWriteStream

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

CompletedProcess = subprocess.CompletedProcess
CalledProcessError = subprocess.CalledProcessError
SubprocessError = subprocess.SubprocessError

# As subprocess: the time that a command gets to end after Ctrl-C.
_CTRL_C_GRACE = 0.25


class Popen(Communicating):
    """A process in a pod.

    The arguments, attributes and methods that ``subprocess.Popen`` has too mean the same. What differs:
    ``stdin=None`` is no input (and not this process's own), ``env`` adds to the container's variables,
    and text is UTF-8 by default, because the remote locale is not ours.

    Args:
        args: a list of strings or paths; with ``shell=True`` a string.
        bufsize: of stdout and stderr in bytes; -1 is 64 KiB, 0 gives the raw ``Stream``.
        pod: a name such as ``web-0`` or ``deploy/web``, or a ``Pod``.
        namespace: of the pod, by default the context's.
        container: by default as kubectl chooses.
        client: by default a new one from the current configuration.
        stdin: PIPE, DEVNULL, a file object or a descriptor to read from.
        stdout: PIPE, DEVNULL, a file object or a descriptor; None copies to this process's stdout.
        stderr: as ``stdout``; STDOUT merges it into stdout in the order of arrival.
        shell: let the container's ``sh -c`` interpret ``args``.
        cwd: directory in the container (needs ``sh`` there).
        env: variables to add (needs ``env`` in the container).
        close_fds: True, as no descriptor of this process can reach a pod.
        universal_newlines: the old name of ``text``.
        text: give and take str.
        encoding: of text, and turns it on; by default UTF-8.
        errors: how to treat what is not text, and turns it on.
        tty: give the process a terminal; stderr then arrives on stdout, and the end of the input is what
            Ctrl-D sends. If its output goes to a terminal here (``stdout=None``), it has the size of that,
            which is left alone otherwise: ``Pod.shell`` lends it, and ``resize`` tells another size.
        signals: start the command so that ``send_signal``, ``terminate``, ``kill`` and ``end`` reach it and what
            it has started, and end it with all that when the ``with`` block is left before it has ended.
            ``pid`` is then its process id in the container. Needs ``sh`` there; a program that is missing is
            then exit code 127. See ``kubews.signals``.
        request_stdin: ask for a stdin that is never written. Kata runtimes end a command without one
            after its first output (kata-containers #13640).
        wait_ready: seconds to wait for the container to run; None does not wait.
        connect_timeout: seconds for the connection; the client's (30) holds as well.

    Raises:
        ApiError: the server refused.
        ConnectFailed: it could not be reached.
        NotReady: ``wait_ready`` was not enough.
        HalfCloseUnsupported: ``stdin`` is a file, and the server (v4) could not be told of its end. The
            command has started, and its connection is closed.

    Threads: any; ``communicate`` is for one at a time. The constructor blocks.
    """

    _executes = True  # a command, and so is not attached to what runs

    def __init__(
        self,
        args: Args,
        bufsize: Optional[int] = -1,
        *,
        pod: Union[str, Target],
        namespace: Optional[str] = None,
        container: Optional[str] = None,
        client: Optional[Client] = None,
        stdin: InputFile = None,
        stdout: OutputFile = None,
        stderr: OutputFile = None,
        shell: bool = False,
        cwd: Optional[StrOrBytesPath] = None,
        env: Optional[Mapping[str, str]] = None,
        close_fds: bool = True,
        universal_newlines: Optional[bool] = None,
        text: Optional[bool] = None,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        tty: bool = False,
        signals: bool = False,
        request_stdin: bool = False,
        wait_ready: Optional[float] = None,
        connect_timeout: Optional[float] = None,
    ) -> None:
        # Whatever can be refused here is refused before the command runs.
        argv = command(args, shell=shell, cwd=cwd, env=env)
        if text is not None and universal_newlines is not None and text != universal_newlines:
            raise ValueError("text and universal_newlines are the same and cannot differ")
        if not close_fds:
            raise TypeError(
                "close_fds can only be True: no descriptor of this process can reach a pod"
            )
        bufsize = -1 if bufsize is None else bufsize  # as subprocess does
        redirection.check(stdin, stdout, bufsize, encoding, errors)
        self.args = args
        self.pid: Optional[int] = None
        self._rests = {}
        self._text = bool(text or universal_newlines or encoding or errors)
        self._encoding, self._errors = encoding, errors
        self._raw_stdin = nothing
        self._tty = tty
        self._lock = threading.RLock()
        # Whether the caller was told of an end without an exit code, or has closed this and so does not
        # want to know: leaving the block need not tell it then.
        self._told = False
        self._copiers: list[OutputCopier] = []
        self._input: Optional[InputCopier] = None
        self.pod = target_of(pod, namespace, container, client)
        with contextlib.ExitStack() as held:
            source = redirection.source_of(stdin, encoding, errors, held)
            sinks = [
                redirection.sink_of(stdout, sys.stdout, encoding, errors, held),
                # With a terminal there is no stderr to copy.
                redirection.sink_of(DEVNULL if tty else stderr, sys.stderr, encoding, errors, held),
            ]
            if wait_ready is not None:
                self.pod = self.pod.wait_ready(wait_ready)
            deadline = Deadline(connect_timeout)
            # Of deploy/web it is one pod from now on; what this process is asked later is asked of it.
            self.pod = self.pod.pin(deadline)
            if signals:
                self._tree = Tree(self.pod)
                argv = self._tree.wrap(argv)
            self._session = open_exec(
                self.pod,
                argv if self._executes else None,
                # With a terminal always: where v4 is spoken, the output may end with an input that is
                # not asked for (wsstream ends that at once, and containerd's ExecIO.Attach then both).
                stdin=request_stdin or tty or stdin not in (None, DEVNULL),
                merged=stderr is STDOUT,
                tty=tty,
                deadline=deadline,
                codec=Channels if self._tree is None else self._tree.codec,
            )
            self._connection = self._session.connection
            held.callback(self._connection.close)
            if self._tree is not None:
                held.callback(self._end_unfinished)
                self.pid = self._tree.wait_started(deadline)
            self._wire_up(stdin, stdout, stderr, bufsize, source, sinks)
            if tty and stdout is None and (size := terminal_size(sys.stdout)):
                with contextlib.suppress(StreamBroken):  # it has ended already
                    self.resize(*size)  # of the terminal to which the output goes
            held.pop_all()  # the copiers close the files, and the user the connection
        forks.tell(self)

    def _wire_up(
        self,
        stdin: InputFile,
        stdout: OutputFile,
        stderr: OutputFile,
        bufsize: int,
        source: Optional[Source],
        sinks: list[Optional[Sink]],
    ) -> None:
        if stdin is PIPE:
            raw = Stream(self._session, STDIN)
            self.stdin, self._raw_stdin = raw, weakref.ref(raw)
            if self._text:
                self.stdin = TextWriteStream(raw, self._encoding, self._errors, bufsize == 1)
        elif source is not None:
            self._need_half_close()
            self._input = InputCopier(self._connection, STDIN, source)
        self.stdout = self._output(STDOUT_CHANNEL, stdout is PIPE, bufsize, sinks[0])
        if stderr is not STDOUT and not self._tty:
            self.stderr = self._output(STDERR, stderr is PIPE, bufsize, sinks[1])

    def _output(self, channel: int, piped: bool, bufsize: int, sink: Optional[Sink]) -> Any:
        pipe = self._connection.pipes[channel]
        if piped:
            raw = Stream(self._session, channel, pipe)
            size = BUFFER_SIZE if bufsize in (-1, 1) else bufsize
            if self._text:
                return TextReadStream(raw, size, self._encoding, self._errors)
            return ReadStream(raw, size) if size else raw
        if sink is None:
            pipe.discard()
        else:
            self._copiers.append(OutputCopier(self._connection, pipe, sink))
        return None

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<kubews.{name}: returncode: {self._returncode} args: {self.args!r} {self.pod!r}>"

    @property
    def returncode(self) -> Optional[int]:
        """The exit code once ``poll``, ``wait`` or ``communicate`` has seen it, else None."""
        return self._returncode

    @property
    def tty(self) -> bool:
        """Whether the process has a terminal."""
        return self._tty

    @property
    def container(self) -> Optional[str]:
        """The container, or None if the pod has only one and the server chose it."""
        return self.pod.container

    def poll(self) -> Optional[int]:
        """Return the exit code, None while the process runs or its output is being copied to files.

        Raises:
            ConnectionLost: how the process ended will never be known.
            ExecError: it could not start, or broke on the way.
            Exception: of a file to which its output was to be copied.

        Threads: does not block.
        """
        if self._returncode is None and self._connection.status.done():
            code = self._exit_code(NEVER)
            # A local process has ended when its last byte is written.
            with contextlib.suppress(Expired):
                self._record(code, Deadline(0))
        return self._returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the process to end; what is copied to files is then copied.

        Args:
            timeout: seconds; None for ever.

        Returns:
            The exit code; 128 + n for a process that signal n has killed.

        Raises:
            TimeoutExpired: it still runs.
            ConnectionLost: how it ended will never be known.
            ExecError: it could not start, or broke on the way.
            Exception: of a file to which its output was to be copied.

        Threads: blocks.
        """
        try:
            deadline = Deadline(timeout)
            code = self._exit_code(deadline, explain=True)
            self._record(code, deadline)
            return code
        except Expired as exc:
            raise TimeoutExpired(self.args, timeout or 0.0) from exc

    def _exit_code(self, deadline: Deadline, *, explain: bool = False) -> int:
        try:
            status = self._connection.status.get(deadline)
        except ConnectionLost:
            self._told = True
            # A file of the user that failed is the cause, and the lost connection its effect.
            for copier in (*self._copiers, self._input):
                if copier is not None and copier.done.done():
                    copier.done.get(NEVER)
            raise
        if status.exit_code is None:
            self._told = True
            message = f"{self._connection.where}: {status.message}{cure(status.message)}"
            # Servers of 1.30 to 1.35 agree to the upgrade before they look for the container.
            if explain and "container not found" in message:
                hint = self.pod.hint(message, deadline)
                message += f". {hint}" if hint else ""
            raise ExecError(message, status=status.document)
        return status.exit_code

    def resize(self, rows: int, cols: int, *, redraw: bool = False) -> None:
        """Tell the size of the terminal; whoever runs in it gets SIGWINCH.

        Args:
            rows: lines; what is out of range becomes 1 or 65535.
            cols: columns, likewise.
            redraw: make a program that knows this size already draw its screen again.

        Raises:
            TerminalError: the process has no terminal.
            StreamBroken: the process or the connection has ended.

        Threads: any; does not block. Of sizes that wait to go out only the newest is sent.
        """
        if not self._tty:  # a server of 1.30 and later would never read a byte again
            raise TerminalError(
                f"{self._connection.where}: the process has no terminal: it needs tty=True, "
                "or tty: true in the pod's spec"
            )
        self._connection.send_latest(RESIZE, window_size(rows, cols, redraw=redraw))

    def close(self, timeout: Optional[float] = 1.0) -> None:
        """Close the connection and the streams; whoever reads or writes is woken.

        The remote process is not ended by that: its stdin ends, and its output goes nowhere. See ``end``.

        Args:
            timeout: seconds to say goodbye to the server.

        Threads: blocks up to ``timeout``; may be called from several, and again.
        """
        self._told = True
        # First the connection: a wrapper cannot be closed while somebody reads through it.
        self._connection.close(timeout)
        for stream in (self.stdin, self.stdout, self.stderr):
            _close(stream)

    def __enter__(self) -> Self:
        return self

    def if_forgotten(self, words: str) -> None:
        """Have the warning about a process that nobody has waited for say something else.

        Threads: any; does not block.
        """
        self._session.forgotten = words

    def forget(self) -> None:
        """Cut the connection in a finalizer of what holds this; the warning follows.

        Threads: any, finalizers too; does not block.
        """
        self._session.forget()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            if kind is None:
                self._leave()
            elif issubclass(kind, KeyboardInterrupt) and self._tty and self.stdin is not None:
                self._interrupt()
        finally:
            try:
                self._end_unfinished(pipe for _, pipe in self._outputs() if pipe is not None)
            finally:
                # After an exception nobody wants to wait for a server that may not answer.
                self.close(1.0 if kind is None else 0.0)

    def _leave(self) -> None:
        for stream, pipe in self._outputs():
            if pipe is not None and not has_descriptor(stream, pipe):
                pipe.close()  # first, for a wrapper cannot be closed while somebody reads through it
        for stream in (self.stdout, self.stderr, self.stdin):
            _close(stream)
        if self._told:
            return
        # What SIGPIPE does to a local process that writes on: the session ends, without an exit code.
        self._connection.hang_up_when_unwanted()
        try:
            self.wait()
        except ConnectionLost:
            if not self._connection.closed_here:
                raise

    def _after_fork(self) -> None:
        # Whoever was inside exists only in the parent.
        self._lock = threading.RLock()
        self._communicating = False

    def _interrupt(self) -> None:
        try:
            self._connection.press(STDIN, b"\x03")
            self._connection.status.get(Deadline(_CTRL_C_GRACE))
        except (TimeoutError, StreamBroken, ConnectionLost):
            pass


def _close(stream: Any) -> None:
    try:
        if stream is not None:
            stream.close()
    except HalfCloseUnsupported:  # a ValueError by way of io.UnsupportedOperation
        raise
    except ValueError:
        pass  # a wrapper that the user has detached
    except RuntimeError:
        # This is a signal handler, and the thread is inside the wrapper.
        getattr(stream, "_stream", stream).close()
