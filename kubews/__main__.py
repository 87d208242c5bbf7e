"""``python -m kubews``: the command line.

Threads: one.
"""

from __future__ import annotations

import sys

from kubews.cli import main

if __name__ == "__main__":
    sys.exit(main())
