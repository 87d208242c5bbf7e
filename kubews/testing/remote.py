"""A Host in a process of its own: calls go through its stdin, results come from its stdout.

The child ends when it is told to or its stdin ends, so it cannot outlive its parent, whatever ends
that. Both ends are this package, started by this process: the pickles between them cross no border
of trust.

Threads: a ``RemoteHost`` may be used by any thread; calls are carried out one after another.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from typing import IO, Any, Optional

from kubews.testing.forks import check_owner, no_fork, not_for_forks

_END_SECONDS = 15.0
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Not by PYTHONPATH: every pod would inherit it.
_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from kubews.testing.remote import main
main()
"""


class RemoteHost:
    """Forward every call to a ``Host`` in a child process.

    Args:
        options: those of ``Host``.

    Threads: safe.
    """

    def __init__(self, **options: Any) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        with no_fork:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, _ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A Ctrl-C in the terminal is the parent's: it closes the child in its own order.
                start_new_session=True,
            )
            self._child = not_for_forks(child)
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
        request = pickle.dumps((name, args, kwargs))  # what cannot travel fails here, and alone
        check_owner(self._owner)
        with self._lock:
            if self._closed:
                raise ValueError("the cluster is closed")
            if self._busy:
                raise RuntimeError("a call was interrupted: the cluster can only be closed now")
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            self._busy = True
            try:
                self._child.stdin.write(request)
                self._child.stdin.flush()
                error, value = pickle.load(self._child.stdout)
            except (EOFError, OSError, pickle.UnpicklingError) as exc:
                self._busy = False
                code = self._child.poll()
                raise RuntimeError(f"the process of LocalCluster has ended ({code})") from exc
            self._busy = False
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the child and wait for it. Idempotent; blocks for a bounded time."""
        if os.getpid() != self._owner:
            return  # a fork: nothing here is its own, and the lock may be held for ever
        with self._lock:
            self._closed = True
            if self._child.stdout is not None:
                self._child.stdout.close()  # it may be writing the result of an interrupted call
            self._tell_the_end()
            try:
                self._child.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _tell_the_end(self) -> None:
        stdin = self._child.stdin
        if stdin is None or stdin.closed:
            return
        try:
            # By a word, too: somebody may have a copy of the pipe, which then does not end.
            stdin.write(pickle.dumps(None))
            stdin.close()
        except OSError:
            pass  # it has ended already


def main() -> None:
    """Serve a ``RemoteHost`` by this process's stdin and stdout. Blocks."""
    # Whatever prints must not get between the results.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError), results:  # nobody waits for a result: the end
        serve(sys.stdin.buffer, results)


def serve(requests: IO[bytes], results: IO[bytes]) -> None:
    """Carry out the calls of a ``RemoteHost`` until the last of ``requests``. Blocks."""
    from kubews.testing.host import Host

    host: Optional[Host] = None
    try:
        while (request := _next(requests)) is not None:
            name, args, kwargs = request
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


def _next(requests: IO[bytes]) -> Optional[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    try:
        request: Optional[tuple[str, tuple[Any, ...], dict[str, Any]]] = pickle.load(requests)
    except (EOFError, pickle.UnpicklingError):  # the end, perhaps in the middle of a request
        return None
    return request


def _pickled(error: Optional[Exception], value: Any) -> bytes:
    try:
        return pickle.dumps((error, value))
    except Exception as exc:  # an exception that holds what cannot travel
        return pickle.dumps((RuntimeError(f"{error!r} ({exc})"), None))
