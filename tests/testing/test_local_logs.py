"""Logs of LocalCluster: the options and refusals of a real server, over HTTP, WebSocket and through kubectl."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rawclient import SCALE, RawClient
from test_local_kubectl_attach import kubectl

from kubews.testing import Faults, LocalCluster

STAMPED = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
LONG = b"x" * (40 << 10) + b"\n"


@pytest.fixture(scope="module")
def logs() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"app": None, "side": None})
        cluster.write_log("box", "one\ntwo\n")
        cluster.write_log("box", "three\n", stream="stderr")
        cluster.write_log("box", b"begun, ")
        cluster.add_pod("long")
        cluster.write_log("long", LONG)
        cluster.add_pod("waiting", state="waiting")
        cluster.add_pod("nowhere", state="unscheduled")
        yield cluster


def target(pod: str, **query: Any) -> str:
    return f"/api/v1/namespaces/default/pods/{pod}/log?{urllib.parse.urlencode(query)}"


def read(cluster: LocalCluster, pod: str = "box", **query: Any) -> bytes:
    """Return a log, which is the same over HTTP and over a WebSocket."""
    query = {"container": "app", **query} if pod == "box" else query
    with RawClient(cluster) as client:
        answer = client.request(target(pod, **query))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    with RawClient(cluster) as client:
        assert client.upgrade(target(pod, **query), ["binary.k8s.io"]).status == 101
        messages = client.run_out().messages()
        assert client.close_codes() == [b"\x03\xe8"]
    assert messages[0] == b""
    assert max(map(len, messages)) <= 2048
    assert b"".join(messages) == answer.body
    return answer.body


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, b"one\ntwo\nthree\n"),
        ({"tailLines": 2}, b"two\nthree\n"),
        ({"tailLines": 0}, b""),
        ({"tailLines": 9}, b"one\ntwo\nthree\n"),
        ({"limitBytes": 5}, b"one\nt"),
        ({"sinceSeconds": 3600}, b"one\ntwo\nthree\n"),
        ({"sinceTime": "2200-01-01T00:00:00+02:00"}, b""),
        ({"sinceTime": "2020-01-01T00:00:00.5Z", "tailLines": 1}, b"three\n"),
        ({"container": "side"}, b""),
    ],
)
def test_options(logs: LocalCluster, query: dict[str, Any], expected: bytes) -> None:
    assert read(logs, **query) == expected


def test_a_long_line_is_several_records_with_one_stamp(logs: LocalCluster) -> None:
    assert read(logs, "long") == LONG
    assert read(logs, "long", tailLines=1) == LONG[32 << 10 :]
    stamped = read(logs, "long", timestamps="true")
    assert STAMPED.match(stamped)
    assert STAMPED.sub(b"", stamped) == LONG
    assert len(STAMPED.findall(stamped)) == 1


@pytest.mark.parametrize(
    ("pod", "query", "code", "message"),
    [
        ("nope", {}, 404, 'pods "nope" not found'),
        ("box", {}, 400, "a container name must be specified for pod box, choose one of: [app side]"),
        ("box", {"container": "no"}, 400, "container no is not valid for pod box"),
        ("waiting", {}, 400, 'container "app" in pod "waiting" is waiting to start: ContainerCreating'),
        ("long", {"previous": 1}, 400, 'previous terminated container "app" in pod "long" not found'),
        ("long", {"tailLines": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("long", {"tailLines": -1}, 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("long", {"limitBytes": 0}, 422, "limitBytes: Invalid value: 0: must be greater than 0"),
        ("long", {"sinceSeconds": 0}, 422, "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("long", {"stream": "All"}, 422, "stream: Forbidden: may not be specified"),
        ("long", {"sinceSeconds": 1, "sinceTime": "2020-01-01T00:00:00Z"}, 422, "at most one of"),
        ("long", {"sinceTime": "yesterday"}, 400, 'parsing time "yesterday" as'),
    ],
)  # fmt: skip
def test_refusals(
    logs: LocalCluster, pod: str, query: dict[str, Any], code: int, message: str
) -> None:
    with RawClient(logs) as client:
        for answer in (
            client.request(target(pod, **query)),
            client.upgrade(target(pod, **query), ["binary.k8s.io"]),
        ):
            body = json.loads(answer.body)
            assert (answer.status, body["code"]) == (code, code)
            assert message in body["message"]


def test_the_file_is_there_before_anything_is_said() -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"app": ["sleep", "1000"]})
        before = len(os.listdir("/proc/self/fd"))
        cluster.write_log("box", "one\n")
        assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_node_there_is_nothing(logs: LocalCluster) -> None:
    with RawClient(logs) as client:
        assert client.request(target("nowhere")).status == 204
        assert client.upgrade(target("nowhere"), ["binary.k8s.io"]).status == 204


def test_the_right_and_the_subprotocol(logs: LocalCluster) -> None:
    token = logs.add_user("eve", verbs={"pods/log": ["create"]})
    with RawClient(logs, cert=False) as client:
        answer = client.request(target("long"), [("Authorization", f"Bearer {token}")])
        assert (answer.status, json.loads(answer.body)["reason"]) == (403, "Forbidden")
    with RawClient(logs) as client:
        answer = client.upgrade(target("long"), ["v4.channel.k8s.io"])
        assert (answer.status, answer.body) == (403, b"")


def wait_for(client: RawClient, expected: bytes) -> None:
    while b"".join(client.messages()) != expected:
        assert client.pump(), (client.ended, client.messages())


def test_following_through_rotations_to_the_end() -> None:
    with LocalCluster() as cluster, RawClient(cluster) as client:
        cluster.add_pod("web-0")
        cluster.write_log("web-0", "one\n")
        assert client.upgrade(target("web-0", follow=1), [""]).status == 101
        expected = b"one\n"
        wait_for(client, expected)
        for number in range(7):
            cluster.write_log("web-0", f"before {number}\n")
            cluster.rotate_log("web-0")
            cluster.write_log("web-0", f"after {number}\n")
            expected += b"before %d\nafter %d\n" % (number, number)
            wait_for(client, expected)
        with RawClient(cluster) as late:
            assert late.request(target("web-0")).body == b"after 6\n"
        cluster.write_log("web-0", "last words")
        cluster.delete_pod("web-0")
        client.run_out()
        assert b"".join(client.messages()) == expected + b"last words"
        assert client.close_codes() == [b"\x03\xe8"]


def test_a_log_that_ends_although_it_is_not_over() -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("web-0")
        cluster.write_log("web-0", "0123456789\n")
        cluster.faults = Faults(match="/log", end_after=4)
        with RawClient(cluster) as client:
            assert client.upgrade(target("web-0", follow=1), ["binary.k8s.io"]).status == 101
            assert b"".join(client.run_out().messages()) == b"0123"
            assert client.close_codes() == [b"\x03\xe8"]
        with RawClient(cluster) as client:
            assert client.request(target("web-0", follow=1)).body == b"0123"


def test_who_follows_and_leaves_is_forgotten() -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("web-0")
        for protocols in ([], ["binary.k8s.io"]):
            with RawClient(cluster) as client:
                if protocols:
                    client.upgrade(target("web-0", follow=1), protocols)
                else:
                    client.sock.sendall(
                        b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target("web-0", follow=1).encode()
                    )
                    assert client.sock.recv(12) == b"HTTP/1.1 200"
            cluster.wait_idle(5 * SCALE)


@contextlib.contextmanager
def killed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let nobody wait for it once something is wrong."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def test_kubectl_logs(tmp_path: Path) -> None:
    with LocalCluster(process=True) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]})
        env = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(tmp_path)}

        def said(*arguments: str) -> bytes:
            return subprocess.check_output(
                [kubectl(), "logs", "web-0", *arguments], env=env, timeout=30 * SCALE
            )

        following = subprocess.Popen(
            [kubectl(), "logs", "-f", "web-0"], env=env, stdout=subprocess.PIPE
        )
        with following, killed(following):
            assert following.stdout is not None
            assert {following.stdout.readline(), following.stdout.readline()} == {
                b"out\n",
                b"err\n",
            }
            cluster.write_log("web-0", "more\n")
            assert following.stdout.readline() == b"more\n"
            assert said("--tail=1") == b"more\n"
            assert (
                STAMPED.sub(b"", said("--tail=1", "--timestamps", "--prefix"))
                == b"[pod/web-0/app] more\n"
            )
            cluster.restart_container("web-0")
            assert following.wait(30 * SCALE) == 0
        assert said("--previous", "--tail=1", "--limit-bytes=3") == b"mor"
        with cluster.client() as client:
            status = client.pod("web-0").get()["status"]["containerStatuses"][0]
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["exitCode"] == 137
        assert "running" in status["state"]


def test_what_cannot_be_done_to_a_log(logs: LocalCluster) -> None:
    with pytest.raises(TypeError, match="data must be str or bytes"):
        logs.write_log("box", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stream must be"):
        logs.write_log("box", "x", stream="stdin")
    with pytest.raises(ValueError, match="has no container 'no'"):
        logs.rotate_log("box", container="no")
    with pytest.raises(KeyError, match="nope"):
        logs.restart_container("nope")
    with pytest.raises(ValueError, match="is not there"):
        logs.restart_container("waiting")
