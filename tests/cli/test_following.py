"""kubews logs: what follows, and how it ends; what it prints otherwise is compared with kubectl elsewhere."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence

import pytest
from clusters import AnyCluster
from logpods import said as logged
from programs import PROGRAMS, Commands
from support import eventually, in_thread, seconds

from kubews.testing import Faults, LocalCluster

both = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"


@pytest.fixture(scope="module")
def ticker(cluster: AnyCluster) -> Iterator[str]:
    """A pod that says a number every tenth of a second."""
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"
    cluster.add_pod("ticker", {"app": ["sh", "-c", script]}, labels={"app": "ticker"})
    with cluster.client() as client:
        logged(client.pod("ticker"), 2)  # or there might be less than somebody asks for
    yield "ticker"
    cluster.delete_pod("ticker")  # it costs its share for as long as it is there


@both
def test_following_prints_each_line_as_it_comes(
    ticker: str, commands: Commands, program: Sequence[str]
) -> None:
    with commands.start("logs", "-f", ticker, "--tail=1", program=program) as process:
        assert process.stdout is not None
        numbers = [int(in_thread(process.stdout.readline).result(20)) for _ in range(4)]
        assert numbers == list(range(numbers[0], numbers[0] + 4))
        process.send_signal(signal.SIGINT)
        # What kubectl does here and nowhere else: it says that it was cancelled.
        expected = -signal.SIGINT if program == PROGRAMS["kubews"] else 1
        assert process.wait(seconds(20)) == expected


@both
def test_who_reads_no_more_ends_it(ticker: str, commands: Commands, program: Sequence[str]) -> None:
    with commands.start("logs", "-f", ticker, program=program) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"1\n"
        process.stdout.close()
        assert process.wait(seconds(20)) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@both
def test_stamps_and_prefixes(ticker: str, commands: Commands, program: Sequence[str]) -> None:
    flags = ("--timestamps", "--prefix", "--limit-bytes=45")
    for target in (["ticker"], ["-l", "app=ticker", "--tail=-1"]):
        said = commands.run("logs", *target, *flags, program=program)
        first, second = said.out.split(b"[pod/ticker/app] ")[1:]
        assert re.fullmatch(STAMP + b" 1\n", first)
        assert len(first + second) == 45


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def crowd(cluster: AnyCluster) -> str:
    """A deployment of three pods that say something."""
    for number in range(3):
        name = f"crowd-{number}"
        script = f"echo this is {number}; exec sleep 100000"
        cluster.add_pod(name, {"app": ["sh", "-c", script]}, labels={"app": "crowd"})
    cluster.add_workload("deploy/crowd", selector={"app": "crowd"})
    with cluster.client() as client:
        for number in range(3):
            pod = client.pod(f"crowd-{number}")
            assert eventually(lambda pod=pod: pod.logs().read(), 20)
    return "deploy/crowd"


@both
def test_all_pods_of_a_deployment(crowd: str, commands: Commands, program: Sequence[str]) -> None:
    expected = [f"[pod/crowd-{number}/app] this is {number}".encode() for number in range(3)]
    for flags in (["--all-pods"], ["--all-pods", "--all-containers", "--tail=2"]):
        said = commands.run("logs", crowd, *flags, program=program)
        # kubectl has no order.
        assert (sorted(said.out.splitlines()), said.err, said.code) == (expected, [], 0)


@both
def test_without_a_pod_there_is_no_log(
    cluster: AnyCluster, commands: Commands, program: Sequence[str]
) -> None:
    name = "awaited-by-kubews" if program == PROGRAMS["kubews"] else "awaited-by-kubectl"
    cluster.add_workload(f"deploy/{name}", selector={"app": name})
    arguments = ("logs", f"deploy/{name}", "--all-pods", "--pod-running-timeout=300ms")
    assert commands.run(*arguments, program=program) == (b"", ["error"], 1)


def test_pods_are_waited_for(local: LocalCluster, commands: Commands) -> None:
    local.add_workload("deploy/awaited", selector={"app": "awaited"})
    arguments = ("logs", "-f", "deploy/awaited", "--all-pods", "--all-containers")
    with commands.start(*arguments) as process:
        say = {each: ["sh", "-c", f"echo {each}"] for each in ("a", "b")}
        local.add_pod("awaited-0", say, labels={"app": "awaited"})
        out, err = process.communicate(timeout=seconds(60))
    lines = [f"[pod/awaited-0/{each}] {each}".encode() for each in ("a", "b")]
    assert (sorted(out.splitlines()), err, process.returncode) == (lines, b"", 0)


def test_an_error_of_one_is_passed_over(
    crowd: str, local: LocalCluster, commands: Commands
) -> None:
    for flags, passed in (([], False), (["--ignore-errors"], True)):
        local.next_faults(Faults(match="crowd-1/log", response=b"HTTP/1.1 503 No\r\n\r\n"))
        said = commands.run("logs", "-l", "app=crowd", *flags)
        assert (said.err, said.code) == (["error"], 0 if passed else 1)
        lines = [b"this is 0", b"this is 2"] if passed else []
        assert sorted(said.out.splitlines()) == lines  # which of them was said first is not known


def test_several_are_followed_through_a_cut(local: LocalCluster, commands: Commands) -> None:
    for name in ("cut-0", "cut-1"):
        local.add_pod(name, labels={"app": "cut"})
        local.write_log(name, f"first of {name}\n")
    local.next_faults(Faults(match="cut-0/log", drop_after=100))
    with commands.start("logs", "-f", "-l", "app=cut") as process:
        assert process.stdout is not None
        assert {process.stdout.readline(), process.stdout.readline()} == {
            b"first of cut-0\n",
            b"first of cut-1\n",
        }
        local.write_log("cut-0", "second\n" * 10)
        assert [process.stdout.readline() for _ in range(10)] == [b"second\n"] * 10
        for name in ("cut-0", "cut-1"):
            local.delete_pod(name)
        assert process.communicate(timeout=seconds(20)) == (b"", b"")
        assert process.returncode == 0


def test_lines_that_nobody_has_any_more_are_told(local: LocalCluster, commands: Commands) -> None:
    local.add_pod(
        "rotated", {"app": ["sh", "-c", "echo begun; until [ -e go ]; do sleep 0.02; done"]}
    )
    with commands.start("logs", "-f", "rotated") as process, local.client() as client:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        # When it ends nothing is left of the log to compare the end with.
        local.rotate_log("rotated")
        client.pod("rotated").run(["touch", "go"])
        out, err = process.communicate(timeout=seconds(20))
    assert (out, process.returncode) == (b"", 0)
    assert re.fullmatch(
        rb"note: lines of pod default/rotated, container app may be missing after " + STAMP
        + rb" and before the end: they were rotated away\n",
        err,
    )  # fmt: skip


def test_a_container_that_waits_is_waited_for(local: LocalCluster, commands: Commands) -> None:
    local.add_pod("waits", state="waiting")
    for flags in ([], ["-f", "--pod-running-timeout=300ms"]):
        assert commands.run("logs", "waits", *flags) == (b"", ["error"], 1)
    local.add_pod("nowhere", state="unscheduled")
    assert commands.run("logs", "nowhere") == (b"", ["error"], 1)  # kubectl prints nothing
    for name in ("waits", "nowhere"):
        with commands.start("logs", name) as process:
            _, err = process.communicate(timeout=seconds(60))
        assert err.endswith(b"; -f waits for it, as long as --pod-running-timeout says\n")
        with commands.start("exec", name, "--", "true") as process:
            _, err = process.communicate(timeout=seconds(60))
        assert b"wait_ready" not in err
