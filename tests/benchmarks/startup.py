"""What an import costs a program that starts, and what a short command takes from start to end."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import Benchmark, Row, Sample, Subject, milliseconds
from ways import Ways, kubectl_program

_BARE = "python -c pass"
_SCRIPT = "a script over websocket-client"
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
    environment = _environment(root, scratch)
    return Benchmark(
        "import",
        {
            name: _starting([sys.executable, "-S", "-c", code], environment, scratch)
            for name, code in _CODE.items()
        },
        [Row(name, name, _BARE, "wall", milliseconds) for name in _CODE if name != _BARE],
    )


def commands(ways: Ways, root: Path, scratch: str) -> Benchmark:
    """Start the command line as it is installed: in an environment of its own without ``.pth`` files.

    Most of what it takes are imports, and most of those are not its own: the interpreter with ssl, argparse and
    websocket-client (which imports inspect, logging and, where it is installed, python_socks) takes as
    long as kubectl takes for everything. So the same by a script of a page is a floor, too.

    Args:
        ways: for a cluster.
        root: the directory that ``kubews`` is in.
        scratch: a directory for compiled modules and the environment.
    """
    place = Path(scratch, "environment")
    venv.create(place, symlinks=True)
    python = str(place / "bin" / "python")
    program = Path(scratch, "kubews")
    program.write_text("import sys\nfrom kubews.cli import program\nsys.exit(program())\n")
    remote = ["exec", "web-0", "--", "echo", "hi"]
    environment = _environment(root, scratch)
    environment.update(KUBECONFIG=ways.kubeconfig, HOME=scratch)
    lines = {
        _BARE: [python, "-c", "pass"],
        "kubews --version": [python, str(program), "--version"],
        "kubectl exec": [kubectl_program(), *remote],
        _SCRIPT: [python, str(Path(__file__).with_name("bare_exec.py")), "web-0", "echo", "hi"],
        "kubews exec": [python, str(program), *remote],
    }
    floors = [
        ("kubews exec", "kubectl exec"),
        ("kubews exec", _SCRIPT),
        ("kubews --version", _BARE),
    ]
    return Benchmark(
        "command",
        {name: _starting(command, environment, scratch) for name, command in lines.items()},
        [Row(name, name, floor, "wall", milliseconds) for name, floor in floors],
    )


def _environment(root: Path, scratch: str) -> dict[str, str]:
    path = os.pathsep.join([str(root), *site.getsitepackages()])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": scratch}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _starting(command: Sequence[str], environment: Mapping[str, str], directory: str) -> Subject:
    def start() -> Sample:
        before = time.perf_counter()
        subprocess.run(
            command, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        return {"wall": time.perf_counter() - before}

    return start
