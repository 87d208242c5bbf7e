"""One file to a pod: under a temporary name, verified there, and renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

from kubews.errors import CopyError, HalfCloseUnsupported, KubewsError, TruncatedTransfer
from kubews.files import checksums, parts
from kubews.files.copying import CUT, Attempts, Copied, pipe
from kubews.files.parts import Part
from kubews.files.progress import Meter
from kubews.files.remotefiles import Found, ask, lacking, quoted, script, size_of
from kubews.popen import DEVNULL, PIPE, Popen

if TYPE_CHECKING:
    from kubews.targets import Target

#: Bytes of a file that are sent at a time.
PIECE = 256 << 10

# What dd counts in; a copy goes on at a border of such blocks.
_BLOCK = 65536

#: Write stdin to $p, from block $2 on if there is one; $1 is its size where the input cannot be ended,
#: and 0 where there is none: containerd may forget to end one that ends at once. $3 prints a checksum. Nothing is
#: sent before it says that the file is open:
#: whoever is left behind by a cut then neither makes the name again nor empties the file, and writes the same bytes
#: to the same places. One that was cut before that gets nothing, and removes what it has made.
WRITE = """
umask 077
if [ "$2" ]; then [ -e "$p" ] || exit 75; exec 3<>"$p"; else exec 3>"$p"; fi || exit
echo open
if [ "$1" = 0 ]; then :
elif [ "$2" ]; then
  if [ "$1" ]; then head -c "$1"; else cat; fi | dd bs=65536 seek="$2" conv=notrunc >&3 2>/dev/null
elif [ "$1" ]; then head -c "$1" >&3
else cat >&3; fi || exit
exec 3>&-
[ -s "$p" ] || [ "$1" = 0 ] || { rm -f -- "$p"; exit 75; }
echo $(wc -c <"$p" 2>/dev/null)
if [ "$3" ]; then "$3" <"$p"; fi
"""

# Give $p its mode and time, and then the name $1.
NAME = """
t=$(printf %b. "$1"); t=${t%.}
if [ "$2" ]; then chmod "$2" "$p" || exit; else chmod "$(printf %o $((0666 & ~$(umask))))" "$p"; fi
if [ "$3" ]; then touch -d "@$3" "$p"; fi
if [ -d "$t" ]; then echo "$t: is a directory" >&2; exit 1; fi
if [ -e "$t" ] && [ ! -f "$t" ]; then echo "$t: is no file" >&2; exit 1; fi
mv -f -- "$p" "$t"
"""

# What has a name that begins with $p: the rest of the name and the size if the rest begins with $1, else remove it.
_PARTS = """
for f in "$p"*; do
  n=${f#"$p"}
  case $n in "$1"*) [ -f "$f" ] && echo "$n" $(wc -c <"$f");; *) rm -f -- "$f";; esac
done
"""


class Contents(NamedTuple):
    """What is to be in one file.

    Threads: one.
    """

    #: Yields its bytes, from an offset on.
    pieces: Callable[[int], Iterator[bytes]]
    size: Optional[int]
    mode: Optional[int]
    mtime: Optional[int]
    #: Whether it can be read again.
    again: bool
    #: Gets a message if somebody writes to it while ``pieces`` yields.
    changed: Sequence[str] = ()


class FileSender:
    """Copy single files to a pod.

    Args:
        pod: the pod itself.
        found: what is known about the image.
        attempts: how often to go on after a cut.
        meter: who is told how far it is.
        checksum: None where the image can; True or not at all; False never.

    Threads: one.
    """

    def __init__(
        self,
        pod: Target,
        found: Found,
        attempts: Attempts,
        meter: Meter,
        checksum: Optional[bool],
    ) -> None:
        self._pod, self._found, self._attempts, self._meter = pod, found, attempts, meter
        self._kind = checksums.choose(found.programs, checksum)
        if checksum and self._kind is None:
            raise lacking(pod, "checksum=True", "sha256sum")
        self._done = 0

    def send(self, contents: Contents, target: str, part: Optional[Part] = None) -> Copied:
        """Copy to a path; what has the name is replaced.

        Args:
            contents: what is to be in it.
            target: the path.
            part: go on with what an earlier call has left, and leave such a thing for the next one.

        Raises:
            TruncatedTransfer: it was cut too often.
            CopyError: the remote tools have failed, or it arrived as something else.

        Threads: blocks.
        """
        if not self._found.programs & {"cat", "head"}:
            raise lacking(self._pod, "copying a file to it", "cat", "head")
        self._meter.total = contents.size
        temporary, offset = self._left_over(target, part, contents.size or 0)
        try:
            while True:
                try:
                    verified = self._send_rest(contents, temporary, offset)
                    argv = name_command(temporary, target, contents.mode, contents.mtime)
                    run(self._pod, argv, self._attempts)
                    break
                except CUT as exc:
                    self._cut(exc, contents, target)
                offset = self._arrived(temporary)
                if not offset:  # who was left behind may come late, and must not meet the next one
                    remove(self._pod, temporary)
                    temporary = temporary_name(target, part)
        except BaseException as exc:
            if part is None or not parts.worth_keeping(exc):
                remove(self._pod, temporary)
            raise
        warnings = (*contents.changed[:1], *self._attempts.warnings)
        return Copied(target, 1, self._done, verified, warnings)

    def _cut(self, exc: Exception, contents: Contents, target: str) -> None:
        if contents.again:
            self._attempts.after(exc, self._done, contents.size)
            return
        raise TruncatedTransfer(
            f"{self._pod.where}: copying to {target} was cut after {self._done:,} bytes, and a stream cannot be "
            f"read again: {exc}",
            member=target,
            received=self._done,
        ) from exc

    def _send_rest(self, contents: Contents, temporary: str, offset: int) -> str:
        """Copy what is missing; return what of the whole was compared."""
        argv = write_command(temporary, self._found, self._pod, contents.size, offset, self._kind)
        digest = self._kind.make() if self._kind else None
        if offset and digest:
            _hash_first(contents, offset, digest.update)
        self._done = offset

        def counted() -> Iterator[bytes]:
            for piece in contents.pieces(offset):
                if digest:
                    digest.update(piece)
                self._done += len(piece)
                yield piece
                self._meter(self._done)

        output = pipe(self._pod, argv, counted(), self._found, self._attempts, wait_open=True)
        verified = check_written(output, self._done, self._kind, digest, self._attempts)
        if contents.changed and self._kind and digest:
            self._check_unmixed(contents, self._kind, digest)
        return verified

    def _check_unmixed(
        self, contents: Contents, kind: checksums.Checksum, sent: checksums.Digest
    ) -> None:
        """Refuse what was sent if it is not in the file again: only what was appended to is as it once was."""
        again = kind.make()
        _hash_first(contents, self._done, again.update)
        if again.hexdigest() != sent.hexdigest():
            raise CopyError(f"{contents.changed[0]}, and what arrived is a mixture")

    def _arrived(self, temporary: str) -> int:
        """Return how many bytes of an interrupted copy can be built upon."""
        try:
            size = size_of(self._pod, temporary) or 0
        except CUT:
            return 0
        return self._usable(size, self._done)

    def _usable(self, size: int, most: int) -> int:
        return min(size, most) // _BLOCK * _BLOCK if "dd" in self._found.programs else 0

    def _left_over(self, target: str, part: Optional[Part], size: int) -> tuple[str, int]:
        """Return the name to write to, and how many bytes an earlier call has left there."""
        new = temporary_name(target, part)
        if part is None:
            return new, 0
        folder = new[: -len(part.new_name())]
        version = part.version[len(part.target) :]
        try:
            lines = ask(self._pod, folder + part.target, _PARTS, version).decode("ascii", "replace")
        except CUT:
            return new, 0
        for line in lines.splitlines():
            name, _, there = line.partition(" ")
            usable = self._usable(int(there), size) if there.isdigit() else 0
            if usable:
                return folder + part.target + name, usable
            remove(self._pod, folder + part.target + name)
        return new, 0


def temporary_name(target: str, part: Optional[Part] = None) -> str:
    """Return a new name beside a path."""
    folder = target.rpartition("/")[0] or "/"
    return f"{folder.rstrip('/')}/{part.new_name() if part else parts.new_name()}"


def write_command(
    path: str,
    found: Found,
    pod: Target,
    size: Optional[int],
    offset: int,
    kind: Optional[checksums.Checksum],
) -> list[str]:
    """Return the command that writes its input to a path, from an offset on.

    Raises:
        HalfCloseUnsupported: its input cannot be ended, and nobody knows how long it will be.
    """
    limit = "" if size is None or size > offset else "0"
    if not found.half_close:
        if size is None:
            raise HalfCloseUnsupported(
                f"{pod.where}: the server (Kubernetes before 1.30) cannot end the input of a command, so that the "
                "size of what is copied must be known: copy a file instead of a stream"
            )
        if "head" not in found.programs:
            raise lacking(pod, "copying to it by a server before Kubernetes 1.30", "head")
        limit = str(size - offset)
    seek = str(offset // _BLOCK) if offset else ""
    return script(path, WRITE, limit, seek, kind.program if kind else "")


def check_written(
    output: bytes,
    size: int,
    kind: Optional[checksums.Checksum],
    digest: Optional[checksums.Digest],
    attempts: Attempts,
) -> str:
    """Compare what ``WRITE`` says with what was sent; return what could be compared.

    Raises:
        TruncatedTransfer: less is there.
        CopyError: something else is there.
    """
    there, _, told = output.decode("ascii", "replace").partition("\n")
    if there.isdigit() and int(there) != size:
        raise TruncatedTransfer("the end is missing", received=int(there), expected=size)
    if kind is None or digest is None:
        return "size" if there.isdigit() else ""
    attempts.compare(kind, told.partition(" ")[0].strip(), digest.hexdigest())
    return kind.name


def name_command(
    temporary: str, target: str, mode: Optional[int], mtime: Optional[int], text: str = NAME
) -> list[str]:
    """Return the command that gives a file its mode, its time and its name."""
    words = ["" if mode is None else f"{mode:o}", "" if mtime is None else str(mtime)]
    return script(temporary, text, quoted(target), *words)


def run(pod: Target, argv: list[str], attempts: Attempts) -> None:
    """Run a command without input and output.

    Raises:
        CopyError: it has failed.
    """
    with Popen(argv, pod=pod, stdout=DEVNULL, stderr=PIPE) as process:
        attempts.ended(process)


def remove(pod: Target, path: str) -> None:
    """Remove a file that was not finished, if the pod can be reached: what has failed before is the better error."""
    with contextlib.suppress(KubewsError):
        run(pod, script(path, 'rm -f -- "$p"'), Attempts(pod, path, 0))


def _hash_first(contents: Contents, size: int, update: Callable[[bytes], None]) -> None:
    for piece in contents.pieces(0):
        update(piece[:size])
        size -= len(piece)
        if size <= 0:
            return
