"""Replay the conversations recorded with a real cluster: LocalCluster must answer the same.

Compared: status, subprotocol, headers and body of a refusal, frames and their order, the end.
Adjacent data frames of a channel are joined, the order between stdout and stderr is free, times are
ignored, and the runtime's random ids are masked. What kubectl said through tunnels is replayed in
``test_replay_tunnels.py``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from podservers import PodServer, http, redis
from rawclient import SCALE, RawClient, exec_target
from recorder.conversations import PODS, PREPARED
from support import eventually
from websockets.frames import Frame, Opcode

from kubews.testing import Faults, LocalCluster, handlers

COPIES = Path(__file__).parent.parent / "transcripts"
# Where the recordings of the first hour are, of which a clone has copies.
ORIGINALS = os.environ.get("KUBEWS_TRANSCRIPTS")
KINDS = ("attach-*.json", "*exec-*.json", "log-*.json", "*portforward-*.json")
NAMES = sorted(
    path.stem for kind in KINDS for path in COPIES.glob(kind) if '"request": {' in path.read_text()
)

# Longer pauses prove nothing about the answer.
FASTER = {
    "sleep 2 & echo started": "sleep 0.4 & echo started",
    "sleep 1; echo done": "sleep 0.4; echo done",
    "70": "0.3",
}
# The pods of the recordings of attach.
ATTACHED: dict[str, Any] = {
    "box": {
        "containers": {
            "echo": ["sh", "-c", "while read l; do echo got:$l; done; echo bye; sleep 1000"],
            "main": None,
        },
        "stdin": True,
    },
    "once": {
        "containers": {"main": ["sh", "-c", "read l; echo got:$l; exit 5"]},
        "stdin": True,
        "stdin_once": True,
    },
    "ttypod": {
        "containers": {"main": ["sh", "-c", "PS1='# ' exec sh"]},
        "stdin": True,
        "tty": True,
        "env": {"ENV": ""},
    },
    "ticker": {"containers": {"main": None}},
    "ticker2": {"containers": {"main": None}},
}
# What a ticker waits for in its directory: output is seen by who is attached already.
GO = "go"
TOKENS = {
    "exec-forbidden": "bobs-token",
    "exec-unauthorized": "nobodys-token",
    "portforward-forbidden": "bobs-token",
}
RBAC = {"getonly": {"get"}, "createonly": {"create"}, "getcreate": {"get", "create"}}

Normalize = Callable[[list[tuple[str, bytes]]], list[Any]]

_NO_UPSTREAM = "it has nothing behind it whose end client-go, in the server, takes for success"
# What LocalCluster does not do, and why.
NOT_REPLAYED = {
    "v5-containerd-killed": _NO_UPSTREAM,
    "1.31-v5-kubelet-killed": _NO_UPSTREAM,
    "stdin-unread-much": "containerd 1.6 waits for ever for somebody to read stdin; not to be copied",
}


@pytest.fixture
def recorded_cluster(name: str) -> Iterator[LocalCluster]:
    record = load(name)
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(version=record.get("kubernetes", "1.36")))
        pod = record["request"]["path"].split("/")[6]
        listens = pod_servers(stack, record) if "portforward" in name else {}
        pods = {**PODS, **(ATTACHED if name.startswith("attach-") else {})}
        if name.startswith("log-"):
            pods["ticker"] = {"containers": {"main": None}}
        if pod.startswith("ticker") and name.startswith("attach-"):
            pods[pod] = {"containers": {"main": ticker(record)}}
        added = {
            each: cluster.add_pod(each, **pods[each], listens=listens)
            for each in {"box", pod} & pods.keys()
        }
        if pod in PREPARED:
            prepared(added[pod].directory / "main", *PREPARED[pod])
        cluster.add_pod("ticker3", {"main": None})
        cluster.add_user("admin-user", token="admin-token", groups=["system:masters"])
        cluster.add_user("bob", token="bobs-token")
        for user, verbs in RBAC.items():
            cluster.add_user(user, verbs={"pods/exec": verbs, "pods/portforward": verbs})
        if name.startswith("log-"):
            write_log(cluster, record, slice(None, 3))
        elif pod.startswith("ticker") and pod in added:
            cluster.ticker = added[pod].directory / "main" / GO  # type: ignore[attr-defined]
        if pod == "ttypod" and pod in added:
            see_the_prompt(cluster, record["request"]["path"])
        yield cluster


def see_the_prompt(cluster: LocalCluster, path: str) -> None:
    """Wait until a shell has said its first prompt, which was before anybody had attached."""
    with RawClient(cluster) as client:
        target = f"{path}?stdin=true&stdout=true&tty=true"
        assert client.upgrade(target, ["v5.channel.k8s.io"]).status == 101
        client.send(b"\0echo read''y\n")
        client.until(b"ready\r\n# ")


def ticker(record: dict[str, Any]) -> list[str]:
    """Return a command that says, when it may go, what was recorded, and then nothing."""
    said = b"".join(payload_of(each)[1:] for each in record["frames"] if each["hex"][:2] == "01")
    script = f"until [ -e {GO} ]; do sleep 0.02; done; printf %s '{said.decode()}'; sleep 1000"
    return ["sh", "-c", script]


def write_log(cluster: LocalCluster, record: dict[str, Any], part: slice) -> None:
    """Write some of the lines that the container wrote, whose log was recorded."""
    pod = record["request"]["path"].split("/")[6]
    for message in [decoded(record, payload_of(each)) for each in data_frames(record)][part]:
        cluster.write_log(pod, message)


def data_frames(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in record.get("frames", ()) if each["len"] and each["opcode"] != "close"]


def decoded(record: dict[str, Any], data: bytes) -> bytes:
    return base64.b64decode(data) if "base64" in record["name"] else data


def pod_servers(stack: ExitStack, record: dict[str, Any]) -> dict[int, int | None]:
    """Start what listened in the pod: redis, and nginx with what it then said; nothing on port 9."""
    listens: dict[int, int | None] = {9: None}
    ports = [
        int(port)
        for _, value in record["request"]["query"]
        for port in value.split(",")
        if port.isdigit()
    ]
    for index, port in enumerate(ports):
        said = b"".join(
            payload_of(frame)[1:]
            for frame in record.get("frames", ())
            if frame["dir"] == "server" and frame["hex"].startswith(f"{2 * index:02x}")
        )
        handler = {6379: redis, 80: http(said[2:])}.get(port)
        if handler is not None and port not in listens:
            listens[port] = stack.enter_context(PodServer(handler)).port
    return listens


def prepared(directory: Path, made: str | None, gone: str) -> None:
    """Wait until a pod's command has made and removed what it shall."""

    def done() -> bool:
        return (made is None or (directory / made).exists()) and not (directory / gone).exists()

    assert eventually(done, 20)


def load(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((COPIES / f"{name}.json").read_text())
    for pair in record["request"]["query"]:
        pair[1] = FASTER.get(pair[1], pair[1])
    return record


def headers_for(name: str, request: dict[str, Any]) -> list[tuple[str, str]]:
    values = {
        "Authorization": f"Bearer {TOKENS.get(name, 'admin-token')}",
        "Impersonate-User": name.rpartition("-")[2],
    }
    return [(key, values[key]) for key in request["extra_headers"]]


def payload_of(frame: dict[str, Any]) -> bytes:
    data = bytes.fromhex(frame["hex"])
    if "rest" in frame:
        data += bytes.fromhex(frame["rest"].rpartition(" ")[2]) * (frame["len"] - len(data))
    assert len(data) == frame["len"]
    return data


def normalize(frames: list[tuple[str, bytes]]) -> list[Any]:
    """Join the data of a channel; sort runs of stdout and stderr; mask the runtime's ids."""
    result: list[Any] = []
    for opcode, data in frames:
        if opcode == "text" and data[:1] == b"3":
            data = b"\3" + base64.b64decode(data[1:])
        data = re.sub(rb"[0-9a-f]{64}", b"ID", data)
        data = re.sub(rb"(chdir to cwd \(\\?\").*?(\\?\"\))", rb"\1CWD\2", data)
        previous = result[-1] if result else None
        if isinstance(previous, dict) and opcode in previous and data[:1] in b"\1\2" and data[1:]:
            run = previous[opcode]
            run[data[:1]] = run.get(data[:1], b"") + data[1:]
        elif data[:1] in (b"\1", b"\2") and data[1:]:
            result.append({opcode: {data[:1]: data[1:]}})
        else:
            result.append((opcode, data))
    return result


def normalize_ports(frames: list[tuple[str, bytes]]) -> list[Any]:
    """Join the data of a channel, but for the header that is the first; mask the runtime's ids."""
    result: list[Any] = []
    begun: set[bytes] = set()
    for opcode, data in frames:
        channel = data[:1]
        joined = opcode == "binary" and channel in begun and result[-1][1][:1] == channel
        if joined and len(result[-1][1]) > 3:
            result[-1] = (opcode, result[-1][1] + data[1:])
        else:
            result.append((opcode, data))
        begun.add(channel)
    masks = ((rb"[0-9a-f]{64}", b"ID"), (rb"cni-[0-9a-f-]{36}", b"CNI"))
    for pattern, mask in masks:
        result = [(opcode, re.sub(pattern, mask, data)) for opcode, data in result]
    return result


def normalize_log(frames: list[tuple[str, bytes]]) -> list[Any]:
    """Join the data behind the first message, which is empty: its borders mean nothing."""
    data = [
        (opcode, base64.b64decode(data) if opcode == "text" else data)
        for opcode, data in frames[1:]
        if opcode != "close"
    ]
    ends = [frame for frame in frames[1:] if frame[0] == "close"]
    return [*frames[:1], {opcode for opcode, _ in data}, b"".join(text for _, text in data), *ends]


def normalize_for(record: dict[str, Any]) -> Normalize:
    if record["name"].startswith("log-"):
        return normalize_log
    return normalize_ports if "portforward" in record["name"] else normalize


def from_server(client: RawClient) -> list[tuple[str, bytes]]:
    return [(frame.opcode.name.lower(), bytes(frame.data)) for frame in client.frames]


def wait_for(client: RawClient, frames: list[tuple[str, bytes]], normal: Normalize) -> None:
    """Read until all of these have come."""
    end = time.monotonic() + 10 * SCALE
    while normal(from_server(client)) != normal(frames) and time.monotonic() < end:
        if not client.pump(0.1):
            assert client.ended is None, client.ended


def play(
    client: RawClient, record: dict[str, Any], cluster: LocalCluster
) -> list[tuple[str, bytes]]:
    """Send what the client sent, each after what it had seen; return what the server sent."""
    expected: list[tuple[str, bytes]] = []
    before = 0
    for frame in record["frames"]:
        if "error" in frame:  # the client of the recording could not send any more
            break
        pause, before = (frame["t_ms"] - before) / 1000, frame["t_ms"]
        if frame["dir"] == "server":
            expected.append((frame["opcode"], payload_of(frame)))
            continue
        wait_for(client, expected, normalize_for(record))
        if frame["dir"] == "cluster":
            act(cluster, *frame["action"])
            continue
        time.sleep(min(pause, 0.2) * SCALE)
        try:
            client.send(payload_of(frame), Opcode[frame["opcode"].upper()])
        except OSError:
            assert frame["len"] > 32 << 20
    return expected


def act(cluster: LocalCluster, what: str, *args: Any) -> None:
    """Do to the cluster what was done to the real one in the course of the conversation."""
    if what == "execute":
        pod, *argv = args
        with cluster.client() as client:
            code = client.pod(pod).call(argv, container="main")
        # 137: the container has ended under it, as it may be meant to.
        assert code in (0, 137), code
    elif what == "delete_pod":
        cluster.delete_pod(args[0])
    else:
        assert what == "kill", what  # the connection was dropped by a fault after the last frame


def was_killed(record: dict[str, Any]) -> bool:
    frames = record.get("frames", ())
    return any(frame.get("action", [""])[0] == "kill" for frame in frames)


def faults_of(record: dict[str, Any]) -> Faults:
    """Return the fault that ends the connection as the death of a server did."""
    if not was_killed(record):
        return Faults()
    sent = [payload_of(each) for each in record["frames"] if each["dir"] == "server"]
    size = sum(len(Frame(Opcode.BINARY, data).serialize(mask=False)) for data in sent)
    return Faults(drop_after=size, drop=record["end"]["tls"])


@pytest.mark.parametrize("name", NAMES)
def test_transcript(
    name: str, recorded_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MISMATCH_SECONDS", 0.5)
    record = load(name)
    if reason := next((NOT_REPLAYED[key] for key in NOT_REPLAYED if name.endswith(key)), ""):
        pytest.skip(f"not in LocalCluster: {reason}")
    request, response = record["request"], record["response"]
    recorded_cluster.faults = faults_of(record)
    target = request["path"] + "?" + exec_target(request["query"]).partition("?")[2]
    with RawClient(recorded_cluster, cert=request["client_cert"] is not None) as client:
        answer = client.upgrade(target, request["offered_subprotocols"], headers_for(name, request))
        assert answer.status == response["status"]
        for key, value in response["headers"].items():
            assert answer.headers.get(key) == value, key
        if response["status"] != 101:
            # There the image could not be had; here nothing says why a container waits.
            body = (response["body"] or "").replace("ErrImageNeverPull", "ContainerCreating")
            assert answer.body.decode() == body
            assert response["body"] is not None or set(answer.headers) == {"connection"}
            return
        # In lower case there: websocket-client told it. As it was sent it is among the headers.
        protocol = answer.headers["sec-websocket-protocol"].lower()
        assert protocol == (response["subprotocol"] or "")
        assert "sec-websocket-extensions" not in answer.headers
        if name.startswith("log-"):
            before = [(each["opcode"], payload_of(each)) for each in record["frames"][:4]]
            if record["end"]["how"] == "stopped by the recorder":
                wait_for(client, before, normalize_log)
            write_log(recorded_cluster, record, slice(3, None))
        if hasattr(recorded_cluster, "ticker"):
            wait_for(client, [("binary", b"\1")], normalize_for(record))
            recorded_cluster.ticker.touch()
        expected = play(client, record, recorded_cluster)
        if name == "exec-v5-pod-deleted-while-running":
            wait_for(client, expected[:1], normalize)
            recorded_cluster.delete_pod("ticker3")
        if name == "attach-v5-pod-deleted-while-attached":
            wait_for(client, expected[:-2], normalize)
            recorded_cluster.delete_pod("ticker2")
        finish(client, record, expected)
    if "process-fate" in name:
        check_fate(recorded_cluster, record)


def finish(client: RawClient, record: dict[str, Any], expected: list[tuple[str, bytes]]) -> None:
    how, normal = record["end"]["how"], normalize_for(record)
    if how == "close frame; TCP closed":
        client.run_out()
        assert client.ended in ("close_notify", "reset")
    elif was_killed(record):
        client.run_out()
        assert client.ended == record["end"]["tls"]
    elif how.startswith("no frame for"):
        wait_for(client, expected, normal)
        assert not client.pump(0.5 * SCALE)
        assert client.ended is None
    elif "40MiB" in record["name"]:
        client.run_out()
        assert client.ended is not None
        # The recording client saw the end of TCP only; what may come before it is Close 1000.
        assert client.close_codes() in ([], [b"\x03\xe8"])
        client.frames = [frame for frame in client.frames if frame.opcode is not Opcode.CLOSE]
    else:
        wait_for(client, expected, normal)
    assert normal(from_server(client)) == normal(expected)


def check_fate(cluster: LocalCluster, record: dict[str, Any]) -> None:
    """A process lives on after its client has gone; with stdin, it has seen the end of its input."""
    cluster.wait_idle()
    command = tuple(value for key, value in record["request"]["query"] if key == "command")
    assert [each.command for each in cluster.execs] == [command]
    os.kill(cluster.execs[0].pid, 0)


def test_the_copies_are_the_recordings() -> None:
    if ORIGINALS is None:
        pytest.skip("KUBEWS_TRANSCRIPTS names no folder with the originals of the copies")
    originals, copies = (
        {path.name: path.read_bytes() for kind in KINDS for path in folder.glob(kind)}
        for folder in (Path(ORIGINALS), COPIES)
    )
    assert originals
    # What tests/recorder has added says of which Kubernetes it is.
    added = {name for name, text in copies.items() if b'\n "kubernetes": "' in text}
    assert originals == {name: copies[name] for name in copies.keys() - added}


def test_every_recording_is_replayed() -> None:
    assert len(NAMES) >= 250
    assert sum("portforward" in name for name in NAMES) >= 21
    assert Frame(Opcode.CLOSE, b"").serialize(mask=False) == b"\x88\x00"
