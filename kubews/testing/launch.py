"""Start the processes of pods as a container runtime does: whatever this process was told to ignore.

A process inherits which signals are ignored and blocked: below ``nohup``, a background job of a
shell, or a program that ignores SIGINT, a pod could not be interrupted. ``subprocess`` does not
undo that, and a ``preexec_fn``, which could, is not safe beside threads. So where there is something
to undo, or a terminal to take, a few lines of Python run in the new process before its program does.
They take about 12 ms; the usual case does without.

Threads: pure functions.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from kubews.testing.forks import no_fork, not_for_forks

# Python ignores these two itself, and subprocess puts them back.
_SIGNALS = signal.valid_signals() - {signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)}
_REPORT_MILLISECONDS = 10_000

# The session's leader has no terminal until it opens one: that makes it the controlling one. In the
# C locale an interpreter changes LC_CTYPE for its children, who are not to see it.
_LAUNCHER = """
import os, signal, sys
report, terminal, locale, *argv = sys.argv[1:]
for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_DFL)
    except OSError:
        pass
signal.pthread_sigmask(signal.SIG_SETMASK, ())
if terminal:
    os.close(os.open(terminal, os.O_RDWR))
os.environ.pop("LC_CTYPE", None)
if locale:
    os.environ["LC_CTYPE"] = locale[1:]
os.set_inheritable(int(report), False)
try:
    os.execvp(argv[0], argv)
except OSError as exc:
    os.write(int(report), b"%d" % exc.errno)
"""

_FAILING = """
import os, sys
os.write(2, os.fsencode(sys.argv[1]))
os._exit(1)
"""


def start(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
    terminal: str = "",
) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a session of its own, every signal at its default.

    Args:
        argv: program and arguments.
        cwd: where to start it.
        env: its environment.
        stdin: as for ``subprocess.Popen``, and so are the other two; pipes are unbuffered.
        stdout: see there.
        stderr: see there.
        terminal: the path of the terminal to be its controlling one.

    Raises:
        OSError: it could not be started.
        ValueError: an argument holds a NUL.

    Threads: any; blocks until the program runs.
    """
    if not argv[0]:
        raise FileNotFoundError(2, os.strerror(2), "")

    def run(program: Sequence[str], *pass_fds: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            program, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr,
            cwd=cwd, env=env, start_new_session=True, pass_fds=pass_fds,
        )  # fmt: skip

    with no_fork:
        if not terminal and _signals_are_default():
            return not_for_forks(run(argv))
        reading, writing = os.pipe()
        try:
            locale = "=" + env["LC_CTYPE"] if "LC_CTYPE" in env else ""
            words = [str(writing), terminal, locale, *argv]
            popen = run([sys.executable, "-I", "-S", "-c", _LAUNCHER, *words], writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return not_for_forks(_started(popen, reading, argv[0]))


def _started(popen: subprocess.Popen[bytes], reading: int, program: str) -> subprocess.Popen[bytes]:
    """Wait until the launcher has become the program, or has said why it cannot."""
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        # The end comes with the exec, unless a fork has a copy: then there is no news.
        report = os.read(reading, 16) if poll.poll(_REPORT_MILLISECONDS) else b""
    except BaseException:
        popen.kill()
        with popen:
            raise
    finally:
        os.close(reading)
    if report:
        with popen:  # reap it, close its pipes
            raise OSError(int(report), os.strerror(int(report)), program)
    return popen


def _signals_are_default() -> bool:
    ignored = any(signal.getsignal(number) == signal.SIG_IGN for number in _SIGNALS)
    return not ignored and not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def failing(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], exc: Exception
) -> Optional[list[str]]:
    """Return the command that fails in the place of one that the kernel refuses.

    What can be found and executed is started by runc, whatever is in it: the refusal (no format, no
    interpreter, a NUL in an argument) then comes from inside the container, on stderr, with exit code 1.
    None: runc would not have come so far.
    """
    program = argv[0]
    if "\0" in program or not cwd.is_dir():
        return None
    found = str(cwd / program) if "/" in program else shutil.which(program, path=env.get("PATH"))
    if not found or not os.path.isfile(found) or not os.access(found, os.X_OK):
        return None
    name = program if "/" in program else found
    reason = os.strerror(exc.errno or 0) if isinstance(exc, OSError) else os.strerror(errno.EINVAL)
    text = f"exec {name}: {reason.lower()}\n"
    return [sys.executable, "-I", "-S", "-c", _FAILING, text]


def why(program: str, cwd: Path, exc: Exception) -> str:
    """Return what containerd and runc say of a program that cannot be started."""
    quoted = f'unable to start container process: exec: "{program}": '
    reason = ((exc.strerror if isinstance(exc, OSError) else "") or str(exc)).lower()
    if not cwd.is_dir():
        return (
            f'unable to start container process: chdir to cwd ("{cwd}") set in config.json '
            "failed: no such file or directory"
        )
    if "/" not in program and isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        return quoted + "executable file not found in $PATH"
    if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        return quoted + f"stat {program}: {reason}"
    return quoted + reason
