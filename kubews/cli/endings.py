"""How the program ends when a command does not return.

Threads: the main one.
"""

from __future__ import annotations

import os
import signal
import sys

from kubews.errors import KubewsError


def ended_by(exc: BaseException, *, verbose: bool) -> int:
    """Tell on stderr what went wrong, and return the exit code; a bug is raised again.

    Args:
        exc: what came out of a command.
        verbose: whether the whole of it is wanted, too.

    Returns:
        1. Ctrl-C, and an output that nobody reads, end this process by the signal instead.
    """
    if isinstance(exc, KeyboardInterrupt):
        return _die("SIGINT")
    if isinstance(exc, BrokenPipeError) and not isinstance(exc, KubewsError):
        return _die("SIGPIPE")  # of ours: it was stdout, or stderr
    if not isinstance(exc, (KubewsError, OSError, ImportError)):
        raise exc
    if verbose:
        import traceback

        traceback.print_exception(type(exc), exc, exc.__traceback__)
    say(f"error: {_words(exc)}")
    return 1


def command_ended(code: int) -> int:
    """Return the exit code of a remote command, and say it if it is not 0, in kubectl's words."""
    if code:
        say(f"command terminated with exit code {code}")
    return code


def say(line: str) -> None:
    """Write a line to stderr, if there is one."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def _words(exc: BaseException) -> str:
    text = str(exc)
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, KubewsError):
        text = exc.strerror if exc.filename is None else f"{exc.filename}: {exc.strerror}"
    return " ".join(text.split("\n"))


def _die(name: str) -> int:
    """End by a signal, so that a shell sees it and ends its loop too."""
    number = getattr(signal, name, None)
    if os.name != "posix" or number is None:
        return 130 if name == "SIGINT" else 1
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + int(number)  # somebody has blocked it
