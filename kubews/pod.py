"""Pod: one handle for everything that can be done in a pod."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Optional, overload

from kubews import process
from kubews.command import Args, StrOrBytesPath
from kubews.podfiles import PodFiles
from kubews.popen import Popen
from kubews.served import Behind, Served
from kubews.transport.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer, Unpack

    from kubews.attach import Attached
    from kubews.forwarder import ForwardEvent
    from kubews.logstream import Logs
    from kubews.options import (
        BytesLogOptions,
        BytesOptions,
        EncodedLogOptions,
        EncodedOptions,
        LogOptions,
        Options,
        TextLogOptions,
        TextOptions,
    )
    from kubews.podsocket import PodSocket
    from kubews.portforward import PortForward
    from kubews.ports import Port
    from kubews.userfiles import InputFile, OutputFile


class Pod(PodFiles, Served):
    """A pod of a cluster, or what stands for one; ``client.pod("web-0")`` makes a handle.

    Making it asks nothing of the server. ``namespace``, ``kind``, ``name``, ``container`` and ``client``
    are attributes; ``get()`` reads the pod's object. A handle of ``deploy/web`` finds a pod each time
    something is opened; ``pin()`` returns a handle of the one that it would find now.

    Threads: any.
    """

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[TextOptions],
    ) -> subprocess.CompletedProcess[str]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[EncodedOptions],
    ) -> subprocess.CompletedProcess[str]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[Buffer] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[BytesOptions],
    ) -> subprocess.CompletedProcess[bytes]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[Options],
    ) -> subprocess.CompletedProcess[Any]: ...

    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[Options],
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command and wait for it; see ``kubews.run``.

        Threads: blocks.
        """
        return process.run(
            args,
            pod=self,
            input=input,
            capture_output=capture_output,
            timeout=timeout,
            check=check,
            **options,
        )

    def _behind(self, port: Optional[Port], deadline: Deadline) -> Behind:
        if port is None:  # then the server chooses
            name, number = self.resolve(deadline).pod_name, ""
        else:
            name, given = self.resolve_port(port, deadline)
            number = str(given)
        return Behind(self.client, "pods", self.namespace, name, number)

    def popen(self, args: Args, **options: Unpack[Options]) -> Popen:
        """Start a command; see ``kubews.Popen``.

        Threads: blocks until the server has agreed.
        """
        return Popen(args, pod=self, **options)

    def call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[Options]
    ) -> int:
        """Run a command and return its exit code; see ``kubews.call``.

        Threads: blocks.
        """
        return process.call(args, pod=self, timeout=timeout, **options)

    def check_call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[Options]
    ) -> int:
        """Run a command; return 0 or raise ProcessError; see ``kubews.check_call``.

        Threads: blocks.
        """
        return process.check_call(args, pod=self, timeout=timeout, **options)

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        timeout: Optional[float] = None,
        **options: Unpack[TextOptions],
    ) -> str: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        timeout: Optional[float] = None,
        **options: Unpack[EncodedOptions],
    ) -> str: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[Buffer] = None,
        timeout: Optional[float] = None,
        **options: Unpack[BytesOptions],
    ) -> bytes: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Any = None,
        timeout: Optional[float] = None,
        **options: Unpack[Options],
    ) -> Any: ...

    def check_output(
        self,
        args: Args,
        *,
        input: Any = None,
        timeout: Optional[float] = None,
        **options: Unpack[Options],
    ) -> Any:
        """Run a command and return its stdout, or raise ProcessError; see ``kubews.check_output``.

        Threads: blocks.
        """
        return process.check_output(args, pod=self, input=input, timeout=timeout, **options)

    def attach(
        self,
        *,
        stdin: InputFile = None,
        stdout: OutputFile = None,
        stderr: OutputFile = None,
        bufsize: int = -1,
        text: Optional[bool] = None,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        connect_timeout: Optional[float] = None,
    ) -> Attached:
        """Attach to the process that the container was started with.

        The pod's spec decides whether there is a terminal (then stderr arrives on stdout) and an input.
        What was written before is in the log. Leaving does not end the process, except that the end of
        the input is its end for a container with ``stdinOnce``; without that it ends the attachment.

        Args:
            stdin: as for ``Popen``; only for a container with ``stdin: true``.
            stdout: as for ``Popen``.
            stderr: as for ``Popen``.
            bufsize: as for ``Popen``.
            text: as for ``Popen``.
            encoding: as for ``Popen``.
            errors: as for ``Popen``.
            connect_timeout: seconds for all questions and the connection.

        Returns:
            A ``Popen``. Its ``returncode`` is the container's exit code, from the pod's status; if the
            attachment ends and the process does not, ``wait()`` returns None.

        Raises:
            ApiError: the server refused: no such pod or container, or a missing right (``get`` on ``pods``,
                ``get`` and ``create`` on ``pods/attach``).
            ConfigError: ``stdin`` was given, and the container has no input.
            ConnectFailed: the server could not be reached.
            NotReady: the container does not run, or has ended.

        Threads: blocks.
        """
        from kubews import attach  # not for programs that only run commands

        return attach.attach(
            self,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=bufsize,
            text=text,
            encoding=encoding,
            errors=errors,
            connect_timeout=connect_timeout,
        )

    def shell(
        self, command: Optional[Sequence[StrOrBytesPath]] = None, *, container: Optional[str] = None
    ) -> int:
        """Run a shell in the pod with this process's terminal, as ``kubectl exec -it`` does.

        Every key goes to it, Ctrl-C and Ctrl-D too; its terminal has the size of this one and follows its
        changes. The terminal here is as before when this ends, also by an exception or a signal.

        Args:
            command: a list to run in place of a shell; by default bash, and where there is none, sh. It gets
                this process's ``TERM``.
            container: by default the handle's.

        Returns:
            The exit code.

        Raises:
            TerminalError: stdin or stdout of this process is no terminal.
            ExecError: there is no such program in the image.
            ConnectionLost: how it ended will never be known.

        Threads: blocks; the main thread only, for signals come to it.
        """
        from kubews import terminal  # not for programs that only run commands

        return terminal.shell(self, command, container=container)

    def connect(
        self,
        port: Port,
        timeout: Optional[float] = None,
        *,
        wait_ready: Optional[float] = None,
    ) -> PodSocket:
        """Connect to a port of the pod: a real socket, without a local port.

        That nothing answers on the port is known only later: the first call that meets it raises
        ``PortRefused``, a ``ConnectionRefusedError``, with the server's text.

        Args:
            port: of the pod (of the Service, for ``svc/...``): its number or its name. It need not be declared.
            timeout: seconds to reach the pod, and the socket's timeout then, as with
                ``socket.create_connection``; None for the client's ``connect_timeout``, and a socket that
                waits for ever.
            wait_ready: seconds to wait first for the pod to run; None does not wait.

        Returns:
            A connected ``PodSocket``.

        Raises:
            ApiError: the server refused: no such pod, a missing right, a pod that does not run.
            ConfigError: there is no port of that name.
            ConnectFailed: the server could not be reached.
            NotReady: no pod of a Deployment, Service and so on runs, or ``wait_ready`` was not enough.

        Threads: blocks.
        """
        from kubews import portforward  # not for programs that only run commands

        if wait_ready is not None:
            self.wait_ready(wait_ready)
        return portforward.connect(self, port, timeout)

    def forward(
        self,
        remote: Port | Sequence[Port],
        local_port: int | Sequence[int] = 0,
        address: str | Sequence[str] = "127.0.0.1",
        *,
        multiplex: bool = False,
        on_event: Optional[Callable[[ForwardEvent], None]] = None,
        timeout: Optional[float] = None,
        wait_ready: Optional[float] = None,
    ) -> PortForward:
        """Listen at a local port for connections to a port of the pod.

        ::

            with pod.forward(80) as forward:
                urllib.request.urlopen(forward.url)

        It listens when this returns. Each local connection is for itself: one that the pod refuses is reset,
        with its error in ``.errors``, and the others go on. Servers before 1.31 connect to the port once when it
        begins, and end that.

        Args:
            remote: number or name of the port in the pod (of the Service, for ``svc/...``), or several.
            local_port: where to listen, one for each of ``remote``; 0 lets the kernel pick.
            address: IP addresses of this machine to listen at, or ``localhost`` for 127.0.0.1 and ::1.
            multiplex: whether local connections share one WebSocket, where the server knows how to (Kubernetes
                1.31 and later). Then each opens faster, but one whose program does not read stops the
                others, because the protocol has no windows.
            on_event: called with each ``ForwardEvent``, in the thread that serves all; must not block.
            timeout: seconds until the pod must be reached.
            wait_ready: seconds to wait first for a pod to run; None does not wait.

        Returns:
            A ``PortForward`` with ``.local_port``, ``.address``, ``.url`` and ``.errors``; close it, or use
            it in a ``with`` block.

        Raises:
            ApiError: the server refused: no such pod, a missing right, a pod that does not run.
            ConfigError: there is no port of that name, or an address is none.
            ConnectFailed: the server could not be reached.
            NotReady: see ``connect``.
            OSError: a local port is in use.

        Threads: blocks.
        """
        from kubews.portforward import PortForward

        if wait_ready is not None:
            self.wait_ready(wait_ready)
        return PortForward(
            self,
            remote,
            local_port,
            address,
            multiplex=multiplex,
            on_event=on_event,
            timeout=timeout,
        )

    @overload
    def logs(self, **options: Unpack[BytesLogOptions]) -> Logs[bytes]: ...

    @overload
    def logs(self, **options: Unpack[TextLogOptions]) -> Logs[str]: ...

    @overload
    def logs(self, **options: Unpack[EncodedLogOptions]) -> Logs[str]: ...

    @overload
    def logs(self, **options: Unpack[LogOptions]) -> Logs[Any]: ...

    def logs(self, **options: Any) -> Logs[Any]:
        """Read the log of a container, or follow it.

        ::

            with pod.logs(follow=True, tail=10, text=True) as log:
                for line in log:
                    ...
            print(log.reason, log.exit_code)

        A log that is followed goes on where it was cut, each line once, until the container has ended; that
        needs ``get`` on ``pods``, too. Lines that the node has rotated away meanwhile are in nobody's
        hands: ``gaps`` tells where.

        Args:
            **options: ``container``, by default as for ``run``; ``follow``; ``previous``, the run before the last
                restart; ``timestamps``, the node's time before each line; ``tail``, lines from the end;
                ``since``, seconds before now or an aware datetime, to the second; ``limit_bytes``;
                ``insecure_skip_tls_verify_backend``, of a kubelet whose certificate cannot be verified.
                ``all_containers`` merges those of every container by time; ``prefix`` begins
                each line with ``[pod/web-0/app]``; ``ignore_errors`` goes on with the others when one cannot be
                opened or is lost, and keeps its error in ``ignored``.
                ``text``, ``encoding`` and ``errors`` as for ``Popen``.
                ``patience``: seconds to try to go on after a cut (60); ``wait_ready``: seconds to wait first for a
                pod or a container that is not there yet; ``connect_timeout``: for the questions and the connection.

        Returns:
            The lines, with ``readline``, ``read`` and ``close``.

        Raises:
            BadRequest: the container waits to start, or there is no run before this one.
            ApiError: the server refused: no such pod or container, or a missing right (``get`` on ``pods/log``).
            NotReady: no node has been chosen yet, or there is no pod of a Deployment and so on.
            ConnectFailed: the server could not be reached.
            TypeError, ValueError: an option cannot be.
            LookupError: there is no such encoding.

        Threads: blocks until the server has agreed.
        """
        from kubews import podlogs  # not for programs that only run commands

        return podlogs.of_pod(self, **options)
