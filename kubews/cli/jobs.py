"""Job control of a shell, for a command that reads the terminal (``kubews exec -i``) without lending it.

The kernel stops whoever reads the terminal from the background; whoever only waits until there is something
to read is left alone, and would be a second reader of what is typed to others. So this stops as a read would.

Threads: the main one.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def obey_job_control() -> None:
    """Stop while this is in the background of the terminal that stdin is, now and whenever it goes on."""
    if sys.stdin is None or not sys.stdin.isatty() or not hasattr(signal, "SIGTTIN"):
        return
    signal.signal(signal.SIGCONT, _stop_in_background)
    _stop_in_background()


def _stop_in_background(*_: Any) -> None:
    try:
        in_foreground = os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return  # it is not the terminal that decides about this process
    if not in_foreground:
        os.killpg(os.getpgrp(), signal.SIGTTIN)  # as the kernel: all of the pipeline
