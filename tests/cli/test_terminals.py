"""kubews exec -it, attach -it and shell at a real pseudo-terminal; kubectl shows what is right."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence

import pexpect
import pytest
from clusters import AnyCluster
from programs import KUBEWS, PROGRAMS
from terminals import CURSES, terminal

from kubews import NotFound
from kubews.testing import Faults, LocalCluster

Interactive = Callable[[str], str]

both = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


_numbers = itertools.count()


@pytest.fixture
def interactive(cluster: AnyCluster) -> Iterator[Interactive]:
    """Makes a pod whose own process, a script, has a terminal and an input; returns its name."""
    names = []
    never = {} if isinstance(cluster, LocalCluster) else {"restart_policy": "Never"}

    def make(script: str) -> str:
        names.append(f"interactive-{next(_numbers)}")
        command = {"app": ["sh", "-c", script]}
        cluster.add_pod(names[-1], command, stdin=True, tty=True, **never)
        return names[-1]

    yield make
    for name in names:
        with contextlib.suppress(KeyError, NotFound):
            cluster.delete_pod(name)


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
    bash.setwinsize(44, 66)
    bash.expect_exact("size 44 66")
    bash.send("w\xf6rd\r")
    bash.expect_exact("got w\xf6rd")
    bash.sendeof()
    bash.expect_exact("command terminated with exit code 4")
    bash.expect_exact("<4> ")
    assert settings(bash) == before


@both
def test_a_full_screen_program(bash: pexpect.spawn, program: Sequence[str]) -> None:
    before = settings(bash)
    bash.sendline(f"{shlex.join(program)} exec -it web-0 -- python3 -c {shlex.quote(CURSES)}")
    bash.expect_exact("33 lines 77 columns 0 keys")
    for code in b"\x03\x04\x1a\x1c\x13":  # Ctrl-C and the like: keys there, and nothing here
        bash.send(chr(code))
    bash.expect_exact("5 keys")
    bash.setwinsize(22, 88)
    bash.expect_exact("22 lines 88 columns 5 keys")
    bash.send("q")
    bash.expect_exact("<0> ")
    assert settings(bash) == before


@pytest.mark.parametrize("words", [["exec", "-it"], ["shell"], ["attach", "-it"]], ids=" ".join)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_as_before_after_a_signal(
    cluster: AnyCluster, interactive: Interactive, name: str, words: list[str]
) -> None:
    """And the signal is what it dies of; kubectl restores it too, but ends with 1.

    No shell is around it: that would put the terminal in order for a program that a signal has killed.
    """
    number = getattr(signal, name)
    script = "read x; echo begun; exec sleep 1000"
    attach = words[0] == "attach"
    target = [interactive(script)] if attach else ["web-0", "--", "sh", "-c", script]
    with terminal([*KUBEWS, f"--kubeconfig={cluster.kubeconfig}", *words, *target]) as term:
        before = term.settings
        term.becomes_raw()
        term.type("\r")
        term.expect("begun")
        assert term.raw
        term.program.send_signal(number)
        assert term.wait() == -number
        assert term.settings == before


def test_the_terminal_is_as_before_after_a_lost_connection(
    local: LocalCluster, bash: pexpect.spawn
) -> None:
    before = settings(bash)
    local.next_faults(Faults(match="/exec", drop_after=2000))
    script = "echo be''gun; read x; head -c 9999 /dev/zero | tr '\\0' x"
    begin(bash, KUBEWS, "exec -it web-0", script)
    bash.send("\r")
    bash.expect("error: .*connection lost")
    bash.expect_exact("<1> ")
    assert settings(bash) == before


@both
@pytest.mark.parametrize("command", ["exec", "attach"])
def test_the_terminal_is_as_before_when_the_pod_is_deleted(
    cluster: AnyCluster,
    bash: pexpect.spawn,
    interactive: Interactive,
    program: Sequence[str],
    command: str,
) -> None:
    before = settings(bash)
    pod = interactive("while read x; do echo be''gun; done")
    if command == "exec":
        begin(bash, program, f"exec -it {pod}", "echo be''gun; exec sleep 1000")
    else:
        bash.sendline(f"{shlex.join(program)} attach -it {pod}")
        bash.expect_exact("try pressing enter.")
        bash.send("\r")
        bash.expect_exact("begun")
    cluster.delete_pod(pod)
    # Of an attachment nobody can tell the exit code when the pod is gone.
    bash.expect("<(0|137)> " if command == "attach" else "<137> ")
    assert settings(bash) == before


TALK = (
    "trap 'echo size $(stty size)' WINCH; trap 'echo interrupted' INT; "
    "touch ready; while ! read word; do :; done; echo got $word; cat; exit 6"
)


@both
def test_attach(
    cluster: AnyCluster, bash: pexpect.spawn, interactive: Interactive, program: Sequence[str]
) -> None:
    """The size at once, so that a full screen is drawn again; keys, letting go, coming back, the end."""
    before = settings(bash)
    pod = interactive(TALK)
    with cluster.client() as client:  # a signal that comes before its trap is heard by nobody
        client.pod(pod).check_call("until test -e ready; do sleep 0.01; done", shell=True)
    line = f"{shlex.join(program)} attach -it {pod}"
    bash.sendline(line)
    bash.expect_exact("try pressing enter.")
    bash.expect_exact("size 33 77")
    bash.sendintr()
    bash.expect_exact("interrupted")
    bash.setwinsize(44, 66)
    bash.expect_exact("size 44 66")
    bash.send("\x10\x11")
    bash.expect_exact("Session ended, resume using 'kube")
    bash.expect("<[0-9]+> ")
    assert settings(bash) == before
    bash.sendline(line)
    bash.expect_exact("size 44 66")  # though it is the same
    bash.send("w\xf6rd\r")
    bash.expect_exact("got w\xf6rd")
    bash.sendeof()
    bash.expect_exact("Session ended, resume using 'kube")
    if program is KUBEWS:
        bash.expect_exact("command terminated with exit code 6")
    bash.expect_exact("<6> " if program is KUBEWS else "<0> ")
    assert settings(bash) == before


def test_shell(bash: pexpect.spawn) -> None:
    bash.sendline(f"{shlex.join(KUBEWS)} shell web-0")
    bash.sendline("until stty size | grep -qv '^0'; do sleep 0.02; done")
    bash.sendline("echo e''cho $((6 * 7)); stty size")
    bash.expect_exact("echo 42")
    bash.expect_exact("33 77")
    bash.sendline("exit 5")
    bash.expect_exact("command terminated with exit code 5")
    bash.expect_exact("<5> ")
