"""What is meant to differ from subprocess: each row has its reason, and is true on both sides."""

from __future__ import annotations

import codecs
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support import in_thread, seconds

import kubews

Body = Callable[[Any], Any]


class Difference(NamedTuple):
    """One thing that both are asked for, and the answers."""

    body: Body
    subprocess: Any
    kubews: Any
    reason: str


def raised(call: Callable[[], Any]) -> Any:
    """The class of what a call raises, else what it returns."""
    try:
        return call()
    except Exception as exc:
        return type(exc)


def killed(sp: Any) -> int:
    return int(sp.call("kill -9 $$", shell=True))


def no_stdin(sp: Any) -> bytes:
    read, write = os.pipe()
    before = os.dup(0)
    os.write(write, b"of this process")
    os.close(write)
    os.dup2(read, 0)
    try:
        return bytes(sp.check_output(["cat"]))
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)


def environment(sp: Any) -> list[bytes]:
    """What is there but the variable that was given."""
    output = sp.check_output(["/usr/bin/env"], env={"ONE": "1"})
    lines = output.splitlines()
    lines.remove(b"ONE=1")
    return [line for line in lines if line.startswith(b"PATH=")]


def default_encoding(sp: Any) -> str:
    if sp is not subprocess:
        with sp.Popen(["true"], stdout=sp.PIPE, text=True) as process:
            return str(process.stdout.encoding)
    script = (
        "import subprocess as sp\n"
        "with sp.Popen(['true'], stdout=sp.PIPE, text=True) as process:\n"
        "    print(process.stdout.encoding)"
    )
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    name = subprocess.check_output([sys.executable, "-c", script], env=env, text=True)
    return codecs.lookup(name.strip()).name


def one_string(sp: Any) -> Any:
    return raised(lambda: sp.run("true").returncode)


def empty_list(sp: Any) -> Any:
    return raised(lambda: sp.run([]))


def missing_program(sp: Any) -> Any:
    return raised(lambda: sp.run(["/no/such/program"]))


def missing_directory(sp: Any) -> Any:
    return raised(lambda: sp.run(["true"], cwd="/no/such", stderr=sp.DEVNULL).returncode)


def missing_program_with_env(sp: Any) -> Any:
    env = {"A": "b"}
    return raised(lambda: sp.run(["/no/such"], env=env, stderr=sp.DEVNULL).returncode)


def local_argument(sp: Any) -> Any:
    return raised(lambda: sp.run(["true"], pass_fds=()).returncode)


def memory_output(sp: Any) -> Any:
    target = io.BytesIO()
    return raised(lambda: sp.run(["printf", "x"], stdout=target).returncode)


def memory_input(sp: Any) -> Any:
    return raised(lambda: sp.check_output(["cat"], stdin=io.BytesIO(b"x")))


def replaced_stdout(sp: Any) -> str:
    before, sys.stdout = sys.stdout, io.StringIO()
    try:
        sp.run(["true", "is silent"])
        sp.run(["printf", "seen"], stderr=sp.DEVNULL)
        return sys.stdout.getvalue()
    finally:
        sys.stdout = before


def stdin_is_raw(sp: Any) -> type:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        kind = io.RawIOBase if isinstance(process.stdin, io.RawIOBase) else type(process.stdin)
        process.communicate(b"")
        return kind


def has_pid(sp: Any) -> bool:
    with sp.Popen(["true"]) as process:
        process.wait()
        return process.pid is not None


def signal(sp: Any) -> Any:
    process = sp.Popen(["sleep", "20"], stdout=sp.PIPE)
    try:
        return raised(process.terminate)
    finally:
        if sp is subprocess:
            process.stdout.close()
            process.wait()
        else:
            process.close()


def communicate_twice(sp: Any) -> Any:
    with sp.Popen(["printf", "x"], stdout=sp.PIPE) as process:
        assert process.communicate() == (b"x", None)
        return raised(process.communicate)


def input_without_pipe(sp: Any) -> Any:
    with sp.Popen(["true"]) as process:
        return raised(lambda: process.communicate(b"x"))


def timeout_is_a_builtin(sp: Any) -> bool:
    return issubclass(sp.TimeoutExpired, TimeoutError)


def deadlock(sp: Any) -> bool:
    """Whether a program ends that writes everything before it reads anything."""
    process = sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, bufsize=0)

    def work() -> bytes:
        process.stdin.write(bytes(8 << 20))
        process.stdin.close()
        return bytes(process.stdout.read())

    working = in_thread(work)
    try:
        end = time.monotonic() + seconds(20 if sp is not subprocess else 0.3)
        while working.running and time.monotonic() < end:
            time.sleep(0.01)
        return not working.running
    finally:
        if sp is subprocess:
            process.kill()
            process.wait()
            raised(working.result)
            process.stdin.close()
            process.stdout.close()
        else:
            process.close()


def waiting_behind_output(sp: Any) -> Any:
    """wait() while nobody reads."""
    process = sp.Popen(["head", "-c", "6000000", "/dev/zero"], stdout=sp.PIPE)
    try:
        limit = seconds(20) if sp is not subprocess else 0.3
        return raised(lambda: process.wait(limit)) == 0
    finally:
        process.stdout.close()
        if sp is subprocess:
            process.wait()
        else:
            process.close()


def early_leaver(sp: Any) -> Any:
    """Leave the block in the middle of output that goes on, for longer than all buffers on the way."""
    with sp.Popen(["sh", "-c", "yes line | head -n 30000000"], stdout=sp.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
    return process.returncode


TABLE = {
    "killed by a signal": Difference(
        killed, -9, 137, "a Status has an exit code, and a runtime's is 128 and the number"
    ),
    "stdin=None": Difference(
        no_stdin,
        b"of this process",
        b"",
        "a stdin that nobody ends would hang the command; what is typed belongs to this process",
    ),
    "env": Difference(
        lambda sp: len(environment(sp)),
        0,
        1,
        "what the image sets, PATH above all, is not known here",
    ),
    "the encoding of text": Difference(
        default_encoding, "ascii", "utf-8", "the locale of this process says nothing about a pod"
    ),
    "a string without shell": Difference(
        one_string, 0, TypeError, "one string would be taken for the name of a program, far away"
    ),
    "an empty list": Difference(
        empty_list,
        IndexError,
        ValueError,
        "there is nothing to run, and the message says so",
    ),
    "a program that is not there": Difference(
        missing_program, FileNotFoundError, kubews.ExecError, "the server only has a text"
    ),
    "a directory that is not there": Difference(
        missing_directory, FileNotFoundError, 127, "the container's sh changes the directory"
    ),
    "a missing program with env": Difference(
        missing_program_with_env, FileNotFoundError, 127, "the container's env starts the program"
    ),
    "an argument about this machine": Difference(
        local_argument, 0, TypeError, "descriptors, users and sessions stay here"
    ),
    "output to memory": Difference(
        memory_output, io.UnsupportedOperation, 0, "no descriptor is needed"
    ),
    "input from memory": Difference(
        memory_input, io.UnsupportedOperation, b"x", "no descriptor is needed"
    ),
    "a replaced sys.stdout": Difference(
        replaced_stdout, "", "seen", "in a notebook the output belongs into the cell"
    ),
    "stdin is raw": Difference(
        stdin_is_raw,
        io.BufferedWriter,
        io.RawIOBase,
        "a buffer would be flushed, or lost, by a finalizer",
    ),
    "pid": Difference(has_pid, True, False, "the API does not tell it; signals=True does"),
    "signals": Difference(
        signal,
        None,
        io.UnsupportedOperation,
        "the API server passes none to a process; see signals=True",
    ),
    "communicate again": Difference(
        communicate_twice, ValueError, (b"x", None), "the results are kept: Ctrl-C loses nothing"
    ),
    "input without a pipe": Difference(
        input_without_pipe,
        (None, None),
        ValueError,
        "input that goes nowhere is a mistake",
    ),
    "TimeoutExpired is a TimeoutError": Difference(
        timeout_is_a_builtin, False, True, "the builtin that a caller would guess"
    ),
    "write everything, then read": Difference(
        deadlock, False, True, "what comes back is kept for who is busy writing"
    ),
    "wait behind a full pipe": Difference(
        waiting_behind_output, False, True, "the documented deadlock of Popen.wait"
    ),
    "leave in the middle": Difference(
        early_leaver,
        141,
        None,
        "SIGPIPE ends the process, and sh tells so; here the session ends, and nobody can",
    ),
}

NEEDS_HALF_CLOSE = {"input from memory", "stdin is raw", "write everything, then read"}


def rows() -> list[Any]:
    return [
        pytest.param(row, id=name, marks=[pytest.mark.half_close] * (name in NEEDS_HALF_CLOSE))
        for name, row in TABLE.items()
    ]


@pytest.mark.parametrize("row", rows())
def test_differences(row: Difference, ours: Any) -> None:
    assert row.reason
    assert row.subprocess != row.kubews
    assert row.body(subprocess) == row.subprocess
    assert row.body(ours) == row.kubews
