"""run and its relatives: commands in pods, with the arguments and results of the standard subprocess."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Optional, cast, overload

from kubews.command import Args
from kubews.errors import ConnectTimeout, NotReady, ProcessError, TimeoutExpired
from kubews.popen import DEVNULL, PIPE, STDOUT, Popen
from kubews.transport.deadline import Deadline

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from kubews.options import BytesCall, Call, EncodedCall, TextCall


@overload
def run(
    args: Args,
    *,
    input: Optional[str] = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **options: Unpack[TextCall],
) -> subprocess.CompletedProcess[str]: ...


@overload
def run(
    args: Args,
    *,
    input: Optional[str] = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **options: Unpack[EncodedCall],
) -> subprocess.CompletedProcess[str]: ...


@overload
def run(
    args: Args,
    *,
    input: Optional[Buffer] = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **options: Unpack[BytesCall],
) -> subprocess.CompletedProcess[bytes]: ...


@overload
def run(
    args: Args,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **options: Unpack[Call],
) -> subprocess.CompletedProcess[Any]: ...


def run(
    args: Args,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    **options: Unpack[Call],
) -> subprocess.CompletedProcess[Any]:
    """Run a command in a pod and wait for it.

    Args:
        args: a list, or a string with ``shell=True``.
        input: bytes, or str in text mode, for stdin.
        capture_output: return stdout and stderr instead of copying them to this process's own.
        timeout: seconds for everything, the connection included.
        check: raise ProcessError for an exit code other than 0.
        **options: as for ``Popen``; ``pod`` is required. With ``tty=True`` and ``stdin=sys.stdin``, where that and
            stdout are this process's terminal, the command gets it, as with ``Pod.shell``.

    Returns:
        ``args``, ``returncode``, ``stdout`` and ``stderr``.

    Raises:
        TimeoutExpired: with the output so far. The connection is closed, and the process still runs, unless
            ``signals=True`` was given: then it is ended first, which may take some seconds more.
        ProcessError: with ``check``.
        ConnectionLost: how the process ended is unknown; ``partial`` has the output so far.
        ExecError: the command could not start, or broke on the way.

    Threads: blocks.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        # Nothing to send is no input at all, which servers that cannot end one can have, too; but the end
        # of a terminal's input is something to send.
        options["stdin"] = PIPE if input or options.get("tty") else DEVNULL
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        options["stdout"] = options["stderr"] = PIPE
    lent = _lend(options)
    deadline = Deadline(timeout)
    stdout = stderr = None
    with _start(args, timeout, deadline, options) as process:
        try:
            if lent:
                from kubews import terminal

                terminal.interact(process, detach_keys=None, timeout=deadline.remaining())
            else:
                stdout, stderr = process.communicate(input, timeout=deadline.remaining())
        except TimeoutExpired as exc:
            if timeout is None:
                raise  # of a file of the user
            # communicate() knows only what was left of the time.
            raise TimeoutExpired(args, timeout, exc.stdout, exc.stderr) from exc
        code = process.wait()
    if check and code:
        raise ProcessError(code, args, stdout, stderr)
    return subprocess.CompletedProcess(args, code, stdout, stderr)


def _lend(options: Call) -> bool:
    """Return whether the command is to get this process's terminal; if so, prepare its options."""
    stdin = options.get("stdin")
    if not options.get("tty") or stdin in (None, PIPE) or options.get("stdout") is not None:
        return False
    from kubews import console  # not for programs that only run commands

    if not console.is_own(stdin):
        return False
    console.Terminal()  # what is wrong with it is told before anything runs
    options["stdin"] = options["stdout"] = PIPE
    for name in ("text", "universal_newlines", "encoding", "errors"):
        cast("dict[str, Any]", options).pop(name, None)  # nothing is returned that could be text
    return True


def _start(args: Args, timeout: Optional[float], deadline: Deadline, options: Call) -> Popen:
    remaining = deadline.remaining()
    if remaining is not None:
        options["connect_timeout"] = _sooner(options.get("connect_timeout"), remaining)
        if options.get("wait_ready") is not None:
            options["wait_ready"] = _sooner(options["wait_ready"], remaining)
    try:
        return Popen(args, **options)
    except (ConnectTimeout, NotReady) as exc:
        if timeout is not None and deadline.expired():
            raise TimeoutExpired(args, timeout) from exc
        raise


def _sooner(given: Optional[float], remaining: float) -> float:
    return remaining if given is None else min(given, remaining)


def call(args: Args, *, timeout: Optional[float] = None, **options: Unpack[Call]) -> int:
    """Run a command in a pod and return its exit code; as ``run`` without captured output.

    Threads: blocks.
    """
    code: int = run(args, timeout=timeout, **options).returncode
    return code


def check_call(args: Args, *, timeout: Optional[float] = None, **options: Unpack[Call]) -> int:
    """Run a command in a pod; return 0, or raise ProcessError.

    Threads: blocks.
    """
    code: int = run(args, timeout=timeout, check=True, **options).returncode
    return code


@overload
def check_output(
    args: Args,
    *,
    input: Optional[str] = None,
    timeout: Optional[float] = None,
    **options: Unpack[TextCall],
) -> str: ...


@overload
def check_output(
    args: Args,
    *,
    input: Optional[str] = None,
    timeout: Optional[float] = None,
    **options: Unpack[EncodedCall],
) -> str: ...


@overload
def check_output(
    args: Args,
    *,
    input: Optional[Buffer] = None,
    timeout: Optional[float] = None,
    **options: Unpack[BytesCall],
) -> bytes: ...


@overload
def check_output(
    args: Args,
    *,
    input: Any = None,
    timeout: Optional[float] = None,
    **options: Unpack[Call],
) -> Any: ...


def check_output(
    args: Args,
    *,
    input: Any = None,
    timeout: Optional[float] = None,
    **options: Unpack[Call],
) -> Any:
    """Run a command in a pod and return its stdout, or raise ProcessError.

    Threads: blocks.
    """
    for name in ("stdout", "check"):
        if name in options:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    options["stdout"] = PIPE
    return run(args, input=input, timeout=timeout, check=True, **options).stdout


def getstatusoutput(cmd: str, **options: Unpack[Call]) -> tuple[int, str]:
    """Run a string in the container's shell; return exit code and output, stderr merged in.

    Threads: blocks.
    """
    options["text"] = True
    options["stdout"] = PIPE
    options["stderr"] = STDOUT
    options["shell"] = True
    done = run(cmd, **options)
    text = str(done.stdout)
    return done.returncode, text[:-1] if text.endswith("\n") else text


def getoutput(cmd: str, **options: Unpack[Call]) -> str:
    """Run a string in the container's shell; return its output, stderr merged in.

    Threads: blocks.
    """
    return getstatusoutput(cmd, **options)[1]
