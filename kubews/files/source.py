"""Source: what is at a path of a pod, and the commands that send it.

The command that is asked what is there goes on and sends it, if it is what it nearly always is: a directory with tar
in the image, or a file and all that it takes to verify it. So a copy takes one command and not two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Optional

from kubews.errors import ExecError
from kubews.files.remotefiles import (
    FROM,
    LOOK,
    Found,
    failed,
    found_by,
    no_shell,
    printing,
    read_some,
    said,
)
from kubews.popen import Popen

if TYPE_CHECKING:
    from typing_extensions import Self

    from kubews.targets import Target

#: What can print a file, the best first.
PRINTERS = {"cat": 'cat <"$p"', "tail": 'tail -c +1 <"$p"', "dd": 'dd bs=65536 <"$p" 2>/dev/null'}

# Of a directory, an archive; $1 is empty unless tar is GNU's.
_TREE = """LC_ALL=C; export LC_ALL
exec tar "c${1:+S}f" - -C "$p" .
"""

# Of one file, from byte $2 on, and as the last line of stderr the checksum of its first $1 bytes by the program $3.
# Both are read at once. ``cksum`` tells the size that it has seen, so that it need not read from ``head``, which takes
# four times as long as ``cksum`` itself: only of a file that has grown.
_FILE = (
    FROM
    + """
if [ "$2" = 0 ]; then FIRST; else from "$4" <"$p"; fi &
s=
if [ "$3" = cksum ]; then s=$(cksum <"$p"); fi
case "$3:$s" in
:* | *" $1") ;;
*) s=$(head -c "$1" <"$p" | "$3") ;;
esac
wait $!; c=$?
if [ "$3" ]; then printf '\\nkubews-checksum %s\\n' "$s" >&2; fi
exit $c
"""
)

# The answer, a NUL, what follows, a NUL, and that. $1 are programs for the checksum of a file, the best first.
_ALL = f"""{{
{LOOK}
}} </dev/null 2>/dev/null
w=
if [ -d "$p" ]; then
  case $h in *" tar "*) w=tree ;; esac
elif [ -f "$p" ] && [ "${{k%% *}}" -gt 0 ] 2>/dev/null; then
  case $h in *" cat "*" head "*)
    for t in $1; do
      case $h in *" $t "*) w=file; break ;; esac
    done ;;
  esac
fi
printf '\\0%s\\0' "$w"
case $w in
tree) set -- "$g"
{_TREE} ;;
file) set -- "${{k%% *}}" 0 "$t" 1
{_FILE.replace("FIRST", PRINTERS["cat"])} ;;
esac
"""

_LONGEST = 64 << 10  # of an answer; whoever runs the pod may be hostile


class Source:
    """What is at a path of a pod, and the commands that send it; ``source_at`` makes it.

    Args:
        pod: the pod itself.
        path: in it.
        found: what is there, or None if there is no shell to ask.
        process: the command that has answered, if one has.
        sending: what it sends now.

    Threads: one.
    """

    def __init__(
        self,
        pod: Target,
        path: str,
        found: Optional[Found],
        process: Optional[Popen],
        sending: str,
    ) -> None:
        self._pod, self._path = pod, path
        self.found = found
        self._process, self._sending = process, sending

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the command that has answered, if nobody has taken it.

        Threads: does not block.
        """
        process, self._process = self._process, None
        if process is not None:
            process.close(0.0)

    def tree(self) -> Popen:
        """Return a command that sends the directory as an archive."""
        gnu = "gnu" if self.found and self.found.gnu_tar else ""
        return self._sender("tree") or printing(self._pod, self._path, _TREE, gnu)

    def file(self, printer: str, size: int, offset: int, program: str) -> Popen:
        """Return a command that sends a file.

        Args:
            printer: one of ``PRINTERS``.
            size: bytes that are in it.
            offset: the first byte to send.
            program: what is to calculate the checksum of ``size`` bytes, or nothing.
        """
        if offset or not program:
            self.close()
        text = _FILE.replace("FIRST", PRINTERS[printer])
        words = (str(size), str(offset), program, str(offset + 1))
        return self._sender("file") or printing(self._pod, self._path, text, *words)

    def _sender(self, wanted: Literal["tree", "file"]) -> Optional[Popen]:
        """Return the command that has answered if it sends what is wanted; else end it."""
        if self._sending != wanted:
            self.close()
        process, self._process = self._process, None
        return process


def source_at(pod: Target, path: str, programs: Sequence[str]) -> Source:
    """Look what is at a path, and have it sent.

    Args:
        pod: the pod itself.
        path: in it, as ``path_of`` returns it.
        programs: that calculate a checksum which a file can be verified by, the best first.

    Raises:
        CopyError: the shell does not answer.
        ApiError: the server refused.
        ConnectFailed: it could not be reached.
        ConnectionLost: it was cut before it had answered.

    Threads: blocks.
    """
    process = printing(pod, path, _ALL, " ".join(programs))
    try:
        answer, sending = _until_nul(pod, path, process), _until_nul(pod, path, process)
        found = found_by(process, pod, answer)
    except BaseException as exc:
        process.close(0.0)
        if isinstance(exc, ExecError) and no_shell(exc):
            return Source(pod, path, None, None, "")
        raise
    return Source(pod, path, found, process, sending.decode("ascii", "replace"))


def _until_nul(pod: Target, path: str, process: Popen) -> bytes:
    """Read byte by byte, so that what follows is left where it is."""
    text = bytearray()
    while (byte := process.stdout.read(1)) != b"\0" and len(text) < _LONGEST:
        if not byte:
            words, _ = said(read_some(process.stderr))
            if code := process.wait():
                raise failed(pod, f"looking at {path}", code, words)
            break
        text += byte
    return bytes(text)
