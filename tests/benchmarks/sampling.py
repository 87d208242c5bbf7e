"""Where the time goes: the functions in which the threads of this process are found.

A sampler in Python sees another thread only when that one gives up the interpreter lock. So calls that
release it (TLS, the kernel) are found too often, and waiting for the lock behind them looks like the call
itself. A short switch interval makes it fairer; the shares remain an estimate. The CPU time beside them is
the kernel's account and exact.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import FrameType, TracebackType
from typing import Optional

_INTERVAL = 0.001
_SWITCH = 0.0001
_TOP = 12

_WAITING = {("selectors", "select"), ("threading", "wait"), ("wait", "park")}


class Sampler:
    """Look at all threads once a millisecond, inside a ``with``.

    Threads: used by one, runs one.
    """

    def __init__(self) -> None:
        self._found: dict[str, Counter[tuple[str, str]]] = {}
        self._cpu: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def lines(self) -> Iterator[str]:
        """Format the functions of each thread, the most frequent first."""
        for thread, counts in sorted(self._found.items()):
            total = sum(counts.values())
            waiting = sum(counts[place] for place in _WAITING)
            cpu = sum(seconds for (name, _), seconds in self._cpu.items() if name == thread)
            yield f"  {thread}: {total} samples, {waiting / total:.0%} waiting; {cpu:.2f} s of CPU"
            for (module, function), count in counts.most_common(_TOP):
                yield f"    {count / total:6.1%}  {module}.{function}"

    def _run(self) -> None:
        me = threading.get_ident()
        start = {thread.native_id: _cpu_seconds(thread) for thread in threading.enumerate()}
        while not self._stop.is_set():
            frames = sys._current_frames()
            for thread in threading.enumerate():
                if thread.ident == me or thread.ident not in frames or thread.native_id is None:
                    continue
                place = _place(frames[thread.ident])
                self._found.setdefault(thread.name, Counter())[place] += 1
                used = _cpu_seconds(thread) - start.get(thread.native_id, 0.0)
                self._cpu[thread.name, thread.native_id] = used
            time.sleep(_INTERVAL)


def _place(frame: FrameType) -> tuple[str, str]:
    code = frame.f_code
    return PurePath(code.co_filename).stem, code.co_name


def _cpu_seconds(thread: threading.Thread) -> float:
    try:
        account = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
    except OSError:
        return 0.0  # it has ended, or this is not Linux
    return int(account.split()[0]) / 1e9
