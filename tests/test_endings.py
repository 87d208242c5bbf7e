"""How a process ends when its pod, its container or a server on the way does: never a false exit code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from cluster import Cluster, up
from clusters import AnyCluster, minor
from support import eventually, in_thread, seconds, time_limit

import kubews
from kubews import PIPE, Client, Pod

# Lines without an end, so that there is always something on the way.
TICKER = "i=0; while :; do echo line $i; i=$((i + 1)); sleep 0.01; done"


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(180):  # a server has some time to come back
        yield


@pytest.fixture
def short(cluster, client: Client, nothing_left_behind: None) -> Iterator[Pod]:
    """A pod that may be broken; its container ends when there is a file named ``end``."""
    script = "until [ -e end ]; do sleep 0.05; done; exit 3"
    cluster.add_pod("short", {"main": ["sh", "-c", script]})
    yield client.pod("short")
    try:
        cluster.delete_pod("short")
    except (KeyError, kubews.NotFound):
        pass  # the test has done so


def test_the_processes_of_a_deleted_pod_are_killed(cluster, short: Pod) -> None:
    with short.popen(TICKER, shell=True, stdout=PIPE) as process:
        assert process.stdout.readline() == b"line 0\n"
        cluster.delete_pod("short")
        assert process.wait(seconds(30)) == 137
        lines = process.stdout.read().splitlines(keepends=True)
    assert all(line == b"line %d\n" % number for number, line in enumerate(lines[:-1], 1))


def test_a_process_does_not_outlive_its_container(short: Pod) -> None:
    with short.popen("echo begun; sleep 1000", shell=True, stdout=PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        # This one may have its own end, or that of the container.
        assert short.call(["touch", "end"]) in (0, 137)
        assert process.wait(seconds(30)) == 137
        assert process.stdout.read() == b""


@pytest.fixture(scope="module")
def machine(cluster, pytestconfig: pytest.Config) -> Cluster:
    """The daemons of a real cluster of our own, to be killed."""
    version = pytestconfig.getoption("--real-cluster")
    if version is None:
        pytest.skip("only in a real cluster of our own is there anything to kill: --real-cluster")
    return up(version)


def lies(cluster: AnyCluster, daemon: str) -> bool:
    """Tell whether the servers in front of a daemon call its death a success.

    client-go, in the server that translates v5, takes an error stream that just ends for one
    (``remotecommand/errorstream.go``): in the API server until 1.35, in the kubelet since.
    """
    behind = {"containerd"} if minor(cluster) >= 36 else {"containerd", "kubelet"}
    return minor(cluster) >= 30 and daemon in behind


@pytest.mark.serial
@pytest.mark.parametrize("daemon", ["apiserver", "kubelet", "containerd"])
@pytest.mark.parametrize("how", ["wait", "read", "communicate", "poll"])
def test_a_server_that_dies_is_no_exit_code_r3(
    cluster, machine: Cluster, pod: Pod, daemon: str, how: str
) -> None:
    """R-3: whoever waits is told within seconds, with what had come, and that nobody knows the rest.

    Unless the servers in front of it say that all is well: a limit that no client can lift.
    """
    process = pod.popen(TICKER, shell=True, stdout=PIPE)
    assert process.stdout.readline() == b"line 0\n"
    calls = {
        "wait": process.wait,
        "read": process.stdout.read,
        "communicate": process.communicate,
        "poll": lambda: eventually(lambda: process.poll() is not None, 20),
    }
    waiting = in_thread(calls[how])
    time.sleep(0.3)
    begin = time.monotonic()
    getattr(machine, daemon).kill()
    try:
        if lies(cluster, daemon):
            came = waiting.result(seconds(20))
            assert process.wait(seconds(10)) == 0
        else:
            with pytest.raises((kubews.ConnectionLost, kubews.ExecError)) as caught:
                waiting.result(seconds(20))
            came = caught.value.partial
            assert process.returncode is None
        assert time.monotonic() - begin < seconds(10)
        check_lines(came if how in ("read", "communicate") else the_rest(process))
    finally:
        getattr(machine, daemon).start()
        process.close()
    # What was started lives on: nobody has told it to end.
    assert pod.call(["pkill", "-f", "i=.*sleep 0.01"], wait_ready=seconds(30)) == 0


def the_rest(process: kubews.Popen) -> bytes:
    """Return what can still be read."""
    try:
        return process.stdout.read()
    except kubews.ConnectionLost as exc:
        return exc.partial


def check_lines(came: Any) -> None:
    """Check that there are lines of ``TICKER`` without a gap, the last one perhaps in part."""
    text = came[0] if isinstance(came, tuple) else came
    lines = text.splitlines(keepends=True)
    assert len(lines) > 10
    assert all(line == b"line %d\n" % number for number, line in enumerate(lines[:-1], 1))


@pytest.mark.serial
def test_a_stream_needs_no_etcd(machine: Cluster, pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        process.stdin.write(b"begun")
        assert process.stdout.recv(5, timeout=seconds(10)) == b"begun"
        machine.etcd.kill()
        try:
            process.stdin.write(b"still here")
            assert process.stdout.recv(10, timeout=seconds(10)) == b"still here"
        finally:
            machine.etcd.start()
        process.close()
