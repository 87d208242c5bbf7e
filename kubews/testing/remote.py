"""A Host in a process of its own: calls go through its stdin, results come from its stdout.

The child ends when its stdin does, so it cannot outlive its parent, whatever ends that. Both ends
are this package, started by this process: the pickles between them cross no border of trust.

Threads: a ``RemoteHost`` may be used by any thread; calls are carried out one after another.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import IO, Any, Optional

_END_SECONDS = 15.0


class RemoteHost:
    """Forward every call to a ``Host`` in a child process.

    Args:
        options: those of ``Host``.

    Threads: safe.
    """

    def __init__(self, **options: Any) -> None:
        self._lock = threading.Lock()
        package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "kubews.testing", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            # A Ctrl-C in the terminal is the parent's: it closes the child in its own order.
            start_new_session=True,
        )
        self._closed = False
        self._busy = False
        try:
            self._call("start", **options)
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._closed:
                raise ValueError("the cluster is closed")
            if self._busy:
                raise RuntimeError("a call was interrupted: the cluster can only be closed now")
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            self._busy = True
            pickle.dump((name, args, kwargs), self._child.stdin)
            self._child.stdin.flush()
            try:
                error, value = pickle.load(self._child.stdout)
            except EOFError:
                code = self._child.poll()
                raise RuntimeError(f"the process of LocalCluster has ended ({code})") from None
            self._busy = False
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the child and wait for it. Idempotent; blocks for a bounded time."""
        with self._lock:
            self._closed = True
            child = self._child
            if child.stdin is not None:
                try:
                    child.stdin.close()
                except BrokenPipeError:
                    pass  # it has ended already
            try:
                child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()


def serve(requests: IO[bytes], results: IO[bytes]) -> None:
    """Carry out the calls of a ``RemoteHost`` until the end of ``requests``. Blocks."""
    from kubews.testing.host import Host

    host: Optional[Host] = None
    try:
        while True:
            try:
                name, args, kwargs = pickle.load(requests)
            except EOFError:
                return
            error, value = None, None
            try:
                if host is None:
                    host = Host(*args, **kwargs)
                else:
                    value = getattr(host, name)(*args, **kwargs)
            except Exception as exc:
                error = exc
            results.write(_pickled(error, value))
            results.flush()
    finally:
        if host is not None:
            host.close()


def _pickled(error: Optional[Exception], value: Any) -> bytes:
    try:
        return pickle.dumps((error, value))
    except Exception as exc:  # an exception that holds what cannot travel
        return pickle.dumps((RuntimeError(f"{error!r} ({exc})"), None))
