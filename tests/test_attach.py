"""Attach: a container's own process as a Popen, on any cluster."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import AnyCluster
from support import eventually, in_thread, seconds

from kubews import (
    PIPE,
    Attached,
    BadRequest,
    Client,
    ConfigError,
    Forbidden,
    NotFound,
    NotReady,
    Pod,
    TerminalError,
    TimeoutExpired,
)
from kubews.testing import LocalCluster

ECHO = "while read l; do echo got:$l; echo err:$l >&2; done; echo bye; exit 5"
_numbers = itertools.count()


class Pods:
    """Makes pods of one container on a cluster."""

    def __init__(self, cluster: AnyCluster) -> None:
        self.cluster = cluster
        self._client: Client = cluster.client()
        self._names: list[str] = []

    def add(self, script: str, **options: Any) -> Pod:
        name = f"attach-{next(_numbers)}"
        if not isinstance(self.cluster, LocalCluster):
            options.setdefault("restart_policy", "Never")
        self.cluster.add_pod(name, {"app": ["sh", "-c", script]}, **options)
        self._names.append(name)
        return self._client.pod(name)

    def delete(self, pod: Pod) -> None:
        self._names.remove(pod.name)
        self.cluster.delete_pod(pod.name)

    def close(self) -> None:
        for name in self._names:
            self.cluster.delete_pod(name)
        self._client.close()


@pytest.fixture(params=["cluster", "old"], ids=["v5", "v4"])
def pods(request: pytest.FixtureRequest, nothing_left_behind: None) -> Iterator[Pods]:
    made = Pods(request.getfixturevalue(request.param))
    yield made
    made.close()


@pytest.fixture
def pods_v5(cluster: AnyCluster, nothing_left_behind: None) -> Iterator[Pods]:
    made = Pods(cluster)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def _clusters_come_first(request: pytest.FixtureRequest, cluster: AnyCluster) -> None:
    """What lives as long as the session is no leak of a test."""
    if isinstance(cluster, LocalCluster):  # a real one of today skips what asks for an old one
        request.getfixturevalue("old")


def test_input_output_and_the_exit_code_of_the_container(pods: Pods) -> None:
    pod = pods.add("read l; echo got:$l; echo err >&2; exit 5", stdin=True, stdin_once=True)
    with pod.attach(stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.poll() is None
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.read() == "got:one\n"
        assert process.stderr.read() == "err\n"
        assert process.wait(seconds(20)) == 5
    assert process.returncode == 5


def test_leaving_an_input_that_goes_on_ends_the_attachment_only(pods: Pods) -> None:
    pod = pods.add(ECHO, stdin=True)
    for word in ("one", "two"):
        with pod.attach(stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"got:{word}\n"
            process.close()
        assert process.returncode is None
    assert pod.get()["status"]["phase"] == "Running"


@pytest.mark.half_close
def test_the_end_of_the_input_without_stdin_once(pods_v5: Pods) -> None:
    pod = pods_v5.add(ECHO, stdin=True)
    process = pod.attach(stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    begun = time.monotonic()
    assert process.communicate("", timeout=seconds(30)) == ("", "")
    assert process.wait() is None
    assert time.monotonic() - begun < seconds(4)  # nobody waits long for an end that is none
    assert process.poll() is None


@pytest.mark.half_close
def test_the_end_of_the_input_with_stdin_once(pods_v5: Pods) -> None:
    pod = pods_v5.add(ECHO, stdin=True, stdin_once=True)
    process = pod.attach(stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
    out, err = process.communicate("one\n", timeout=seconds(30))
    assert (out, err, process.returncode) == ("got:one\nbye\n", "err:one\n", 5)


@pytest.mark.parametrize("stdin", [False, True])
def test_several_see_the_output_and_an_input_is_not_needed(pods: Pods, stdin: bool) -> None:
    script = "until [ -e go ]; do echo tick; sleep 0.05; done; echo now; sleep 0.5; exit 3"
    # It sleeps because a real node may lose what comes just before the end.
    pod = pods.add(script, stdin=stdin)
    attached = [pod.attach(stdout=PIPE, stderr=PIPE, text=True) for _ in range(3)]
    for process in attached:
        assert process.stdout.readline() == "tick\n"
    pod.check_call(["touch", "go"])
    for process in attached:
        out, err = process.communicate(timeout=seconds(30))
        assert out.replace("tick\n", "") == "now\n"
        assert (err, process.returncode) == ("", 3)
        process.close()


@pytest.mark.parametrize("options", [{}, {"stdin": PIPE}, {"stdin": PIPE, "text": True}], ids=str)
def test_a_block_does_not_wait_for_a_process_that_runs_on(
    pods: Pods, options: dict[str, Any]
) -> None:
    pod = pods.add("exec sleep 1000", stdin=True, stdin_once=True)

    def look() -> Attached:
        with pod.attach(stdout=PIPE, **options) as process:
            return process

    assert in_thread(look).result(20).returncode is None
    assert pod.get()["status"]["phase"] == "Running"


def test_a_terminal_and_its_size(pods: Pods) -> None:
    script = "trap 'echo winch' WINCH; while sleep 0.02; do read l; stty size; done"
    pod = pods.add(script, stdin=True, tty=True)
    with pod.attach(stdin=PIPE, stdout=PIPE) as process:
        assert isinstance(process, Attached)
        assert process.stderr is None
        assert repr(process).startswith("<kubews.Attached: returncode: None")
        process.stdin.write(b"x\r")
        seen = b""
        while b" " not in seen:  # an answer of stty: the signal comes to a trap that is there
            seen += process.stdout.read1()
        process.resize(40, 100, redraw=True)
        # Asked again and again: the size may come between two questions, or in the middle of one.
        while b"40 100\r\n" not in seen or b"winch" not in seen:
            process.stdin.write(b"x\r")
            seen += process.stdout.read1()
        process.close()


def test_a_pod_deleted_while_attached(pods: Pods) -> None:
    pod = pods.add("while :; do echo tick; sleep 0.1; done")
    with pod.attach(stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout.readline() == b"tick\n"
        deleting = in_thread(pods.delete, pod)
        process.stdout.read()
        assert process.wait(seconds(40)) in (None, 137)
        deleting.result(40)


def test_what_cannot_be_attached_to(pods: Pods) -> None:
    pod = pods.add("exec sleep 1000")
    with pytest.raises(ConfigError, match="lacks stdin: true"):
        pod.attach(stdin=PIPE)
    with pytest.raises(BadRequest, match="The pod has the containers app"):
        pod.in_container("nope").attach()
    with pytest.raises(NotFound):
        pod._copy(pod._kind, "no-such-pod", "", "").attach()
    with pod.attach(stdout=PIPE) as process:
        with pytest.raises(TimeoutExpired):
            process.wait(0.05)
        with pytest.raises(TerminalError, match="tty: true in the pod's spec"):
            process.resize(24, 80)
        for end in (process.terminate, process.kill, process.end):
            with pytest.raises(io.UnsupportedOperation, match=r"pod.run\(\['kill', '1'\]\)"):
                end()


def test_a_container_that_has_ended(pods: Pods) -> None:
    pod = pods.add("exit 3", state="completed")
    with pytest.raises(NotReady, match=r"has ended \(phase Succeeded\)"):
        pod.attach()


def test_a_missing_right_names_the_resource(pods: Pods) -> None:
    name = f"watcher-{next(_numbers)}"
    pods.cluster.add_user(name, verbs={"pods": ["get"]})
    pod = pods.add("exec sleep 1000")
    with pods.cluster.client(name) as client, pytest.raises(Forbidden, match="pods/attach"):
        client.pod(pod.name).attach()


def test_a_restarted_container_is_told_by_its_id(local: LocalCluster, pods_v5: Pods) -> None:
    pod = pods_v5.add("read l; exit 7", stdin=True)
    with pod.attach(stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"x\n")
        assert eventually(lambda: process.poll() == 7)
    ours = process._container_id
    process._returncode = None
    for status, code in (
        (
            {"containerID": "b", "lastState": {"terminated": {"containerID": ours, "exitCode": 9}}},
            9,
        ),
        (
            {"containerID": "b", "lastState": {"terminated": {"containerID": "a", "exitCode": 9}}},
            None,
        ),
        ({"containerID": "b", "state": {"terminated": {"containerID": "b", "exitCode": 9}}}, None),
    ):
        document = pod.get()
        document["status"]["containerStatuses"] = [{"name": "app", **status}]
        assert process.code_in(document) == (False, code)
