"""A server in a process of its own, which ends with the one that has started it."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from typing_extensions import Self


class ServerProcess:
    """A script that says in its first line where it listens.

    Args:
        script: its path; it ends with its input.

    Threads: any.
    """

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        #: The first line.
        self.said = self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._process.communicate()
