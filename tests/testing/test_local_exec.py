"""exec beyond what the recordings show: generations, refusals, backpressure, numbers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
import time

import pytest
from rawclient import SCALE, STATUS, STDERR, SUCCESS, V4, V5, RawClient, exec_target
from support import runs
from websockets.frames import Frame, Opcode

from kubews.testing import LocalCluster

SPDY = [("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade")]


def wait_for_execs(cluster: LocalCluster, number: int) -> None:
    """Wait until so many commands run: the 101 comes before the process does."""
    end = time.monotonic() + 30 * SCALE
    while len(cluster.execs) != number and time.monotonic() < end:
        time.sleep(0.01)
    assert len(cluster.execs) == number


# What a command waits for in its directory: ``go`` lets it go on.
WAIT = "until [ -e go ]; do sleep 0.02; done; rm go; "


def go(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("touch", "go")
        assert client.run_out().channel(STATUS) == SUCCESS


@pytest.mark.parametrize(
    ("version", "offered", "answer"),
    [
        ("1.27", [V5, V4], V4),
        ("1.29", [V5, V4], V4),
        ("1.29", [V4, "channel.k8s.io"], V4),
        ("1.29", ["channel.k8s.io", V4], "channel.k8s.io"),
        ("1.30", [V5, V4], V5),
        ("1.30", [V4, V5], V5),
        ("v1.36.2", [V4], V4),
        ("1.36", ["v4.base64.channel.k8s.io"], "v4.base64.channel.k8s.io"),
    ],
)
def test_the_version_picks_the_generation(version: str, offered: list[str], answer: str) -> None:
    with LocalCluster(version) as cluster:
        cluster.add_pod("box", {"main": None})
        with RawClient(cluster) as client:
            head = client.exec("sh", "-c", "exit 3", protocols=offered)
            assert head.headers["sec-websocket-protocol"] == answer
            status = client.run_out().messages()[-1][1:]
        status = base64.b64decode(status) if "base64" in answer else status
        assert (b'"ExitCode"' in status) == answer.startswith(("v4", "v5"))
        assert b"exit code 3" in status


@pytest.mark.parametrize("name", ["v2.channel.k8s.io", "v3.channel.k8s.io", "nonsense"])
def test_an_unknown_subprotocol_is_an_empty_403(cluster: LocalCluster, name: str) -> None:
    with RawClient(cluster) as client:
        answer = client.exec("true", protocols=[name])
    assert (answer.status, answer.headers, answer.body) == (403, {"connection": "close"}, b"")


def test_v5_is_unknown_before_1_30() -> None:
    with LocalCluster("1.29") as cluster:
        cluster.add_pod("box", {"main": None})
        with RawClient(cluster) as client:
            assert client.exec("true", protocols=[V5]).status == 403


def test_the_runtime_of_1_36_sends_no_metadata() -> None:
    with LocalCluster(status_metadata=False) as cluster:
        cluster.add_pod("box", {"main": None})
        for protocol, expected in ((V4, b'{"status":"Success"}'), (V5, SUCCESS)):
            with RawClient(cluster) as client:
                client.exec("true", protocols=[protocol])
                assert client.run_out().channel(STATUS) == expected


@pytest.mark.parametrize("version", ["1.30", "1.35"])
def test_older_servers_refuse_v5_after_the_upgrade(version: str) -> None:
    with LocalCluster(version) as cluster:
        cluster.add_pod("done", {"main": None}, state="completed")
        with RawClient(cluster) as client:
            assert client.exec("true", pod="done").status == 101
            status = json.loads(client.run_out().channel(STATUS))
        inner = 'unable to upgrade connection: container not found ("main")'
        assert status["message"] == f"Internal error occurred: {inner}"
        assert (status["code"], status["reason"]) == (500, "InternalError")
        with RawClient(cluster) as client:
            answer = client.exec("true", pod="done", protocols=[V4])
        assert (answer.status, answer.body) == (500, b'container not found ("main")')


@pytest.mark.parametrize(
    ("version", "verbs", "code"),
    [
        ("1.34", {"get"}, 101),
        ("1.35", {"get"}, 403),
        ("1.35", {"get", "create"}, 101),
        ("1.36", {"create"}, 403),
        ("1.36", (), 403),
        ("1.36", {"*"}, 101),
    ],
)
def test_verbs(version: str, verbs: set[str], code: int) -> None:
    with LocalCluster(version) as cluster:
        cluster.add_pod("box", {"main": None})
        token = cluster.add_user("eve", verbs=verbs)
        with RawClient(cluster, cert=False) as client:
            header = [("Authorization", f"Bearer {token}")]
            answer = client.exec("true", headers=header)
            assert answer.status == code
            # pods/exec alone gives no right to read pods.
        with RawClient(cluster, cert=False) as client:
            path = "/api/v1/namespaces/default/pods/box"
            assert client.request(path, header).status == 403


def test_states_of_pods(cluster: LocalCluster) -> None:
    cluster.add_pod("new", {"main": None}, state="unscheduled")
    cluster.add_pod("pulling", {"main": None}, state="waiting")
    cluster.add_pod("brief", {"main": ["sh", "-c", "exit 7"]}, init_containers=["init"])
    bodies = {}
    for name, container in [
        ("new", "main"), ("pulling", "main"), ("brief", "init"), ("brief", "main")
    ]:  # fmt: skip
        end = time.monotonic() + 5 * SCALE
        while True:
            with RawClient(cluster) as client:
                answer = client.exec("true", pod=name, container=container)
            if answer.status != 101 or time.monotonic() > end:
                break
        bodies[name, container] = (answer.status, answer.body)
    assert bodies["new", "main"][0] == 400
    assert b"pod new does not have a host assigned" in bodies["new", "main"][1]
    assert bodies["pulling", "main"] == (500, b'container not found ("main")')
    assert bodies["brief", "init"] == (500, b'container not found ("init")')
    assert bodies["brief", "main"] == (500, b'container not found ("main")')


def test_containers_of_every_kind(cluster: LocalCluster) -> None:
    pod = cluster.add_pod(
        "many", {"one": None}, init_containers=["init"], ephemeral_containers={"debug": None}
    )
    assert pod.directory.name == pod.uid
    for container in ("", "one", "debug"):
        with RawClient(cluster) as client:
            assert client.exec("pwd", pod="many", container=container).status == 101
            path = client.run_out().channel(1).decode().strip()
        assert path == str(pod.directory / (container or "one"))


def test_environment_and_directory(cluster: LocalCluster) -> None:
    pod = cluster.add_pod("web-0", {"app": None}, env={"COLOR": "blue"})
    (pod.directory / "app" / "file").write_text("content")
    with RawClient(cluster) as client:
        script = 'cat file; echo " $HOSTNAME $COLOR"'
        client.exec("sh", "-c", script, pod="web-0", container="app")
        assert client.run_out().channel(1) == b"content web-0 blue\n"


def test_requests_that_are_no_upgrade(cluster: LocalCluster) -> None:
    target = exec_target([("container", "main"), ("command", "true"), ("stdout", "1")])
    good = [("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade")]
    key = ("Sec-WebSocket-Key", base64.b64encode(bytes(16)).decode())
    cases = [
        ("GET", [], 400, b"Upgrade request required"),
        ("POST", SPDY, 400, b"not SPDY"),
        ("POST", [*good, key, ("Sec-WebSocket-Version", "13")], 405, b"bad method"),
        ("GET", [*good, key], 400, b"missing or bad WebSocket Version"),
        ("GET", [*good, ("Sec-WebSocket-Version", "13")], 400, b"Sec-WebSocket-Key"),
    ]
    for method, headers, code, text in cases:
        with RawClient(cluster) as client:
            answer = client.request(target, headers, method)
        assert answer.status == code
        assert text in answer.body


@pytest.mark.parametrize("version", ["1.29", "1.34", "1.36"])
def test_the_kubelets_answer_comes_before_the_refusal_of_spdy(version: str) -> None:
    with LocalCluster(version) as cluster:
        cluster.add_pod("pulling", {"main": None}, state="waiting")
        cluster.add_pod("box", {"main": None})
        target = exec_target([("command", "true"), ("stdout", "1")], "pulling")
        with RawClient(cluster) as client:
            answer = client.request(target, SPDY, "POST")
        assert (answer.status, answer.body) == (500, b'container not found ("main")')
        with RawClient(cluster) as client:
            answer = client.request(target.replace("pulling", "box"), SPDY, "POST")
        assert answer.status == 400
        assert b"not SPDY" in answer.body
        assert (b"1.30 or later" in answer.body) == (version == "1.29")


def test_arguments_arrive_as_bytes(cluster: LocalCluster) -> None:
    target = "/api/v1/namespaces/default/pods/box/exec?container=main&stdout="
    with RawClient(cluster) as client:
        client.upgrade(target + "&command=printf&command=%25s&command=%FF%C3%A9+%3B")
        assert client.run_out().channel(1) == b"\xff\xc3\xa9 ;"


def test_only_requested_streams_are_sent(cluster: LocalCluster) -> None:
    script = ("sh", "-c", "echo out; echo err >&2")
    for wanted, marker in (("stderr", b"\x02"), ("stdin", b"\x03")):
        query = [("container", "main"), *(("command", word) for word in script), (wanted, "1")]
        with RawClient(cluster) as client:
            client.upgrade(exec_target(query))
            messages = client.run_out().messages()
        assert messages[0] == marker
        assert messages[1:-1] == ([b"\x02err\n"] if wanted == "stderr" else [])
        assert messages[-1] == b"\x03" + SUCCESS


def test_base64_input_and_output(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("head", "-c", "3", stdin=True, protocols=["v4.base64.channel.k8s.io"])
        client.send(b"0" + base64.b64encode(b"\0\1\2"), Opcode.TEXT)
        client.run_out()
    assert {frame.opcode for frame in client.frames} == {Opcode.TEXT, Opcode.CLOSE}
    assert client.messages()[:2] == [b"1", b"1" + base64.b64encode(b"\0\1\2")]


def test_each_fragment_is_a_message(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(b"\0abc", fin=False)
        client.send(b"xyz", Opcode.CONT, fin=False)  # channel 120: dropped
        client.send(b"\0def", Opcode.CONT)
        client.send(b"\xff\0")
        assert client.run_out().channel(1) == b"abcdef"


@pytest.mark.parametrize("signal", [b"\xff", b"\xff\0\0", b"\xff\5"])
def test_a_bad_close_signal_ends_the_connection(cluster: LocalCluster, signal: bytes) -> None:
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(signal)
        client.run_out()
    assert client.close_codes() == [b"\x03\xe8"]
    assert client.channel(STATUS) == b""


def test_an_unmasked_frame_is_a_violation(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.until(b"", 1)
        client.sock.sendall(Frame(Opcode.BINARY, b"\0x").serialize(mask=False))
        data = client.http.trailing_data[0]
        with contextlib.suppress(ConnectionResetError):
            while piece := client.sock.recv(100):
                data += piece
    assert data.endswith(b"\x88\x02\x03\xea\x88\x02\x03\xe8")


def test_frames_of_v5_are_short(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("head", "-c", "1000000", "/dev/zero")
        client.run_out()
    assert max(len(message) for message in client.messages()) <= 32769
    assert client.channel(1) == bytes(1_000_000)


def test_a_process_that_does_not_read_stops_the_pongs(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("sh", "-c", f"read x; echo $x; {WAIT}wc -c", stdin=True)
        client.send(b"\0go\n")
        client.until(b"go\n")
        for _ in range(10):
            client.send(b"\0" + bytes(32 << 10))
        client.send(b"late", Opcode.PING)
        assert not client.pump(0.4)
        go(cluster)
        client.send(b"\xff\0")
        client.run_out()
    assert b"late" in [bytes(f.data) for f in client.frames if f.opcode is Opcode.PONG]
    count = int(client.channel(1).split()[1])
    # dash reads byte by byte, so nothing but the line is gone.
    assert count == 10 * (32 << 10)


def test_input_pings_and_close_are_handled_in_order(cluster: LocalCluster) -> None:
    frames = [
        Frame(Opcode.BINARY, b"\0" + bytes(300_000)),
        Frame(Opcode.PING, b"late"),
        Frame(Opcode.BINARY, b"\0end"),
        Frame(Opcode.CLOSE, b"\x03\xe9"),
    ]
    with RawClient(cluster) as client:
        client.exec("sh", "-c", f"echo up; {WAIT}wc -c > count", stdin=True)
        client.until(b"up\n")
        client.sock.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        assert not client.pump(0.2)  # neither the pong nor the answer to the Close
        go(cluster)
        client.run_out()
    assert [frame.opcode for frame in client.frames[-2:]] == [Opcode.PONG, Opcode.CLOSE]
    assert client.close_codes() == [b"\x03\xe8"]
    wait_for_execs(cluster, 0)
    with RawClient(cluster) as client:
        client.exec("cat", "count")
        assert client.run_out().channel(1) == b"300003\n"


def test_a_client_that_does_not_read_blocks_the_process(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("sh", "-c", "head -c 100000000 /dev/zero; echo done >&2")
        wait_for_execs(cluster, 1)
        time.sleep(0.5 * SCALE)
        assert [each.command[0] for each in cluster.execs] == ["sh"]
        client.run_out()
    assert len(client.channel(1)) == 100_000_000
    assert client.channel(STDERR) == b"done\n"
    assert client.channel(STATUS) == SUCCESS


def test_both_directions_at_once(cluster: LocalCluster) -> None:
    data = os.urandom(8 << 20)
    size, window = 32 << 10, 32  # a megabyte on the way, less than the buffers between us hold
    with RawClient(cluster, timeout=30) as client:
        client.exec("cat", stdin=True)
        for number, start in enumerate(range(0, len(data), size)):
            client.send(b"\0" + data[start : start + size])
            while sum(len(frame.data) - 1 for frame in client.frames) < (number - window) * size:
                assert client.pump()
        client.send(b"\xff\0")
        client.run_out()
        assert client.channel(1) == data


def test_two_hundred_at_once(cluster: LocalCluster) -> None:
    number = 200
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(cluster, timeout=30)) for _ in range(number)]
        for client in clients:
            assert client.exec("cat", stdin=True).status == 101
        wait_for_execs(cluster, number)
        assert cluster.connections == number
        for index, client in enumerate(clients):
            client.send(b"\0%d" % index)
            client.send(b"\xff\0")
        for index, client in enumerate(clients):
            assert client.run_out().channel(1) == b"%d" % index
    cluster.wait_idle()
    assert cluster.execs == []


def test_a_disconnected_exec_is_seen_until_it_ends(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("sh", "-c", f"cat; echo more; {WAIT}exit 9", stdin=True)
    cluster.wait_idle()
    (running,) = cluster.execs
    assert (running.pod, running.namespace, running.container) == ("box", "default", "main")
    go(cluster)
    wait_for_execs(cluster, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def test_deleting_a_pod_finds_what_has_left_its_group(cluster: LocalCluster) -> None:
    cluster.add_pod("short", {"main": None})
    with RawClient(cluster) as client:
        script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
        client.exec("sh", "-c", script, pod="short")
        pid = int(client.run_out().channel(1))
    os.kill(pid, 0)
    cluster.delete_pod("short")
    assert not runs(pid)


def test_many_threads_may_ask(cluster: LocalCluster) -> None:
    results: list[bytes] = []

    def ask() -> None:
        with RawClient(cluster) as client:
            client.exec("echo", "x")
            results.append(client.run_out().channel(1))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20 * SCALE)
    assert results == [b"x\n"] * 20
