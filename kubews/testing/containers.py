"""Containers: a directory, a process for the command, and the commands that are executed in it.

Threads: safe.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import select
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from kubews.testing.attachments import STDERR, STDOUT, Attachment, Attachments
from kubews.testing.containerlog import STREAMS, ContainerLog
from kubews.testing.interactive import NONE_OF_IT, Interactive
from kubews.testing.objects import Json
from kubews.testing.processes import CannotStart, ExecProcess, PodGone

_READ = 64 << 10
_DRAIN = 2.0  # seconds for output that nobody takes, after the end


class Pump:
    """Carry the output of a process to a log and to whoever is attached.

    Threads: one.
    """

    def __init__(self, process: ExecProcess, log: ContainerLog, attachments: Attachments) -> None:
        self._process, self._log, self._attachments = process, log, attachments

    @property
    def open(self) -> bool:
        """Whether there may be more to carry."""
        outputs = (self._process.stdout, self._process.stderr)
        return any(fd is not None for fd in outputs) or bool(self._attachments.blocked)

    def turn(self, timeout: Optional[float]) -> None:
        """Wait for something to do, or for the end of the process, and do it. Blocks."""
        process, poll = self._process, select.poll()
        blocked = self._attachments.blocked
        for fd in blocked:
            poll.register(fd, select.POLLOUT)
        outputs = [] if blocked else [(process.stdout, STDOUT), (process.stderr, STDERR)]
        channels = {fd: channel for fd, channel in outputs if fd is not None}
        for fd in channels:
            poll.register(fd, select.POLLIN)
        if timeout is None and process.exit_fd is not None:
            poll.register(process.exit_fd, select.POLLIN)
        elif timeout is None:
            timeout = 0.02  # no descriptor for the exit: it is looked for
        ready = poll.poll(None if timeout is None else timeout * 1000)
        self._attachments.flush()
        for fd, _ in ready:
            if fd in channels:
                self._read(fd, channels[fd])
                return  # before more is read, what was read must have been taken

    def _read(self, fd: int, channel: int) -> None:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last process has closed the terminal
        if data:
            with contextlib.suppress(OSError):  # the log's disk may be full
                self._log.write(STREAMS[channel - STDOUT], data)
            self._attachments.write(channel, data)
        elif channel == STDOUT:
            self._process.close_stdout()
        else:
            self._process.close_stderr()


class Container:
    """A container: its directory, its main process, and the commands executed in it.

    Args:
        name: the container's name.
        argv: its command; None for a container that runs without any process.
        directory: where its processes start.
        env: their environment.
        interactive: the input and the terminal of its own process.

    Threads: safe.
    """

    def __init__(
        self,
        name: str,
        argv: Optional[Sequence[str]],
        directory: Path,
        env: Mapping[str, str],
        interactive: Interactive = NONE_OF_IT,
    ) -> None:
        self.name = name
        self.argv = tuple(argv or ())
        self.directory = directory
        self.env = env
        self.interactive = interactive
        self._lock = threading.Lock()
        self._watcher: Optional[threading.Thread] = None
        self._execs: set[ExecProcess] = set()
        self._gone = False
        self.started = False
        self._restarts = 0
        #: What the run before this one has written, and how it ended.
        self.previous_log: Optional[ContainerLog] = None
        self._last_state: Json = {}
        self._renew()

    def _renew(self) -> None:
        self._id = secrets.token_hex(32)
        self._main: Optional[ExecProcess] = None
        self._attachments: Attachments = Attachments()
        self.log = ContainerLog(self.directory.with_suffix(".logs") / f"{self._restarts}.log")
        self.exit_code: Optional[int] = None
        self._finished = ""

    def start(self) -> None:
        """Start the container's command.

        Raises:
            OSError: it could not be started.
        """
        self.directory.mkdir(mode=0o755)
        self.started = True
        if self.argv:
            self._start_main()

    def restart(self) -> None:
        """End the container's own process, if it runs, and start its command again. Blocks.

        Raises:
            OSError: it could not be started.
            ValueError: it has never been started, or the pod is being deleted.
        """
        if not self.started or self._gone:
            raise ValueError(f"container {self.name} is not there to be started again")
        self._stop()
        self.wait()
        if self.exit_code is None:  # it has no process
            self._note_exit(137)
        self.log.end()
        self._last_state = self._terminated("")
        self.previous_log, self._restarts = self.log, self._restarts + 1
        self._renew()
        if self.argv:
            self._start_main()

    def _start_main(self) -> None:
        kind = self.interactive
        self.log.begin()
        try:
            main = ExecProcess(
                self.argv, cwd=self.directory, env=self.env,
                stdin=kind.stdin, stdout=True, stderr=not kind.tty, tty=kind.tty,
            )  # fmt: skip
        except CannotStart as exc:
            self.log.end()
            raise (
                exc.__cause__ if isinstance(exc.__cause__, OSError) else OSError(str(exc))
            ) from None
        self._main = main
        self._attachments.own(main)
        self._watcher = threading.Thread(
            target=self._watch, args=(main,), name=f"container {self.name}", daemon=True
        )
        self._watcher.start()

    def _watch(self, main: ExecProcess) -> None:
        """Carry the output of the container's own process; at its end end what was executed in it."""
        pump = Pump(main, self.log, self._attachments)
        while not main.exited:
            pump.turn(None)
        self._end(main)
        end = time.monotonic() + _DRAIN
        while pump.open and not self._gone and time.monotonic() < end:
            pump.turn(_DRAIN)
        self.log.end()
        main.reap()
        self._attachments.close()

    def _end(self, main: ExecProcess) -> None:
        """Kill everything in the container, as the end of its PID namespace does."""
        self._note_exit(main.exit_code)
        main.kill()
        for process in self.execs:
            process.kill()

    def _note_exit(self, code: Optional[int]) -> None:
        with self._lock:
            if code is not None and self.exit_code is None:
                self.exit_code = code
                now = datetime.datetime.now(datetime.timezone.utc)
                self._finished = now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def attach(self, stdin: bool) -> Attachment:
        """Attach to the container's own process.

        Args:
            stdin: whether input shall be taken, if the container takes any.
        """
        return self._attachments.attach(stdin and self.interactive.stdin, self.interactive)

    @property
    def running(self) -> bool:
        """Whether commands can be executed in the container."""
        if self._main is not None:
            self._note_exit(self._main.exit_code)
        return self.started and not self._gone and self.exit_code is None

    def log_is_over(self) -> bool:
        """Tell whether nothing more will be written to the log: the last output comes after the end."""
        return self.log.ended or (self._main is None and not self.running)

    @property
    def execs(self) -> list[ExecProcess]:
        """The commands that run in the container now."""
        with self._lock:
            return list(self._execs)

    def execute(self, argv: Sequence[str], **streams: bool) -> ExecProcess:
        """Start a command in the container.

        Raises:
            CannotStart: with the runtime's text.
            PodGone: the pod is being deleted.
        """
        process = ExecProcess(argv, cwd=self.directory, env=self.env, **streams)
        with self._lock:
            self._execs.add(process)
            gone = self._gone
        if gone:
            process.kill()
            self.finish(process)
            raise PodGone
        return process

    def finish(self, process: ExecProcess) -> int:
        """Reap a command and forget it; return its exit code. Blocks until it has ended."""
        code = process.reap()
        with self._lock:
            self._execs.discard(process)
        return code

    def kill(self) -> None:
        """Kill the container's process and every command in it."""
        with self._lock:
            self._gone = True
        self._stop()

    def _stop(self) -> None:
        if self._main is not None:
            self._main.kill()
        else:
            self.log.end()
            self._attachments.close()
        for process in self.execs:
            process.kill()

    def wait(self) -> None:
        """Reap the container's own process."""
        if self._watcher is not None:
            self._watcher.join()

    @property
    def _container_id(self) -> str:
        return f"containerd://{self._id}"

    def as_status(self, now: str) -> Json:
        """Return the container's entry in ``containerStatuses``."""
        running = self.running
        state: Json
        begun = self.started or self.exit_code is not None
        if running:
            state = {"running": {"startedAt": now}}
        elif begun:
            state = self._terminated(now)
        else:
            state = {"waiting": {"reason": "ContainerCreating"}}
        image = "localhost/kubews:none"
        return {
            "name": self.name, "state": state, "lastState": self._last_state, "ready": running,
            "restartCount": self._restarts, "image": image, "imageID": "", "started": running,
            "containerID": self._container_id if begun else "",
        }  # fmt: skip

    def _terminated(self, now: str) -> Json:
        code = self.exit_code or 0
        ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
        ended |= {"finishedAt": self._finished or now, "containerID": self._container_id}
        return {"terminated": ended}
