"""What an import costs a program that starts."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import time
from pathlib import Path

from measure import Benchmark, Row, Sample, Subject, milliseconds

_BARE = "python -c pass"
_CODE = {
    _BARE: "pass",
    "import kubews": "import kubews",
    "import kubews; kubews.run": "import kubews; kubews.run",
}


def imports(root: Path, scratch: str) -> Benchmark:
    """Start interpreters, without the ``.pth`` files of this environment: they may import half a library.

    Args:
        root: the directory that ``kubews`` is in.
        scratch: a directory for compiled modules, which the first round fills.
    """
    path = os.pathsep.join([str(root), *site.getsitepackages()])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": scratch}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def starting(code: str) -> Subject:
        command = [sys.executable, "-S", "-c", code]

        def start() -> Sample:
            before = time.perf_counter()
            subprocess.run(command, cwd=scratch, env=environment, check=True)
            return {"wall": time.perf_counter() - before}

        return start

    return Benchmark(
        "import",
        {name: starting(code) for name, code in _CODE.items()},
        [Row(name, name, _BARE, "wall", milliseconds) for name in _CODE if name != _BARE],
    )
