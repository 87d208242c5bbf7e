"""Run a program to its end: bounded in time, its output in a log file that errors name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClusterError

# The last is where Go's own archive is unpacked to.
_SYSTEM = (
    *("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"),
    "/usr/local/go/bin",
)


def search_path() -> str:
    """Return PATH with the directories of administration and of Go, which not every root has in it."""
    given = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join([*given, *(name for name in _SYSTEM if name not in given)])


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        ClusterError: there is none.
    """
    found = shutil.which(name, path=search_path())
    if found is None:
        where = "in PATH and in /usr/local/go/bin: https://go.dev/dl" if name == "go" else "in PATH"
        raise ClusterError(f"the program {name} is missing {where}")
    return found


def run(
    what: str,
    argv: Sequence[str],
    log: Path,
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program; append its output to a log.

    Args:
        what: in words, for the error.
        argv: the program and its arguments.
        log: the file that its output is appended to.
        timeout: seconds after which it is killed.
        cwd: where to run it.
        env: variables beside our own.

    Raises:
        ClusterError: it failed or took too long.

    Threads: blocks.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PATH": search_path(), **(env or {})}
    with open(log, "ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                [program(argv[0]), *argv[1:]],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as exc:
            raise ClusterError(f"{what} took more than {timeout:.0f} s; see {log}") from exc
    if done.returncode:
        raise ClusterError(f"{what} failed with exit code {done.returncode}; see {log}")


def succeeds(*argv: str, timeout: float = 30.0) -> bool:
    """Run a program whose output and reason do not matter; return whether it succeeded.

    Threads: blocks.
    """
    try:
        done = subprocess.run(
            [program(argv[0]), *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
