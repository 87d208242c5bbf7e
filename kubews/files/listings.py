"""A tree sent by a shell, for images without tar: fields that end with NUL, and contents of a told size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Optional

from kubews.errors import CopyError, TruncatedTransfer
from kubews.files.arrival import PIECE, Entry

# Of an entry its letter, then what stat says of it, then its name, then the contents; behind those the file's number,
# which is not there if it was shorter than it was said to be. LC_ALL=C: names are bytes.
# $1 tells with 1 which of stat, readlink and head are there.
SEND = r"""
export LC_ALL=C
case $1 in 1*) about() { stat -c '%a %Y %s' -- "$1"; };; *) about() {
  if [ -d "$1" ]; then echo 755 - 0
  elif [ -x "$1" ]; then echo 755 - $(wc -c <"$1")
  else echo 644 - $(wc -c <"$1"); fi; };; esac
case $1 in ?1*) target() { readlink -- "$1"; };; *) target() { return 1; };; esac
case $1 in ??1) contents() { head -c "$2" <"$1"; };; *) contents() { cat <"$1"; };; esac
bad=0 i=0
walk() {
  for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    n=${f#"$p"/}
    if [ -h "$f" ]; then
      t=$(target "$f" && echo .) && printf 'l\0%s\0%s\0' "${t%??}" "$n" || printf 'o\0a symbolic link\0%s\0' "$n"
    elif [ -d "$f" ]; then
      printf 'd\0%s\0%s\0' "$(about "$f")" "$n"
      [ -r "$f" ] || { echo "$n: cannot be read" >&2; bad=1; }
      walk "$f"
    elif [ -f "$f" ]; then
      if [ -r "$f" ]; then
        a=$(about "$f"); printf 'f\0%s\0%s\0' "$a" "$n"
        contents "$f" "${a##* }"; i=$((i + 1)); printf '%s\0' "$i"
      else echo "$n: cannot be read" >&2; bad=1; fi
    elif [ -e "$f" ]; then printf 'o\0a device, a FIFO or a socket\0%s\0' "$n"
    fi
  done
}
printf 'd\0%s\0./\0' "$(about "$p")"
walk "$p"
printf 'e\0'
exit $bad
"""

_LONGEST = 64 << 10  # of a field: no path and no text of a link is longer


def arguments(programs: frozenset[str]) -> str:
    """Return the argument of ``SEND`` for an image that has these programs."""
    return "".join("1" if name in programs else "0" for name in ("stat", "readlink", "head"))


class ListingReader:
    """Read what ``SEND`` sends.

    Args:
        read: returns at least one and at most so many bytes of it, ``b""`` at the end.

    Threads: one.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._held = b""
        self._left = 0
        #: Bytes so far.
        self.received = 0

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; its contents must be read before the next one is asked for.

        Raises:
            TruncatedTransfer: the end is missing.
            CopyError: this is something else, or a file was shorter than it had been.
        """
        files = 0
        while (letter := self._field()) != "e":
            if letter not in ("d", "f", "l", "o"):
                raise CopyError(f"what came from the pod is no listing: {letter[:40]!r}")
            about, name = self._field(), self._field()
            if letter == "l":
                yield Entry("symlink", name, target=about)
            elif letter == "o":
                yield Entry("other", name, what=about)
            elif letter == "d":
                yield Entry("directory", name, 0, *_mode_and_time(about)[:2])
            else:
                mode, mtime, self._left = _mode_and_time(about)
                yield Entry("file", name, self._left, mode, mtime, read=self._contents)
                files += 1
                if self._field() != str(files):
                    raise CopyError(f"{name!r} has changed while it was read", member=name)

    def _contents(self, size: int) -> bytes:
        data = self._take(min(size, self._left))
        self._left -= len(data)
        return data

    def _take(self, size: int) -> bytes:
        if not self._held and size:
            self._held = self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def _more(self) -> bytes:
        data = self._read(PIECE)
        self.received += len(data)
        if not data:
            raise TruncatedTransfer(
                f"what came from the pod was cut after {self.received:,} bytes",
                received=self.received,
            )
        return data

    def _field(self) -> str:
        while b"\0" not in self._held:
            if len(self._held) > _LONGEST:
                raise CopyError("what came from the pod is no listing: a field has no end")
            self._held += self._more()
        field, _, self._held = self._held.partition(b"\0")
        return field.decode("utf-8", "surrogateescape")


def _mode_and_time(about: str) -> tuple[int, Optional[float], int]:
    try:
        mode, mtime, size = about.split()
        return int(mode, 8) & 0o777, None if mtime == "-" else float(mtime), int(size)
    except ValueError:
        raise CopyError(f"what came from the pod is no listing: {about[:40]!r}") from None
