"""What a fork of this process must give up: descriptors whose end somebody waits for.

A pipe or a connection ends when its last copy is closed. A fork copies them all, so a child that
lives on would keep a port listening, a process waiting for the end of its input, and the guard
waiting for the death of a process that is long dead.

Threads: everything here may be used by any thread.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
import weakref
from typing import IO, TypeVar, Union

Resource = TypeVar("Resource", bound=Union[socket.socket, io.FileIO, "subprocess.Popen[bytes]"])

# Held while a resource is made and entered: a fork in between would keep what nobody knows of yet.
# A thread may hold it and fork, if a signal's handler does.
no_fork = threading.RLock()

_ours: weakref.WeakSet[Union[socket.socket, io.FileIO, subprocess.Popen[bytes]]] = weakref.WeakSet()


def not_for_forks(resource: Resource) -> Resource:
    """Return the resource, which every fork of this process will close at once.

    Make it and call this ``with no_fork``.

    Args:
        resource: a socket, an unbuffered file, or a ``Popen``, whose pipes are meant.
    """
    _ours.add(resource)
    return resource


def _give_up() -> None:
    """In a fork: close this process's copies. What they lead to is the parent's."""
    for resource in list(_ours):
        if not isinstance(resource, subprocess.Popen):
            _close(resource)
            continue
        for pipe in (resource.stdin, resource.stdout, resource.stderr):
            if pipe is not None:
                # Below the buffer: a thread that no longer exists may hold its lock, and what is
                # in it is the parent's to send.
                _close(getattr(pipe, "raw", pipe))
        resource.returncode = 0  # not our child: nothing to wait for, or to warn about
    _ours.clear()
    no_fork.release()


def _close(file: Union[socket.socket, IO[bytes], io.FileIO]) -> None:
    with contextlib.suppress(OSError):
        file.close()


def check_owner(pid: int) -> None:
    """Refuse to go on in a fork of the process ``pid``.

    Raises:
        RuntimeError: this is one.
    """
    if os.getpid() != pid:
        raise RuntimeError("a fork cannot change the LocalCluster of its parent, only use it")


os.register_at_fork(
    before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=_give_up
)
