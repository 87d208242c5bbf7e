"""kubews exec -it and kubews shell at a real pseudo-terminal; kubectl shows what is right."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pytest
from programs import KUBEWS, PROGRAMS
from support import eventually

both = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


def settings(bash: pexpect.spawn) -> str:
    """Return all settings of the terminal."""
    bash.sendline("stty -g; echo e''nd")
    bash.expect("([0-9a-f]+:[0-9a-f:]+)\r\nend\r\n<0> ")
    return str(bash.match[1])


def begin(bash: pexpect.spawn, program: Sequence[str], arguments: str, script: str) -> None:
    bash.sendline(f"{shlex.join(program)} {arguments} -- sh -c {shlex.quote(script)}")
    bash.expect_exact("begun")


@both
def test_keys_size_and_exit_code(bash: pexpect.spawn, program: Sequence[str]) -> None:
    before = settings(bash)
    script = (
        "trap 'echo size $(stty size)' WINCH; trap 'echo interrupted' INT; echo be''gun; "
        "echo size $(stty size); while ! read word; do :; done; echo got $word; cat; exit 4"
    )
    begin(bash, program, "exec -it web-0", script)
    bash.expect_exact("size 33 77")
    bash.sendintr()
    bash.expect_exact("interrupted")
    bash.send("w\xf6rd\r")
    bash.expect_exact("got w\xf6rd")
    bash.setwinsize(44, 66)
    assert eventually(lambda: bash.getwinsize() == (44, 66))
    bash.sendeof()
    bash.expect_exact("command terminated with exit code 4")
    bash.expect_exact("<4> ")
    assert settings(bash) == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_as_before_after_a_signal(bash: pexpect.spawn, name: str) -> None:
    """And the shell sees the signal; kubectl restores it too, but ends with 1."""
    number = getattr(signal, name)
    before = settings(bash)
    begin(bash, KUBEWS, "exec -it web-0", "echo be''gun; exec sleep 1000")
    (child,) = Path(f"/proc/{bash.pid}/task/{bash.pid}/children").read_text().split()
    os.kill(int(child), number)
    bash.expect(f"<{128 + number}> ")
    assert settings(bash) == before


def test_shell(bash: pexpect.spawn) -> None:
    bash.sendline(f"{shlex.join(KUBEWS)} shell web-0")
    bash.sendline("echo e''cho $((6 * 7)); stty size")
    bash.expect_exact("echo 42")
    bash.expect_exact("33 77")
    bash.sendline("exit 5")
    bash.expect_exact("command terminated with exit code 5")
    bash.expect_exact("<5> ")
