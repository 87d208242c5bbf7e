"""What is at a path of a container, and which programs are there to copy with.

Paths go to a shell with everything but printable ASCII as octal numbers, because the API server and the
container runtime hand on arguments that are UTF-8 only, and file names may be anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Optional

from kubews.command import StrOrBytesPath, absent
from kubews.errors import CopyError, ExecError, NoSuchFile
from kubews.popen import DEVNULL, PIPE, Popen
from kubews.protocol.channels import Channels

if TYPE_CHECKING:
    from kubews.targets import Target

#: Prefix of the lines on stderr that are not warnings but results.
RESULT = "kubews-checksum "

# $p is the path from here on. What bash reads has no time limit (TMOUT), as it has none in other shells.
_PATH = 'TMOUT= p=$(printf %b. "$1"); p=${p%.}; shift\n'

#: ``from`` prints its input from a byte on, which is counted from 1: the tail of busybox counts no further than 4 GiB.
FROM = """from() {
  if [ "$1" -gt 4294967295 ] && dd bs=1048576 skip=$((($1 - 1) / 1048576)) count=0 2>/dev/null; then
    set -- $((($1 - 1) % 1048576 + 1))
  fi
  tail -c "+$1"
}
"""

# When nobody reads the output any more, the runtime still keeps its pipe open: what writes to it would wait for ever.
# But it ends the input, which nothing is ever written to (and which ends with any of the outputs, so that those are
# kept open). Only who leads a process group, as runc has it, can end all that was started; else it is the shell alone.
_WATCHED = """exec 3<&0
{ read -r r <&3; kill -TERM -$$ || kill $$; } >/dev/null 2>&1 &
w=$!; exec 3<&-
(
SCRIPT
)
c=$?; { kill $w; exit $c; } 2>/dev/null
"""

_PROGRAMS = "cat chmod cksum dd head ln mkdir mv readlink rm sha256sum stat tail tar touch wc"

#: What says what is at the path, one line each: what it is, whether its directory is there, size mode time (also in
#: $k), programs ($h), which tar ($g); and then, if it is a symbolic link, where it leads to.
LOOK = f"""q=$p n=0
step() {{
  [ -h "$q" ] && [ $n -lt 40 ] && t=$(readlink -- "$q" && echo .) || return
  n=$((n + 1)) t=${{t%??}}
  case $t in /*) q=$t;; *) q=${{q%/*}}/$t;; esac
}}
if [ -d "$p" ]; then echo directory
elif [ -f "$p" ]; then if true <"$p"; then echo file; else echo file unreadable; fi
elif [ -e "$p" ]; then echo other
else  # to where it leads, and then to the last directory on the way that is there
  while step; do :; done
  r=$q
  until [ -d "$q/" ] || [ "$q" = . ]; do step || q=${{q%/*}}; done
  if [ $n = 40 ]; then echo loop; elif [ -d "$q/." ]; then echo missing; else echo hidden; fi
  q=$r
fi
if [ -d "${{q%/*}}/" ]; then echo directory; elif [ -e "${{q%/*}}" ]; then echo other; else echo missing; fi
k= h= g=
if [ -e "$p" ] && command -v stat >/dev/null; then k=$(stat -L -c '%s %a %Y %d:%i:%W %y=%z' -- "$p")
elif [ -f "$p" ] && command -v wc >/dev/null; then k=$(wc -c <"$p"); fi
for t in {_PROGRAMS}; do command -v $t >/dev/null && h="$h $t "; done
case $(tar --version) in *GNU*) g=gnu;; esac
printf '%s\n' "$k" "$h" "$g"
if [ -h "$p" ]; then
  if [ -e "$p" ]; then readlink -f -- "$p"
  elif [ $n -gt 0 ]; then printf '%s\n' "$q"; fi  # busybox's -f is wrong about what leads to nothing
fi
"""

_KEPT = 500  # first lines of warnings, and as many of the last
# Bytes of what the remote tools say first, and last; whoever runs the pod may be hostile.
_FIRST, _LAST = 1 << 20, 64 << 10


class Found(NamedTuple):
    """What is at a path.

    Threads: a value.
    """

    #: ``hidden`` is what is there or not: a directory on the way to it may not be searched; a ``loop`` is of
    #: symbolic links.
    kind: Literal["file", "directory", "other", "missing", "hidden", "loop"]
    #: What the directory is that it is in, or would be in.
    parent: Literal["directory", "other", "missing"] = "directory"
    size: Optional[int] = None
    mode: Optional[int] = None
    mtime: Optional[float] = None
    #: Which file it is: the number of its device, its own, and when it was made where that is known.
    inode: str = ""
    #: When it and its entry were changed last.
    times: str = ""
    programs: frozenset[str] = frozenset()
    gnu_tar: bool = False
    #: Where a symbolic link leads to, if it is one.
    real: Optional[str] = None
    #: Whether the server can end the input of a command.
    half_close: bool = True
    #: Whether it is a file that may be read.
    readable: bool = True


def path_of(path: StrOrBytesPath) -> str:
    """Return a path of a container as it is used below: never empty, never like an option.

    Raises:
        ValueError: it is empty, or holds a NUL.
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError("the path in the pod is empty")
    if "\0" in text:
        raise ValueError(f"embedded null byte: {text!r} cannot be a path")
    text = text.rstrip("/") or "/"
    return text if text.startswith("/") else f"./{text}"


def base_of(path: str) -> str:
    """Return the last name of a path; empty where it has none of its own, as ``/`` and ``..``."""
    name = path.rpartition("/")[2]
    return "" if name in (".", "..") else name


def quoted(text: str) -> str:
    """Return a text as ``printf %b`` understands it."""
    return "".join(
        chr(byte) if 32 < byte < 127 and byte != 92 else f"\\0{byte:03o}"
        for byte in os.fsencode(text)
    )


def script(path: str, text: str, *arguments: str) -> list[str]:
    """Return the command that runs a script with ``$p`` as the path, and the arguments from ``$1`` on."""
    return ["sh", "-c", _PATH + text, "sh", quoted(path), *arguments]


def printing(pod: Target, path: str, text: str, *arguments: str) -> Popen:
    """Start a script (see ``script``) that prints much, and ends when it is no longer listened to.

    Threads: blocks until it is connected.
    """
    argv = script(path, _WATCHED.replace("SCRIPT", text), *arguments)
    return Popen(argv, pod=pod, bufsize=0, request_stdin=True, stdout=PIPE, stderr=PIPE)


def look(pod: Target, path: str) -> Optional[Found]:
    """Look what is at a path.

    Returns:
        None if there is no shell to ask.

    Raises:
        ApiError: the server refused.
        ConnectFailed: it could not be reached.
        ConnectionLost: it could not be asked.

    Threads: blocks.
    """
    try:
        with Popen(script(path, LOOK), pod=pod, stdout=PIPE, stderr=DEVNULL) as process:
            output = read_some(process.stdout)
            process.wait()
    except ExecError as exc:
        if no_shell(exc):
            return None
        raise
    return found_by(process, pod, output)


def no_shell(exc: ExecError) -> bool:
    """Tell whether a script could not start because the image has no shell."""
    return absent(str(exc)) == "sh"


def found_by(process: Popen, pod: Target, output: bytes) -> Found:
    """Return what ``LOOK`` has printed.

    Raises:
        CopyError: it is something else.
    """
    half_close = Channels(process.subprotocol, False).can_end_stdin
    try:
        return _found(os.fsdecode(output).split("\n", 5), half_close)
    except ValueError:
        raise CopyError(
            f"{pod.where}: its sh does not do what it is told: {output[:200]!r}"
        ) from None


def _found(lines: Sequence[str], half_close: bool) -> Found:
    kind, parent, known, programs, tar, real = lines
    kind, _, rights = kind.partition(" ")
    if kind not in ("file", "directory", "other", "missing", "hidden", "loop"):
        raise ValueError
    numbers = known.split(None, 4)
    return Found(
        kind,  # type: ignore[arg-type]
        parent,  # type: ignore[arg-type]
        int(numbers[0]) if numbers else None,
        int(numbers[1], 8) & 0o777 if len(numbers) > 1 else None,
        float(numbers[2]) if len(numbers) > 2 else None,
        numbers[3] if len(numbers) > 3 else "",
        numbers[4] if len(numbers) > 4 else "",
        frozenset(programs.split()),
        tar == "gnu",
        real[:-1] or None,
        half_close,
        not rights,
    )


def is_absent(exc: ExecError) -> bool:
    """Tell whether a command could not start because the image has no such program."""
    return "not found in $PATH" in str(exc) or "no such file or directory" in str(exc)


def ask(pod: Target, path: str, text: str, *arguments: str) -> bytes:
    """Return what a script prints."""
    with Popen(script(path, text, *arguments), pod=pod, stdout=PIPE, stderr=DEVNULL) as process:
        output = read_some(process.stdout)
        process.wait()
    return output


def size_of(pod: Target, path: str) -> Optional[int]:
    """Return how many bytes can be read from a file now, None if that cannot be known."""
    output = ask(pod, path, 'wc -c <"$p"').strip()
    return int(output) if output.isdigit() else None


def read_some(stream: Any) -> bytes:
    """Read a stream to its end, and return its beginning and, of a long one, its end."""
    first = last = b""
    while data := stream.read(_FIRST):
        room = _FIRST - len(first)
        first, last = first + data[:room], (last + data[room:])[-_LAST:]
    return first + last


def is_directory_name(path: StrOrBytesPath) -> bool:
    """Tell whether a path is written as that of a directory, with a slash behind it."""
    return os.fsdecode(path).endswith("/")


# What ``check_reachable`` says of a kind.
_UNREACHABLE = {
    "hidden": (errno.EACCES, "permission denied: a directory on the way to it may not be searched"),
    "loop": (errno.ELOOP, "too many levels of symbolic links"),
}


def check_reachable(pod: Target, path: str, found: Found) -> None:
    """Refuse a path of which nobody knows what is there.

    Raises:
        CopyError: it leads through a directory that may not be searched, or links lead in a circle.
    """
    if found.kind in _UNREACHABLE:
        number, words = _UNREACHABLE[found.kind]
        raise CopyError(f"{pod.where}: {path}: {words}", member=path, errno=number)


def check_readable(pod: Target, path: str, found: Found) -> None:
    """Refuse a path where nothing is to be read.

    Raises:
        NoSuchFile: there is nothing.
        CopyError: it cannot be read.
    """
    check_reachable(pod, path, found)
    if found.kind == "missing":
        raise missing(pod, path)
    if not found.readable:
        raise CopyError(
            f"{pod.where}: {path}: permission denied: the file may not be read",
            member=path,
            errno=errno.EACCES,
        )


def missing(pod: Target, path: str) -> NoSuchFile:
    """Return the error about a path that is not there."""
    return NoSuchFile(f"{pod.where}: {path}: no such file or directory", member=path)


def no_place(pod: Target, path: str, found: Found) -> CopyError:
    """Return the error about a path whose directory is none."""
    folder = (found.real or path).rpartition("/")[0] or "/"
    if found.parent == "other":
        return CopyError(
            f"{pod.where}: {folder} is no directory", member=folder, errno=errno.ENOTDIR
        )
    return missing(pod, folder)


def is_directory(pod: Target, path: str) -> CopyError:
    """Return the error about a directory where a file is meant."""
    return CopyError(f"{pod.where}: {path} is a directory", member=path, errno=errno.EISDIR)


def no_directory(pod: Target, path: str) -> NoSuchFile:
    """Return the error about a path that was written as that of a directory, and is none."""
    return NoSuchFile(f"{pod.where}: {path}/: no such directory", member=path)


def lacking(pod: Target, what: str, *programs: str) -> CopyError:
    """Return the error about programs that are not in the image."""
    names = " or ".join(programs)
    return CopyError(
        f"{pod.where}: {what} needs {names} in the image, which it does not have: use another container of "
        "the pod, or an ephemeral one (kubectl debug) that shares its files"
    )


def said(stderr: bytes) -> tuple[list[str], Optional[str]]:
    """Return what the remote tools have said, in lines, and the checksum that was among it."""
    lines = stderr.decode("utf-8", "backslashreplace").splitlines()
    sums = [line.split(" ")[1] for line in lines if line.startswith(RESULT)]
    words = [line for line in lines if line and not line.startswith(RESULT)]
    if len(words) > 2 * _KEPT:
        words[_KEPT:-_KEPT] = []
    return words, sums[-1] if sums else None


def failed(pod: Target, what: str, code: int, warnings: Sequence[str]) -> CopyError:
    """Return the error about remote tools that have ended with an exit code other than 0."""
    killed = ["it was killed: has the container ended?"] if code == 137 else []
    words = "; ".join([*warnings[-5:], *killed])
    return CopyError(
        f"{pod.where}: {what} failed with exit code {code}{': ' if words else ''}{words}",
        warnings=warnings,
    )
