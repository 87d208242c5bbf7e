"""Processes that outlive the command that started them, found again by a file with their number."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .commands import program, search_path
from .errors import ClusterError
from .layout import MARK, Layout


class Daemon:
    """One program of a cluster.

    Args:
        layout: whose it is.
        name: of its log and of the file with its process number.
        argv: the program and its arguments.
        ready: returns True when it is of use; before, it returns False or raises anything.
        inside: returns a process in whose mount namespace it shall run; None: in ours.
        timeout: seconds until it must be ready.

    Threads: one at a time; methods that block say so.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        argv: Sequence[str],
        ready: Callable[[], bool],
        *,
        inside: Callable[[], int] | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.name = name
        self.log = layout.logs / f"{name}.log"
        self._layout = layout
        self._argv = list(argv)
        self._ready = ready
        self._inside = inside
        self._timeout = timeout
        self._pid_file = layout.pids / name

    def __repr__(self) -> str:
        return f"<{self.name} {self._layout.version}: {self.pid or 'not running'}>"

    @property
    def pid(self) -> int | None:
        """The number of its process, None if it does not run."""
        try:
            pid, started = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)  # if it is our child and dead, it is done with
        # Numbers are used again: the time of the start tells whether it is the same process.
        return int(pid) if started_at(int(pid)) == started else None

    def start(self) -> None:
        """Start it unless it runs, and wait until it is ready.

        Raises:
            ClusterError: it ended, or was not ready in time.

        Threads: blocks.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it unless it runs; do not wait."""
        if self.pid is not None:
            return
        argv = self._argv
        if self._inside is not None:
            argv = ["nsenter", f"--mount=/proc/{self._inside()}/ns/mnt", "--", *argv]
        environment = {**os.environ, "PATH": search_path(), MARK: str(self._layout.root)}
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # No Popen: it warns when it is forgotten while the process runs, which is the aim here.
            pid = os.posix_spawn(
                program(argv[0]),
                argv,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
        self._pid_file.write_text(f"{pid} {started_at(pid)}\n")

    def wait_ready(self) -> None:
        """Wait until it is of use.

        Raises:
            ClusterError: it ended, or was not ready in time.

        Threads: blocks.
        """
        end = time.monotonic() + self._timeout
        reason = "no answer"
        while self.pid is not None:
            try:
                if self._ready():
                    return
            except Exception as exc:  # whatever it is, it is not ready yet
                reason = str(exc) or type(exc).__name__
            if time.monotonic() > end:
                raise ClusterError(
                    f"{self.name} was not ready after {self._timeout:.0f} s ({reason}); see {self.log}"
                )
            time.sleep(0.1)
        raise ClusterError(f"{self.name} ended at its start; see {self.log}")

    def stop(self, timeout: float = 10.0) -> None:
        """End it by SIGTERM; if that takes too long, by SIGKILL.

        Threads: blocks.
        """
        if not self._signal(signal.SIGTERM, timeout):
            self.kill()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash does; ``start`` starts it again.

        Raises:
            ClusterError: it is still there.

        Threads: blocks until the process is gone.
        """
        if not self._signal(signal.SIGKILL, 10.0):
            raise ClusterError(f"{self.name} (process {self.pid}) survives SIGKILL")

    def _signal(self, number: int, timeout: float) -> bool:
        end = time.monotonic() + timeout
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while self.pid is not None:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        self._pid_file.unlink(missing_ok=True)
        return True


def started_at(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None if it is gone or a zombie.

    A process whose first thread has ended looks like a zombie while its others still run, with its
    sockets open: it is not gone.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is a name in parentheses that may have anything in it.
    fields = text.rpartition(")")[2].split()
    dead = fields[0] in "ZX" and int(fields[17]) <= 1
    return None if dead else fields[19]


def marked(layout: Layout) -> list[int]:
    """Return all processes with the cluster's mark: its daemons, and what these have started."""
    mark = f"{MARK}={layout.root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if mark in variables and started_at(int(entry.name)) is not None:
                found.append(int(entry.name))
    return found


def kill_all(find: Callable[[], list[int]], what: str, timeout: float = 15.0) -> None:
    """Kill processes until none are found.

    Args:
        find: returns those that are left.
        what: what they are, for the error.
        timeout: seconds.

    Raises:
        ClusterError: some are still there.

    Threads: blocks.
    """
    end = time.monotonic() + timeout
    while pids := find():
        if time.monotonic() > end:
            raise ClusterError(f"{what} do not end: processes {pids}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
