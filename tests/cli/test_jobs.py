"""Job control in a real shell at a real pseudo-terminal; kubectl shows what is right."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import pexpect
import pytest
from programs import PROGRAMS, Commands
from support import eventually, seconds

import kubews


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS.keys())
def bash(request: pytest.FixtureRequest, commands: Commands) -> Iterator[pexpect.spawn]:
    """An interactive shell in which ``$K`` is the program."""
    program: Sequence[str] = request.param
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        env={**commands.environment, "PS1": "<$?> ", "TERM": "dumb", "K": shlex.join(program)},
        encoding="utf-8",
        timeout=seconds(30),
        echo=False,
    )
    shell.expect_exact("<0> ")
    try:
        yield shell
    finally:
        shell.close(force=True)


def job_is(bash: pexpect.spawn, state: str) -> bool:
    bash.sendline("jobs -l; echo the ''end")
    bash.expect_exact("the end")
    said = bash.before
    bash.expect("<[0-9]+> ")
    return state in said


def test_ctrl_c(bash: pexpect.spawn) -> None:
    """A loop of the shell ends with it, too."""
    bash.sendline("for i in 1 2; do $K exec web-0 -- sh -c 'echo begun; exec sleep 1000'; done")
    bash.expect_exact("begun")
    bash.sendintr()
    bash.expect_exact("<130> ")


def test_stopped_and_continued(bash: pexpect.spawn, pod: kubews.Pod) -> None:
    pod.check_call(["rm", "-f", "go-on"])
    script = "echo be''gun; until test -e go-on; do sleep 0.02; done; echo do''ne; exit 3"
    bash.sendline(f'$K exec web-0 -- sh -c "{script}"')
    bash.expect_exact("begun")
    bash.sendcontrol("z")
    bash.expect_exact("<148> ")
    assert job_is(bash, "Stopped")
    pod.check_call(["touch", "go-on"])
    bash.sendline("fg")
    bash.expect_exact("done")
    bash.expect_exact("command terminated with exit code 3")
    bash.expect_exact("<3> ")


@pytest.mark.half_close
def test_in_the_background_it_stops_for_input(bash: pexpect.spawn) -> None:
    bash.sendline("$K exec -i web-0 -- sh -c 'while read word; do echo got $word; done' &")
    bash.expect_exact("<0> ")
    assert eventually(lambda: job_is(bash, "Stopped (tty input)"), 20)
    bash.sendline("bg")
    bash.expect("<[0-9]+> ")
    assert eventually(lambda: job_is(bash, "Stopped (tty input)"), 20)
    bash.sendline("fg")
    bash.sendline("this")
    bash.expect_exact("got this")
    bash.sendcontrol("z")
    bash.expect_exact("<148> ")
    bash.sendline("fg")
    bash.sendline("that")
    bash.expect_exact("got that")
    bash.sendeof()
    bash.expect_exact("<0> ")


def test_without_input_the_background_is_no_hindrance(bash: pexpect.spawn) -> None:
    bash.sendline("$K exec web-0 -- sh -c 'echo begun; exit 5' & wait $!")
    bash.expect_exact("begun")
    bash.expect_exact("<5> ")
