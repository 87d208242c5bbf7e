"""Trees from a pod: sent by tar or by a shell, and landed here when all of it has come."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kubews.errors import TruncatedTransfer
from kubews.files import listings
from kubews.files.archives import TarReader
from kubews.files.arrival import Arrival, Entry, Limits
from kubews.files.copying import Attempts, Copied
from kubews.files.landing import Landing, Name
from kubews.files.parts import new_name
from kubews.files.places import Place
from kubews.files.progress import Meter
from kubews.files.remotefiles import Found, base_of, printing
from kubews.files.source import Source
from kubews.popen import PIPE, Popen

if TYPE_CHECKING:
    from kubews.targets import Target

# What starts the command that sends the tree.
_Start = Callable[[], Popen]
# What makes entries of a stream.
_Reader = Callable[[Callable[[int], bytes]], Iterator[Entry]]


class TreeReceiver:
    """Copy a directory of a pod to here.

    Args:
        pod: the pod itself.
        path: in it.
        attempts: what is kept of what the remote tools say.
        meter: who is told how far it is.
        limits: how much may come.
        preserve: whether modes and times are the pod's.
        symlinks: whether to make links that stay within the copy.

    Threads: one.
    """

    def __init__(
        self,
        pod: Target,
        path: str,
        attempts: Attempts,
        meter: Meter,
        *,
        limits: Limits,
        preserve: bool,
        symlinks: bool,
    ) -> None:
        self._pod, self._path, self._attempts, self._meter = pod, path, attempts, meter
        self._limits, self._preserve, self._symlinks = limits, preserve, symlinks

    def receive(self, source: Source, found: Found, target: str) -> Copied:
        """Copy the directory to a path, by tar if the image has it, else by the shell.

        Raises:
            CopyError: the remote tools have failed, or something cannot be written here.
            TruncatedTransfer: it was cut.
            ConnectionLost: it was cut.

        Threads: blocks.
        """
        if "tar" in found.programs:
            return self._receive(target, source.tree, _archive, (), "archive")
        words = (listings.SEND, listings.arguments(found.programs))
        start = functools.partial(printing, self._pod, self._path, *words)
        return self._receive(target, start, _listing, (), "size")

    def receive_anything(self, target: str) -> Copied:
        """Copy what is at the path, file or directory, with nothing but tar; else as ``receive``.

        Raises:
            ExecError: there is no tar.
        """
        base = base_of(self._path)
        folder = self._path.rpartition("/")[0] or "/" if base else self._path
        argv = ["tar", "cf", "-", "-C", folder, f"./{base}" if base else "."]
        start = functools.partial(Popen, argv, pod=self._pod, bufsize=0, stdout=PIPE, stderr=PIPE)
        return self._receive(target, start, _archive, (base,) if base else (), "archive")

    def _receive(
        self, target: str, start: _Start, reader: _Reader, prefix: Name, verified: str
    ) -> Copied:
        """Write what a command sends; a tree that is new here gets its name when all of it has come."""
        folder, name = os.path.split(target)
        if os.path.lexists(target):
            arrival = self._land(folder, name, start, reader, prefix)
        else:
            temporary = new_name()
            whole = os.path.join(folder, temporary)
            try:
                arrival = self._land(folder, temporary, start, reader, prefix, called=target)
                if os.path.lexists(whole):  # not if all that came was left out
                    os.rename(whole, target)
            except BaseException:
                _remove(whole)
                raise
        warnings = (*self._attempts.warnings, *arrival.warnings)
        return Copied(target, arrival.files, arrival.size, verified, warnings)

    def _land(
        self,
        folder: str,
        name: str,
        start: _Start,
        reader: _Reader,
        prefix: Name,
        *,
        called: str = "",
    ) -> Arrival:
        with Landing(folder, preserve=self._preserve, called=called) as landing:
            arrival = Arrival(
                landing,
                prefix=prefix,
                replaced_by=(name,) if name else (),
                limits=self._limits,
                symlinks=self._symlinks,
                progress=self._meter,
            )
            with start() as process:
                try:
                    arrival.take(reader(process.stdout.read))
                except TruncatedTransfer:
                    self._attempts.ended(process)  # which knows more, if it has failed
                    raise
                self._attempts.ended(process, may_change=reader is _archive)
        return arrival


def _archive(read: Callable[[int], bytes]) -> Iterator[Entry]:
    return TarReader(read).entries()


def _listing(read: Callable[[int], bytes]) -> Iterator[Entry]:
    return listings.ListingReader(read).entries()


def _remove(path: str) -> None:
    """Remove a tree that was not finished, as far as that is possible."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(RecursionError):  # hostile, and very deep
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            _unlock(path)
            shutil.rmtree(path, ignore_errors=True)


def _unlock(path: str) -> None:
    """Let what is in directories be removed that have their modes already, and may be read-only."""
    with contextlib.suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
        with contextlib.closing(Place(path)) as place:
            _unlock_below(place)


def _unlock_below(place: Place) -> None:
    """Go from descriptor to descriptor: the path of what has come may be longer than the system takes."""
    for name in place.names():
        with contextlib.suppress(OSError):  # the others still can be removed
            info = place.lstat(name)
            if info is not None and stat.S_ISDIR(info.st_mode):
                os.chmod(place.at(name), stat.S_IRWXU, **place.here)
                with contextlib.closing(Place(name, place)) as below:
                    _unlock_below(below)
