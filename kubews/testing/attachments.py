"""Attachments: who sees the output of a container's own process, besides its log.

Each gets what is written from its beginning on. As in containerd all of them are written to in turn,
so one whose client does not read stops the process and the others.

Threads: see each class.
"""

from __future__ import annotations

import io
import os
import threading
from typing import Optional

from kubews.testing.forks import no_fork, not_for_forks
from kubews.testing.interactive import Interactive
from kubews.testing.processes import ExecProcess

STDOUT, STDERR = 1, 2


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    with no_fork:
        reading, writing = os.pipe()
        for fd in (reading, writing):
            os.set_blocking(fd, False)
        return not_for_forks(io.FileIO(reading, "r")), not_for_forks(io.FileIO(writing, "w"))


def _copy(fd: int) -> io.FileIO:
    with no_fork:
        return not_for_forks(io.FileIO(os.dup(fd), "w"))


class Attachment:
    """One attachment, with the face of an ``ExecProcess`` to the stream that carries it.

    Args:
        owner: where it is registered.
        stdin: a copy of the container's own, which is closed here; None takes no input.
        once: whether the end of the input is that of the container's (``stdinOnce``). Else it is the end
            of the attachment (containerd: ``container_io.go: Attach``).

    Threads: one, that of the stream; the pump knows the other ends of its pipes only.
    """

    detaches = True
    exit_fd: Optional[int] = None
    exited = True  # with the end of the outputs there is nothing to wait for

    def __init__(self, owner: Attachments, stdin: Optional[io.FileIO], once: bool) -> None:
        self._owner = owner
        self._once = once
        self._takes_input = stdin is not None
        self._stdin = stdin
        self._out, self.writer_out = _pipe()
        self._err, self.writer_err = _pipe()
        self.stdin = None if stdin is None else stdin.fileno()
        self.stdout: Optional[int] = self._out.fileno()
        self.stderr: Optional[int] = self._err.fileno()

    def resize(self, width: int, height: int) -> None:
        """Set the size of the container's terminal, if it has one."""
        self._owner.resize(width, height)

    def refuse_input(self) -> None:
        """Take no input, so that its end is none either."""
        self._takes_input = False
        self._close_input()

    def close_stdin(self) -> None:
        """End the input of the container, or the attachment. Idempotent."""
        if not self._takes_input:
            return
        self._takes_input = False
        self._close_input()
        if self._once:
            self._owner.end_input()
        else:
            self.close_stdout()
            self.close_stderr()

    def _close_input(self) -> None:
        if self._stdin is not None:
            self._stdin.close()
        self._stdin = self.stdin = None

    def close_stdout(self) -> None:
        """Read no more of stdout."""
        self._out.close()
        self.stdout = None

    def close_stderr(self) -> None:
        """Read no more of stderr."""
        self._err.close()
        self.stderr = None

    def kill(self) -> None:
        """Nothing: the process is not the attachment's."""

    def close(self) -> None:
        """End it and free everything. Idempotent."""
        self._close_input()
        self.close_stdout()
        self.close_stderr()
        self._owner.remove(self)


class Attachments:
    """The attachments of one container.

    Threads: safe; ``write`` and ``flush`` are for the one that pumps the output.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._writers: dict[Attachment, dict[int, io.FileIO]] = {}
        self._pending: dict[io.FileIO, bytes] = {}
        self._closed = False
        self._main: Optional[ExecProcess] = None

    def attach(self, stdin: bool, kind: Interactive) -> Attachment:
        """Attach, with a descriptor for input of its own; after ``close`` the outputs have ended."""
        with self._lock:
            fd = None if self._main is None or self._closed else self._main.stdin
            own = _copy(fd) if stdin and fd is not None else None
            # A terminal has no end of input: leaving it is all that can be done.
            return self.add(own, kind.stdin_once and not kind.tty)

    def add(self, stdin: Optional[io.FileIO], once: bool) -> Attachment:
        """Attach; after ``close`` the outputs have ended."""
        attachment = Attachment(self, stdin, once)
        writers = {STDOUT: attachment.writer_out, STDERR: attachment.writer_err}
        with self._lock:
            self._writers[attachment] = writers
            if self._closed:
                self.remove(attachment)
        return attachment

    def remove(self, attachment: Attachment) -> None:
        """End the outputs of an attachment. Idempotent."""
        with self._lock:
            for writer in self._writers.pop(attachment, {}).values():
                self._pending.pop(writer, None)
                writer.close()

    def own(self, main: ExecProcess) -> None:
        """Say which process is the container's own; without one, attachments are silent."""
        self._main = main

    def resize(self, width: int, height: int) -> None:
        """Set the size of the container's terminal, if it has one."""
        with self._lock:
            if self._main is not None and not self._closed:
                self._main.resize(width, height)

    def end_input(self) -> None:
        """Give the container's own process the end of its input."""
        with self._lock:
            if self._main is not None and not self._closed:
                self._main.close_stdin()

    def write(self, channel: int, data: bytes) -> None:
        """Give output to everybody; call it only when nothing is ``blocked``. Does not block."""
        with self._lock:
            for writers in self._writers.values():
                self._pending[writers[channel]] = data
        self.flush()

    def flush(self) -> None:
        """Write what is left of the last output. Does not block."""
        with self._lock:
            for writer, data in list(self._pending.items()):
                try:
                    rest = data[writer.write(data) or 0 :]
                except OSError:
                    rest = b""  # it has been left
                if rest:
                    self._pending[writer] = rest
                else:
                    del self._pending[writer]

    @property
    def blocked(self) -> list[int]:
        """The descriptors to wait for before there can be more output."""
        with self._lock:
            return [writer.fileno() for writer in self._pending]

    def close(self) -> None:
        """End all attachments, and all that come. Idempotent."""
        with self._lock:
            self._closed = True
            for attachment in list(self._writers):
                self.remove(attachment)
