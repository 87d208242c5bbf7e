"""Exec plugins as real programs: small shell scripts that a test writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from kubews.config import ExecPlugin

V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"


def credential(api_version: str = V1, **status: Any) -> str:
    """What a plugin prints."""
    return json.dumps({"kind": "ExecCredential", "apiVersion": api_version, "status": status})


class Plugins:
    """Writes plugins into a directory; each counts its runs.

    Args:
        root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = root / "runs"

    def write(self, script: str, **fields: Any) -> ExecPlugin:
        """Write a shell script and describe it, by default as one that needs no terminal."""
        path = self.root / "plugin"
        path.write_text(f"#!/bin/sh\necho run >> {shlex.quote(str(self._log))}\n{script}\n")
        path.chmod(0o755)
        return ExecPlugin(str(path), **{"interactive_mode": "Never", **fields})

    def printing(self, output: str, **fields: Any) -> ExecPlugin:
        """Write one that prints something."""
        (self.root / "output").write_text(output)
        return self.write(f"cat {shlex.quote(str(self.root / 'output'))}", **fields)

    @property
    def runs(self) -> int:
        """How often it ran."""
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0
