"""Containers as local processes in scratch directories. No sandbox.

A container is a directory that its processes start in, and a process for its command. Nothing is
isolated: absolute paths, ports and users are those of the host.

Threads: a ``Container`` may be used by any thread; an ``ExecProcess`` belongs to the thread that
serves the stream, except for ``kill``.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from kubews.testing import launch
from kubews.testing.forks import no_fork, not_for_forks


class CannotStart(Exception):
    """A command could not be started; the text is what containerd and runc would say."""


class PodGone(Exception):
    """The pod was deleted before the command could start."""


class ExecProcess:
    """A command that runs in a container, with its pipes or its pty.

    ``stdin``, ``stdout`` and ``stderr`` are non-blocking descriptors or None; with a tty the first
    two are the same. ``exit_fd`` becomes readable at the exit, or is None where the system has no
    such descriptor.

    Threads: one, except for ``kill``.
    """

    detaches = False  # it goes on when its client has gone

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        tty: bool = False,
    ) -> None:
        self.argv = tuple(argv)
        self._lock = threading.Lock()
        self._master: Optional[io.FileIO] = None
        self.stdin: Optional[int] = None
        self.stdout: Optional[int] = None
        self.stderr: Optional[int] = None
        if not argv:
            raise CannotStart("args must not be empty")

        def start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
            if tty:
                return self._start_tty(argv, cwd, env)
            return launch.start(
                argv, cwd=cwd, env=env,
                stdin=_end(stdin), stdout=_end(stdout), stderr=_end(stderr),
            )  # fmt: skip

        try:
            self._popen = start(argv)
        except (OSError, ValueError) as exc:  # ValueError: a NUL in an argument
            if (instead := launch.failing(argv, cwd, env, exc)) is None:
                raise CannotStart(launch.why(argv[0], cwd, exc)) from exc
            self._popen = start(instead)
        self.pid = self._popen.pid
        self._take_ends(stdin)
        self._exit = _exit_descriptor(self.pid)
        self.exit_fd = None if self._exit is None else self._exit.fileno()

    def _take_ends(self, stdin: bool) -> None:
        master, popen = self._master, self._popen
        if master is not None:
            self.stdin, self.stdout = master.fileno() if stdin else None, master.fileno()
        else:
            self.stdin = None if popen.stdin is None else popen.stdin.fileno()
            self.stdout = None if popen.stdout is None else popen.stdout.fileno()
            self.stderr = None if popen.stderr is None else popen.stderr.fileno()
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.set_blocking(fd, False)

    def _start_tty(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with no_fork:
            master, slave = os.openpty()
            self._master = not_for_forks(io.FileIO(master, "r+"))
            try:
                return launch.start(
                    argv, cwd=cwd, env={"TERM": "xterm", **env},
                    stdin=slave, stdout=slave, stderr=slave, terminal=os.ttyname(slave),
                )  # fmt: skip
            except BaseException:
                self._master.close()
                raise
            finally:
                os.close(slave)

    @property
    def exited(self) -> bool:
        """Whether the process has ended (it is not reaped by asking)."""
        return self.exit_code is not None

    @property
    def exit_code(self) -> Optional[int]:
        """The exit code, of death by signal n 128 + n as containerd reports it; None while it runs."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with self._lock:
            code = self._popen.returncode
            if code is not None:
                return code if code >= 0 else 128 - code
            ended = os.waitid(os.P_PID, self.pid, flags)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal; without one, or with a zero, nothing happens."""
        if self._master is not None and width and height:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close_stdin(self) -> None:
        """Give the process the end of its input. On a tty nothing can be closed."""
        if self._popen.stdin is not None:
            _close(self._popen.stdin)
        self.stdin = None

    def close_stdout(self) -> None:
        """Forget the process's output, after its end was read."""
        if self._popen.stdout is not None:
            _close(self._popen.stdout)
        self.stdout = None

    def close_stderr(self) -> None:
        """Forget the process's error output, after its end was read."""
        if self._popen.stderr is not None:
            _close(self._popen.stderr)
        self.stderr = None

    def kill(self) -> None:
        """Kill the process and its group, unless it was reaped already. Any thread."""
        with self._lock:
            # Not reaped: the id is still ours, and nobody else's group can be hit.
            if self._popen.returncode is None:
                _kill_group(self.pid)

    def reap(self) -> int:
        """Wait for the end, free everything and return the exit code. Blocks until the end."""
        if not self.exited:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            code = self._popen.wait()
        self.close_stdin()
        self.close_stdout()
        self.close_stderr()
        for file in (self._master, self._exit):
            if file is not None:
                file.close()
        self._master = self._exit = self.exit_fd = None
        return code if code >= 0 else 128 - code


def _end(wanted: bool) -> int:
    return subprocess.PIPE if wanted else subprocess.DEVNULL


def _exit_descriptor(pid: int) -> Optional[io.FileIO]:
    try:
        with no_fork:
            return not_for_forks(io.FileIO(os.pidfd_open(pid)))
    except (AttributeError, OSError):
        return None  # not Linux, or not allowed here


def _close(pipe: object) -> None:
    with contextlib.suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
