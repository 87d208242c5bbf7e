"""Attach: the process that a container was started with, as a ``Popen``."""

from __future__ import annotations

import io
import time
from typing import Any, Optional

from kubews import documents
from kubews.documents import Json
from kubews.errors import ConfigError, KubewsError, NotReady
from kubews.popen import DEVNULL, Popen
from kubews.targets import Target
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.wait import Expired
from kubews.userfiles import InputFile, OutputFile

_REPORT_SECONDS = 5.0  # for the kubelet, which reports the end of a container a moment later
# The same where the end of the input has ended the attachment, and hardly the process.
_LEFT_SECONDS = 1.0
_POLL = 0.2


class Attached(Popen):
    """A container's own process, seen from the attachment on; ``Pod.attach`` makes it.

    It is a ``Popen`` whose exit code is the container's, read from the pod's status when the attachment
    has ended, because an attachment brings none. ``wait`` returns None, and ``returncode`` stays None,
    where there is none to read: the process runs on (the attachment was left, the pod is deleted).
    A ``with`` block that is left before its PIPEs have ended leaves the attachment, and waits for nothing.

    Args:
        pod: one pod, with its container named.
        document: the pod's object as it was just read.
        options: those of ``Popen`` for streams and text.

    Threads: as ``Popen``; ``poll`` asks the API server once the attachment has ended.
    """

    _executes = False

    def __init__(self, pod: Target, document: Json, **options: Any) -> None:
        name = str(pod.container)
        spec = documents.container_spec(document, name)
        self._uid = documents.at(document, "metadata", "uid")
        self._container_id = documents.container_status(document, name).get("containerID")
        self._looked = False
        args = [*(spec.get("command") or ()), *(spec.get("args") or ())]
        # Asked for also where nobody writes: servers that speak v4 give a container with an input one
        # that ends at once, and with it the attachment. Not with stdinOnce, where leaving would end the
        # input of the process.
        self._input_goes_on = bool(spec.get("stdin")) and not spec.get("stdinOnce")
        super().__init__(
            args or [name],
            pod=pod,
            tty=bool(spec.get("tty")),
            request_stdin=self._input_goes_on,
            **options,
        )

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:  # type: ignore[override]
        """Wait for the attachment to end; what is copied to files is then copied.

        Args:
            timeout: seconds; None for ever.

        Returns:
            The container's exit code; None if it runs on, or its end is not known.

        Raises:
            TimeoutExpired: the attachment has not ended.
            ConnectionLost: the connection has; the process may run on.
            ExecError: the server could not attach.

        Threads: blocks; after the end for up to 5 s more, because the kubelet reports it late, and for 1 s if
            the end of the input was that of the attachment.
        """
        return super().wait(timeout)

    def _unreachable(self) -> io.UnsupportedOperation:
        return io.UnsupportedOperation(
            "the API server passes no signals to a process. A container's own is as a rule number 1 there, which "
            "hears only what it handles: pod.run(['kill', '1']), if the image has kill; else delete the pod"
        )

    def _leave(self) -> None:
        outputs = [pipe for _, pipe in self._outputs() if pipe is not None]
        # Otherwise close() follows: nobody reads on, and a process that others have started may run, and
        # say nothing, for years.
        if not outputs or any(pipe.ended for pipe in outputs):
            super()._leave()

    def _exit_code(self, deadline: Deadline, *, explain: bool = False) -> int:
        super()._exit_code(deadline, explain=explain)  # raises what is not the end of an attachment
        return self._code_of_container(deadline)  # type: ignore[return-value]  # None: see wait()

    def _code_of_container(self, deadline: Deadline) -> Optional[int]:
        """Read the exit code from the pod's status.

        The container's id tells which end is meant: each restart has its own, while times and counts
        of restarts cannot tell one restart from two.
        """
        if self._returncode is not None:
            return self._returncode
        # poll() and every call but the first look once.
        patience = Deadline(0.0 if self._looked or deadline is NEVER else self._patience())
        while True:
            runs, code = self._look(deadline.at_most(_REPORT_SECONDS))
            if not runs or patience.expired():
                self._looked = True
                return code
            if deadline.expired():
                raise Expired
            time.sleep(_POLL)

    def _patience(self) -> float:
        """Return for how many seconds an end that is not reported is waited for."""
        copied = self._input is not None and self._input.done.done()
        ended = copied or (self.stdin is not None and self.stdin.closed)
        return _LEFT_SECONDS if ended and self._input_goes_on else _REPORT_SECONDS

    def _look(self, deadline: Deadline) -> tuple[bool, Optional[int]]:
        """Return whether an end may still be reported, and the exit code."""
        try:
            pod = self.pod.get(deadline.remaining())
        except KubewsError:
            return False, None  # deleted, or not to be asked: nobody will tell
        return self.code_in(pod)

    def code_in(self, pod: Json) -> tuple[bool, Optional[int]]:
        """Look for the end of this container in a pod's document.

        Returns:
            Whether it may still be reported, and the exit code.

        Threads: does not block.
        """
        status = documents.container_status(pod, str(self.pod.container))
        if documents.at(pod, "metadata", "uid") != self._uid or not self._container_id:
            return False, None
        for key in ("state", "lastState"):
            name, container_id = str(self.pod.container), self._container_id
            ended = documents.end_of(pod, name, container_id, key)
            if ended is not None:
                return False, ended.get("exitCode")
        return status.get("containerID") == self._container_id, None


def attach(
    target: Target,
    *,
    stdin: InputFile = None,
    stdout: OutputFile = None,
    stderr: OutputFile = None,
    connect_timeout: Optional[float] = None,
    **text: Any,
) -> Attached:
    """Attach to a container's own process; see ``Pod.attach``.

    Threads: blocks.
    """
    deadline = Deadline(connect_timeout)
    pod = target.pin(deadline)
    document = pod.get(deadline.at_most(pod.client.connect_timeout).remaining())
    name = pod.container or documents.default_container(document)
    if name != pod.container:
        pod = pod.in_container(name)
    spec = documents.container_spec(document, name)
    if spec and not documents.runs(document, name):
        raise NotReady(f"cannot attach to {pod.where}: the pod {_state(document, name)}")
    if spec and stdin not in (None, DEVNULL) and not spec.get("stdin"):
        raise ConfigError(
            f"{pod.where} has no input: its spec lacks stdin: true, which only a new pod can get. "
            "Without stdin= its output can be read; run() and popen() start processes with an input"
        )
    return Attached(
        pod,
        document,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        connect_timeout=deadline.remaining(),
        **text,
    )


def _state(document: Json, name: str) -> str:
    if documents.is_over(document):
        return documents.state(document)
    return (
        f"{documents.state(document) or f'does not run {name}'}; wait_ready(SECONDS) waits for it"
    )
