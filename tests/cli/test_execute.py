"""kubews exec: bytes in and out, and every way to end; kubectl shows what is right."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from clusters import AnyCluster
from programs import KUBEWS, PROGRAMS, ROOT, Commands
from support import in_thread, seconds

import kubews
from kubews.testing import LocalCluster

both = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


@pytest.mark.half_close
@both
def test_a_megabyte_of_anything_comes_back(commands: Commands, program: Sequence[str]) -> None:
    data = os.urandom(1 << 20)
    said = commands.run("exec", "-i", "web-0", "--", "cat", data=data, program=program)
    assert (said.err, said.code) == ([], 0)
    assert said.out == data


@pytest.mark.half_close
@both
def test_output_comes_as_it_is_written(commands: Commands, program: Sequence[str]) -> None:
    arguments = ("exec", "-i", "web-0", "--", "cat")
    with commands.start(*arguments, program=program, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word)
            assert in_thread(process.stdout.read, 3).result(20) == word
        process.stdin.close()
        assert process.wait(seconds(20)) == 0


@both
def test_without_i_nobody_touches_the_input(commands: Commands, program: Sequence[str]) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"for somebody else")
        with commands.start("exec", "web-0", "--", "cat", program=program, stdin=reader) as process:
            assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert os.read(reader, 100) == b"for somebody else"
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.half_close
def test_input_that_the_command_does_not_want(local: LocalCluster, commands: Commands) -> None:
    """What containerd never tells the end of; kubectl sometimes logs that it could not write."""
    with (
        subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless,
        commands.start("exec", "-i", "web-0", "--", "head", "-1", stdin=endless.stdout) as process,
    ):
        assert endless.stdout is not None
        endless.stdout.close()
        assert process.communicate(timeout=seconds(20)) == (b"y\n", b"")
        assert process.returncode == 0
        assert endless.wait(seconds(20)) == -signal.SIGPIPE


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null"])
@pytest.mark.half_close
def test_no_input_at_all_is_the_end_of_it(commands: Commands, redirection: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *KUBEWS]
    said = commands.run("exec", "-i", "web-0", "--", "wc", "-c", program=shell)
    assert (said.out.strip(), said.err, said.code) == (b"0", [], 0)


@pytest.mark.half_close
def test_input_that_cannot_be_read_is_an_error(commands: Commands, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with commands.start("exec", "-i", "web-0", "--", "cat", stdin=descriptor) as process:
            out, err = process.communicate(timeout=seconds(20))
    finally:
        os.close(descriptor)
    assert (out, err, process.returncode) == (b"", b"error: Bad file descriptor\n", 1)


@both
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_who_reads_no_more_ends_it_quietly(
    commands: Commands, program: Sequence[str], stream: str
) -> None:
    """As ``kubews exec web-0 -- seq 1000000 | head -1`` ends, with what a shell calls 141."""
    command = "seq 1 1000000" + (" >&2" if stream == "stderr" else "")
    arguments = ("exec", "web-0", "--", "sh", "-c", command)
    with commands.start(*arguments, program=program) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        gone, other = process.stdout, process.stderr
        if stream == "stderr":
            gone, other = other, gone
        assert gone.readline() == b"1\n"
        gone.close()
        assert other.read() == b""
        assert process.wait(seconds(20)) == -signal.SIGPIPE


@both
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_it_at_once_and_quietly(
    commands: Commands, program: Sequence[str], name: str
) -> None:
    number = getattr(signal, name)
    arguments = ("exec", "web-0", "--", "sh", "-c", "echo begun; exec sleep 1000")
    with commands.start(*arguments, program=program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == -number


def test_a_server_of_v4_cannot_be_told_of_the_end_of_input(old_commands: Commands) -> None:
    """It is said before a byte is read: the command would wait for ever."""
    said = old_commands.run("exec", "-i", "web-0", "--", "cat", data=b"x")
    assert said == (b"", ["error"], 1)
    assert old_commands.run("exec", "web-0", "--", "echo", "x") == (b"x\n", [], 0)


def test_a_deployment_without_pods_is_waited_for(cluster: AnyCluster, commands: Commands) -> None:
    cluster.add_workload("deploy/late", selector={"app": "late"})
    arguments = ("exec", "deploy/late", "--pod-running-timeout")
    assert commands.run(*arguments, "300ms", "--", "echo", "hi") == (b"", ["error"], 1)
    with commands.start(*arguments, "1m", "--", "echo", "hi") as process:
        cluster.add_pod("late-0", {"app": ["sleep", "100000"]}, labels={"app": "late"})
        assert process.communicate(timeout=seconds(60)) == (b"hi\n", b"")


def test_an_error_is_one_line_and_verbose_tells_the_rest(commands: Commands) -> None:
    for flags, lines in (([], 1), (["-v"], 5)):
        with commands.start(*flags, "exec", "nope", "--", "true") as process:
            out, err = process.communicate(timeout=seconds(20))
        assert (out, process.returncode) == (b"", 1)
        said = err.decode().splitlines()
        assert said[-1].startswith("error: exec in pod ")
        assert 'pods "nope" not found' in said[-1]
        assert len(said) >= lines
        assert ("Traceback (most recent call last):" in said) is bool(flags)
        assert any("no stream" in line for line in said) is bool(flags)
    assert len(err.decode().splitlines()) > 1


def test_the_installed_program_is_this_one() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, place = setup["options.entry_points"]["console_scripts"].strip().split(" = ")
    module, function = place.split(":")
    assert name == "kubews"
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("arguments", [["version"], ["--version"], ["-v", "version"]])
def test_the_version_needs_no_cluster(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kubews", *arguments],
        env={"PYTHONPATH": str(ROOT), "KUBECONFIG": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"kubews {kubews.__version__}\n"
