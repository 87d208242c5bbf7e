"""Every command line of the README prints what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from programs import KUBEWS, ROOT, Commands
from support import seconds

SESSIONS = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.half_close
def test_sessions_of_the_readme(commands: Commands, tmp_path: Path) -> None:
    program = tmp_path / "kubews"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(KUBEWS)} "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    steps = [step for session in SESSIONS for step in re.split(r"^\$ ", session, flags=re.M)[1:]]
    assert steps
    for step in steps:
        line, _, output = step.partition("\n")
        done = subprocess.run(
            ["bash", "-c", line],
            env={**commands.environment, "PATH": path},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds(60),
        )
        assert done.stdout == output, line
