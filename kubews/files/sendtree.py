"""Trees to a pod: unpacked into a directory of their own there, and moved when all of it has come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kubews.files import packing
from kubews.files.copying import Attempts, Copied, pipe
from kubews.files.packing import Item
from kubews.files.parts import new_name
from kubews.files.progress import Meter
from kubews.files.remotefiles import Found, lacking, script

if TYPE_CHECKING:
    from kubews.targets import Target

# Unpack below a directory of its own, $p/$1, and move from there what is whole. $2 is the size of the input where
# it cannot be ended, $3 what to do: t to unpack with tar, T likewise with modes and times as they come, s with the
# shell, S likewise. $4 is an option of tar.
_UNPACK = r"""
t=$p/$1
trap 'rm -rf -- "$t" 2>/dev/null || { chmod -R u+rwx "$t"; rm -rf -- "$t"; }' EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 700 -- "$t" || exit
lines() {
  while read -r k m s n f g; do
    f=$(printf %b. "$f"); f=$t/${f%.}
    case $k in
    d) if [ -d "$f" ]; then chmod u+rwx "$f"; else mkdir -- "$f"; fi || return;;  # of several that are merged
    f) head -c "$n" >"$f" || return
      [ "$(wc -c <"$f")" -eq "$n" ] || { echo "$f: cut" >&2; return 1; };;
    l) g=$(printf %b. "$g"); ln -s -- "${g%.}" "$f" || return;;
    e) : >"$t/$1"; return;;
    esac
    case $2$k in Sf|SD) chmod "$m" "$f" || return; touch -d "@$s" "$f" 2>/dev/null;; esac
  done
  return 0
}
m=$1 how=$3 late=$4
unpack() {
  case $how in
  t) tar $late --no-same-permissions -xomf - -C "$t";;
  T) umask 0; tar $late -xof - -C "$t";;
  *) lines "$m" "$how";;
  esac
}
if [ "$2" ]; then head -c "$2" | unpack; else (unpack); fi || exit
[ -f "$t/$m" ] || { echo "kubews: cut" >&2; exit 75; }
rm -f -- "$t/$m"
depth=0
keep() { case $how in S|T) touch -r "$1" "$2" 2>/dev/null;; esac; }
merge() (
  from=$1; to=$2; depth=$((depth + 1)); set --
  [ -w "$from" ] || chmod u+w "$from" || exit
  for f in "$from"/* "$from"/.[!.]* "$from"/..?*; do
    [ -e "$f" ] || [ -h "$f" ] || continue
    g=$to/${f##*/}
    if [ -d "$f" ] && [ ! -h "$f" ]; then
      if [ -d "$g" ]; then
        keep "$f" "$t/$m$depth"  # before it changes, because what is in it leaves
        merge "$f" "$g" || exit
        keep "$t/$m$depth" "$g"
        continue
      fi
      if [ -e "$g" ] || [ -h "$g" ]; then echo "$g: is no directory" >&2; exit 1; fi
      if [ ! -w "$f" ]; then  # only who may write to a directory can move it to another
        chmod u+w "$f" && mv -f -- "$f" "$to/" && chmod u-w "$g" || exit
        continue
      fi
    elif [ -d "$g" ] && [ ! -h "$g" ]; then echo "$g: is a directory" >&2; exit 1
    fi
    set -- "$@" "$f"
    if [ $# -ge 100 ]; then mv -f -- "$@" "$to/" || exit; set --; fi
  done
  if [ $# -gt 0 ]; then mv -f -- "$@" "$to/"; fi
)
merge "$t" "$p"
"""

# What the shell needs to unpack.
_TOOLS = {"head", "wc", "mkdir", "ln"}


class TreeSender:
    """Copy files and directories into a directory of a pod.

    Args:
        pod: the pod itself.
        found: what is known about the image.
        attempts: what is kept of what the remote tools say.
        meter: who is told how far it is.
        preserve: whether modes and times are those here.

    Threads: one.
    """

    def __init__(
        self, pod: Target, found: Found, attempts: Attempts, meter: Meter, preserve: bool
    ) -> None:
        self._pod, self._found, self._attempts, self._meter = pod, found, attempts, meter
        self._preserve = preserve
        self._files = self._size = 0
        self._told: list[str] = []  # about what is here

    def send(self, sources: Sequence[tuple[str, str]], folder: str) -> Copied:
        """Copy paths here to names in a directory there; one without a name is a directory whose contents are meant.

        Raises:
            CopyError: the remote tools have failed, or something here cannot be read.
            ConnectionLost: it was cut.

        Threads: blocks.
        """
        tar = "tar" in self._found.programs
        if not tar and not self._found.programs >= _TOOLS:
            raise lacking(self._pod, "copying a directory to it", "tar")
        mark = new_name()
        measure, twice = None, not self._found.gnu_tar
        if not self._found.half_close:
            if "head" not in self._found.programs:
                raise lacking(self._pod, "copying to it by a server before Kubernetes 1.30", "head")
            items = _walk(sources)
            measure = packing.archive_size(items, mark, twice) if tar else packing.lines_size(items)
        if self._meter.wanted:
            self._meter.total = sum(item.size for item in _walk(sources))
        self._files = self._size = 0
        self._told = []
        items = self._counted(_walk(sources))
        pieces = (
            packing.as_archive(items, mark, twice, self._told)
            if tar
            else packing.as_lines(items, self._told)
        )
        if measure is not None:
            pieces = packing.exactly(pieces, measure)
        how = ("T" if self._preserve else "t") if tar else ("S" if self._preserve else "s")
        # Otherwise a directory that is read-only takes nothing of another that is merged with it. With many
        # directories it is slow.
        late = "--delay-directory-restore" if self._found.gnu_tar and len(sources) > 1 else ""
        argv = script(folder, _UNPACK, mark, "" if measure is None else str(measure), how, late)
        pipe(self._pod, argv, packing.joined(pieces), self._found, self._attempts)
        name = sources[0][1] if len(sources) == 1 else ""
        path = f"{folder.rstrip('/')}/{name}" if name else folder
        warnings = (*self._told, *self._attempts.warnings)
        return Copied(path, self._files, self._size, "archive" if tar else "size", warnings)

    def _counted(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            yield item  # its contents are sent before the next one is asked for
            if item.kind == "other":
                self._told.append(
                    f"{item.path}: left out, because it is a device, a FIFO or a socket"
                )
            elif item.kind == "file":
                self._files += 1
                self._size += item.size
                self._meter(self._size)


def _walk(sources: Sequence[tuple[str, str]]) -> Iterator[Item]:
    for path, name in sources:
        for item in packing.walk(path, name):
            if item.name:  # not the directory itself whose contents are meant
                yield item
