"""What is left to do when the process that serves a cluster is killed: end its pods.

A test run that a time limit kills cannot clean up. A shell that waits for the end of a pipe can.

Threads: a ``Guard`` may be released by any thread, once.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from kubews.testing.forks import no_fork, not_for_forks

MARK = "KUBEWS_CLUSTER"

# A line: all is well. The end of the input without one: the server is dead.
_SCRIPT = """
read -r line && exit 0
for file in /proc/[0-9]*/environ; do
  pid=${file#/proc/}
  grep -qzx "$1" "$file" 2>/dev/null && kill -9 "${pid%/environ}" 2>/dev/null
done
rm -rf -- "$2"
"""


class Guard:
    """Kill the processes that carry a mark, and remove a directory, if this process dies.

    Args:
        directory: the cluster's scratch directory.

    Threads: see the module.
    """

    def __init__(self, directory: Path) -> None:
        self.value = secrets.token_hex(8)
        with no_fork:  # one that kept the pipe open would hide our death
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "kubews-guard", f"{MARK}={self.value}", str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
            )
            self._shell = not_for_forks(shell)

    def release(self) -> None:
        """Tell the shell that nothing is left to do, and wait for its end."""
        try:
            self._shell.communicate(b"\n", timeout=5.0)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._shell.kill()
            self._shell.communicate()
