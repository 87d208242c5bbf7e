"""The command line: ``kubews`` and ``python -m kubews``, with the flags and habits of kubectl.

Each command is a module that is loaded when it is asked for, and the library behind it too: most of what a
short command takes is the time that imports take.

Threads: the main one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run what a command line asks for.

    Args:
        argv: the arguments behind the program's name, by default this process's own.

    Returns:
        The exit code: the remote command's own, or 1 after an error that was told on stderr. After Ctrl-C, and
        when nobody reads the output any more, this process ends by the signal, as kubectl does: a shell
        calls that 130 and 141.

    Threads: blocks; the main thread.
    """
    verbose = False
    try:
        from kubews.cli.arguments import parse

        options, parser = parse(sys.argv[1:] if argv is None else argv)
        verbose = options.verbose
        if verbose:
            _log_everything()
        code: int = options.run(options, parser)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it is known what to do if nobody reads it
        return code
    except BaseException as exc:
        from kubews.cli.endings import ended_by

        return ended_by(exc, verbose=verbose)


def _log_everything() -> None:
    import logging

    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)5d ms  %(message)s")
