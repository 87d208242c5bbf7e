"""``python -m kubews``: the command line.

Threads: one.
"""

from __future__ import annotations

from kubews.cli import program

if __name__ == "__main__":
    program()
