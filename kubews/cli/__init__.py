"""The command line: ``kubews`` and ``python -m kubews``, with the flags and habits of kubectl.

Each command is a module that is loaded when it is asked for, and the library behind it too: most of what a
short command takes is the time that imports take.

Threads: the main one.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, Optional

# Objects between two looks for garbage: more than imports make, which look for it in vain.
_RARELY = 100_000


def program() -> NoReturn:
    """Be the program ``kubews``: run its command line and exit.

    Threads: the main one.
    """
    gc.set_threshold(_RARELY)
    code = main()
    # All is written and closed that must be. To take the interpreter down would take as long again as a
    # short command.
    os._exit(code)


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
        _flush()
        return code
    except BaseException as exc:
        from kubews.cli.endings import ended_by

        return ended_by(exc, verbose=verbose)


def _flush() -> None:
    # Here, where it is known what to do if nobody reads it.
    if sys.stdout is not None:
        sys.stdout.flush()


def _log_everything() -> None:
    import logging

    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)5d ms  %(message)s")
