"""What can go wrong while a cluster is brought up or taken down."""

from __future__ import annotations

import sys


class ClusterError(Exception):
    """The cluster cannot be had; the message is one line that says why and where to look."""


def say(text: str) -> None:
    """Tell what takes a while, on stderr: stdout is for the shell to evaluate."""
    print(text, file=sys.stderr, flush=True)
