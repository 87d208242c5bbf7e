"""PodReader: the bytes of a file in a pod, read on where they were cut."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Optional

from kubews.errors import CopyError, TruncatedTransfer
from kubews.files.copying import CUT, Attempts
from kubews.files.remotefiles import FROM, Found, look, printing, size_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from kubews.popen import Popen
    from kubews.targets import Target

_RETRIES = 3
# So far ahead is read on; farther away another command is started.
_NEAR = 256 << 10

# How often another file may have the name before anything was read.
_ROUNDS = 10

# The exit code that says that the name is another file's.
_OTHER = 93

# From byte $1 on, of the file that was found: its number is $2, its size $3, its times are $4. A name may be another
# file's by now, also one that has got the number of the first. One that only grows is the same, and so is one whose
# mode changes; some file systems give a file another number now and then, and those of /proc, which have no size, are
# others each time. One that was only looked at, where $5 is empty, may have been written meanwhile; of others at least
# the $6 bytes are there that were read.
_READ = (
    FROM
    + """
exec <"$p" || exit
if [ "$2" ]; then
  now=$(stat -L -c '%s %y=%z' -- "$p" 2>/dev/null) number=$(stat -L -c '%d:%i:%W' -- "$p" 2>/dev/null)
  size=${now%% *}
  grown() { [ "$size" -ge $(($3 + ${#5})) ] && [ "$size" -ge "$6" ]; }
  [ "$3 $size" = "0 0" ] || [ "$3 $4" = "$now" ] ||
    { [ "$2" = "$number" ] && { [ "$3 ${4%=*}" = "${now%=*}" ] || grown "$@"; }; } || exit OTHER
fi
if [ "$1" = 1 ]; then FIRST; else from "$1"; fi
"""
)


class PodReader(io.RawIOBase):
    """The bytes of a file in a pod.

    Args:
        pod: the pod itself.
        path: in it.
        found: what is known about it.

    Threads: one.
    """

    mode = "rb"

    def __init__(self, pod: Target, path: str, found: Found) -> None:
        self._pod, self.name, self._found = pod, path, found
        self._attempts = self._fresh_attempts()
        self._process: Optional[Popen] = None
        self._position = self._there = 0  # where to read, and where the command is
        self._farthest = self._cut_at = 0  # of what was read
        self._finalizing = False
        self._rounds = _ROUNDS  # none once anybody knows something of this very file

    def __repr__(self) -> str:
        return f"<kubews.PodReader {self.name!r} of {self._pod.where}>"

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether it has a size, and the image a program that reads from somewhere on."""
        return self._found.kind == "file" and "tail" in self._found.programs

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Read from another place on; return it.

        Threads: does not block.
        """
        self._check_open()
        if not self.seekable():
            raise io.UnsupportedOperation(
                f"{self!r} cannot be read but from its beginning to its end"
            )
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size or 0}
        if whence not in base:
            raise ValueError(f"invalid whence ({whence})")
        if whence == os.SEEK_END:
            self._rounds = 0
        if base[whence] + offset < 0:
            raise ValueError(f"negative seek position {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the place that is read next."""
        self._check_open()
        return self._position

    def readinto(self, b: WriteableBuffer) -> int:
        """Read at least one byte into ``b``; return their number, 0 at the end.

        Raises:
            TruncatedTransfer: it was cut too often, or the end is missing.
            CopyError: it cannot be read, or another file has the name by now, or it was changed otherwise than by
                growing.

        Threads: blocks.
        """
        self._check_open()
        view, was_cut = memoryview(b).cast("B"), False
        while len(view):
            try:
                if was_cut and not self._found.inode:  # otherwise the next command does
                    self._look_again()
                process = self._reach()
                count = int(process.stdout.readinto(view))
                if not count and not self._at_end(process):
                    continue
                self._rounds = 0
                self._position += count
                self._there = self._position
                self._farthest = max(self._farthest, self._position)
                return count
            except CUT as exc:
                self._stop()
                if not self.seekable():
                    raise
                # A file that is open for long may be cut often.
                if self._position - self._cut_at >= _NEAR:
                    self._attempts = self._fresh_attempts()
                self._cut_at = self._position
                self._attempts.after(exc, self._position, self._found.size)
                was_cut = True
            except BaseException:
                # After Ctrl-C nobody knows where the command is: the next read begins another one.
                if self.seekable():
                    self._stop()
                raise
        return 0

    def _fresh_attempts(self) -> Attempts:
        return Attempts(self._pod, self.name, _RETRIES, "reading")

    def _reach(self) -> Popen:
        """Return a command that is at the place to be read."""
        ahead = self._position - self._there
        if self._process is not None and 0 <= ahead <= _NEAR:
            while ahead and (data := self._process.stdout.read(ahead)):
                ahead -= len(data)
            self._there = self._position
            return self._process
        self._stop()
        first = "cat" if "cat" in self._found.programs else "tail -c +1"
        text = _READ.replace("FIRST", first).replace("OTHER", str(_OTHER))
        found = self._found
        made_up = found.kind != "file" or (found.real or self.name).startswith(("/proc/", "/sys/"))
        # It changes faster than it can be looked at, and nothing is known of it yet.
        changing = 0 < self._rounds < _ROUNDS
        words = [
            str(self._position + 1),
            "" if made_up else found.inode,
            str(found.size),
            found.times,
            "" if changing else "1",
            str(self._farthest),
        ]
        self._process = printing(self._pod, self.name, text, *words)
        self._process.if_forgotten(f"{self!r} was forgotten: close it, or use it in a with block")
        self._there = self._position
        return self._process

    def _at_end(self, process: Popen) -> bool:
        """See whether the end is one; or begin with the file that has the name by now, if nothing is known of its
        predecessor."""
        try:
            self._attempts.ended(process)
        except CopyError as exc:
            if process.returncode != _OTHER:
                raise
            now = look(self._pod, self.name)
            if not self._rounds or now is None or now.kind != "file":
                raise self._changed() from exc
            self._stop()
            self._rounds -= 1
            self._found = now
            return False
        self._stop()
        size = self._found.size or 0
        if self._position < size and self.seekable():
            self._look_again()
            # Those of /proc and /sys have less in them than they say.
            left = size_of(self._pod, self.name)
            if left is not None and left > self._position:
                raise TruncatedTransfer(
                    "the end is missing", received=self._position, expected=size
                )
        return True

    def _look_again(self) -> None:
        now = look(self._pod, self.name)
        before = (self._found.size, self._found.mtime)
        if now is None or (now.size, now.mtime) != before:
            raise self._changed()

    def _changed(self) -> CopyError:
        return CopyError(f"{self!r} was changed while it was read", member=self.name)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._finalizing:
            process.forget()
        else:
            process.close(0.0)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def close(self) -> None:
        """End the command that reads; again is nothing.

        Threads: one.
        """
        if not self.closed:
            try:
                self._stop()
            finally:
                super().close()

    def __del__(self) -> None:
        self._finalizing = True
        if hasattr(self, "_process"):  # otherwise Ctrl-C came before
            super().__del__()

    def _dealloc_warn(self, source: Any) -> None:
        # A wrapper calls this when it is being finalized, just before it closes us.
        self._finalizing = True
