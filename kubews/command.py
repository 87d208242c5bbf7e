"""The argument vector of a remote process, from the arguments that subprocess takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Optional, Union

StrOrBytesPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Args = Union[StrOrBytesPath, Sequence[StrOrBytesPath]]

#: The environment variable by which a marked command and what it has started are known.
MARK = "KUBEWS_PROCESS"

# The shell of the container changes the directory and is then replaced by the command.
_CHDIR = 'cd -- "$1" || exit 127; shift; exec "$@"'

# env would take the name of a program with an equals sign for another variable.
_EXEC = 'exec "$@"'

# Reports the shell, which the command replaces, as kubews.protocol.report expects it, and marks all that
# the command will start. In a subshell, so that no variable is set that the command would see. Only builtins,
# and nothing is read or written but one line.
_REPORT = (
    f"{MARK}=$1; export {MARK}; "
    '(exec 3>&2 2>/dev/null; line=; read -r line </proc/$$/stat; echo "$1 $line" >&3); '
    'shift; exec "$@"'
)

# What runc and crun say of a program that is not in the image, and what to do about those of ours.
_ABSENT = re.compile(r"""["`](sh|env)["`].* not found in \$PATH""")
_CURES = {
    "sh": "shell(), shell=True, cwd= and signals=True need sh, which this image does not have: run one of its own "
    "programs, as a list and without cwd= and signals=",
    "env": "env= needs env, which this image does not have: set the variable in the pod's spec",
}


def command(
    args: Args,
    *,
    shell: bool = False,
    cwd: Optional[StrOrBytesPath] = None,
    env: Optional[Mapping[str, str]] = None,
) -> list[str]:
    """Build the argument vector to run in a container.

    Args:
        args: the command and its arguments; with ``shell`` one string for ``sh -c`` (of several, the
            further ones are the shell's own arguments).
        shell: whether the container's ``sh`` interprets the command.
        cwd: directory in the container; needs ``sh`` there. What is missing is exit code 127.
        env: variables to add to the container's own; needs ``env`` there.

    Returns:
        At least one string.

    Raises:
        TypeError: a string without ``shell=True``, or something that is no sequence of strings.
        ValueError: nothing to run, a NUL, or a variable that cannot be one.
    """
    argv = _shell(args) if shell else _plain(args)
    if cwd is not None:
        argv = ["sh", "-c", _CHDIR, "sh", _text(cwd), *argv]
    if env:
        if "=" in argv[0]:
            argv = ["sh", "-c", _EXEC, "sh", *argv]
        argv = ["env", *(_variable(name, value) for name, value in env.items()), *argv]
    if any("\0" in argument for argument in argv):
        raise ValueError("embedded null byte: no argument of a process can hold one")
    return argv


def marked(argv: Sequence[str], mark: str) -> list[str]:
    """Wrap an argument vector so that the command reports itself and is marked; see ``kubews.signals``.

    What is missing, or cannot be executed, is then exit code 127 or 126, from the container's ``sh``.

    Args:
        argv: what ``command`` has built.
        mark: one word.
    """
    return ["sh", "-c", _REPORT, "sh", mark, *argv]


def cure(message: str) -> str:
    """Return what to add to the server's message if the image lacks what ``command`` makes use of."""
    program = absent(message)
    return f". {_CURES[program]}, or use another container of the pod" if program else ""


def absent(message: str) -> Optional[str]:
    """Return which of the programs that ``command`` makes use of the server misses, if it is one of them."""
    found = _ABSENT.search(message)
    return found[1] if found else None


def _shell(args: Args) -> list[str]:
    parts = [_text(args)] if isinstance(args, (str, bytes, os.PathLike)) else _list(args)
    return ["sh", "-c", *parts]


def _plain(args: Args) -> list[str]:
    if isinstance(args, os.PathLike):
        return [_text(args)]
    if isinstance(args, (str, bytes)):
        text = _text(args)
        split = text.split()
        raise TypeError(
            f"{text!r} is one string: use shell=True to let the container's sh interpret it, or a "
            f"list such as {split or ['true']!r}"
        )
    return _list(args)


def _list(args: Sequence[StrOrBytesPath]) -> list[str]:
    try:
        argv = [_text(argument) for argument in args]
    except TypeError as exc:
        raise TypeError(f"the command must be a list of strings or paths: {exc}") from exc
    if not argv:
        raise ValueError("there is no command to run: the list is empty")
    return argv


def _text(argument: StrOrBytesPath) -> str:
    return os.fsdecode(argument)


def _variable(name: str, value: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"{name!r} cannot be the name of an environment variable")
    return f"{_text(name)}={_text(value)}"
