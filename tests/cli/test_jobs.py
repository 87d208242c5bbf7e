"""Job control in a real shell at a real pseudo-terminal; kubectl shows what is right."""

from __future__ import annotations

import shlex

import pexpect
import pytest
from programs import PROGRAMS
from support import eventually

import kubews


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS.keys())
def jobs(request: pytest.FixtureRequest, bash: pexpect.spawn) -> pexpect.spawn:
    """An interactive shell in which ``$K`` is the program."""
    bash.sendline(f"K={shlex.quote(shlex.join(request.param))}")
    bash.expect_exact("<0> ")
    return bash


def job_is(jobs: pexpect.spawn, state: str) -> bool:
    jobs.sendline("jobs -l; echo the ''end")
    jobs.expect_exact("the end")
    said = jobs.before
    jobs.expect("<[0-9]+> ")
    return state in said


def test_ctrl_c(jobs: pexpect.spawn) -> None:
    """A loop of the shell ends with it, too."""
    jobs.sendline("for i in 1 2; do $K exec web-0 -- sh -c 'echo begun; exec sleep 1000'; done")
    jobs.expect_exact("begun")
    jobs.sendintr()
    jobs.expect_exact("<130> ")


def test_stopped_and_continued(jobs: pexpect.spawn, pod: kubews.Pod) -> None:
    pod.check_call(["rm", "-f", "go-on"])
    script = "echo be''gun; until test -e go-on; do sleep 0.02; done; echo do''ne; exit 3"
    jobs.sendline(f'$K exec web-0 -- sh -c "{script}"')
    jobs.expect_exact("begun")
    jobs.sendcontrol("z")
    jobs.expect_exact("<148> ")
    assert job_is(jobs, "Stopped")
    pod.check_call(["touch", "go-on"])
    jobs.sendline("fg")
    jobs.expect_exact("done")
    jobs.expect_exact("command terminated with exit code 3")
    jobs.expect_exact("<3> ")


@pytest.mark.half_close
def test_in_the_background_it_stops_for_input(jobs: pexpect.spawn) -> None:
    jobs.sendline("$K exec -i web-0 -- sh -c 'while read word; do echo got $word; done' &")
    jobs.expect_exact("<0> ")
    assert eventually(lambda: job_is(jobs, "Stopped (tty input)"), 20)
    jobs.sendline("bg")
    jobs.expect("<[0-9]+> ")
    assert eventually(lambda: job_is(jobs, "Stopped (tty input)"), 20)
    jobs.sendline("fg")
    jobs.sendline("this")
    jobs.expect_exact("got this")
    jobs.sendcontrol("z")
    jobs.expect_exact("<148> ")
    jobs.sendline("fg")
    jobs.sendline("that")
    jobs.expect_exact("got that")
    jobs.sendeof()
    jobs.expect_exact("<0> ")


def test_without_input_the_background_is_no_hindrance(jobs: pexpect.spawn) -> None:
    jobs.sendline("$K exec web-0 -- sh -c 'echo begun; exit 5' & wait $!")
    jobs.expect_exact("begun")
    jobs.expect_exact("<5> ")


@pytest.mark.half_close
def test_a_terminal_whose_output_goes_elsewhere(jobs: pexpect.spawn) -> None:
    """``exec -it`` in front of a pipe, as people type it: the command has its terminal all the same."""
    jobs.sendline(
        "$K exec -it web-0 -- sh -c 'test -t 1 && echo be''gun; exit 6' | cat; echo ${PIPESTATUS[0]}"
    )
    jobs.expect_exact("begun")
    jobs.expect("\r\n6\r\n<0> ")


def test_a_terminal_is_lent_in_the_foreground_only(jobs: pexpect.spawn) -> None:
    jobs.sendline("$K exec -it web-0 -- sh -c 'echo be''gun; read x; echo got $x; exit 7' &")
    jobs.expect_exact("<0> ")
    assert eventually(lambda: job_is(jobs, "Stopped (tty output)"), 20)
    jobs.sendline("fg")
    jobs.expect_exact("begun")
    jobs.send("this\r")
    jobs.expect_exact("got this")
    jobs.expect_exact("<7> ")
    jobs.sendline("stty -a | grep -wo icanon")
    jobs.expect_exact("icanon")
