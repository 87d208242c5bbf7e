"""What a real cluster's proxy subresource said to WebSockets, said again by LocalCluster."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from support import eventually, seconds, unused_port

from kubews import ApiError, Pod
from kubews.testing import LocalCluster

HERE = Path(__file__).parent.parent
RECORDS = [json.loads(path.read_text()) for path in sorted((HERE / "transcripts").glob("proxy-*"))]


@pytest.fixture(scope="module")
def box() -> Iterator[Pod]:
    """The pod of the recordings: a WebSocket server at 8765, a web server at 80, and nobody at 9."""
    free = unused_port()
    command = ["python3", "-c", (HERE / "web_server.py").read_text(), str(free)]
    with LocalCluster() as cluster, cluster.client() as client:
        cluster.add_pod("box", {"app": command}, listens={8765: free, 80: free, 9: None})
        pod = client.pod("box")

        def answers() -> bool:
            with contextlib.suppress(ApiError):
                return pod.request("GET", "/echo", port=80).json()["size"] == 0
            return False

        assert eventually(answers, 20)
        yield pod


def test_every_recording_is_here() -> None:
    assert len(RECORDS) == 3


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_a_recording(box: Pod, record: dict[str, Any]) -> None:
    asked, answered = record["request"], record["response"]
    port, path = re.fullmatch(r".*/pods/box:(\d+)/proxy(/.*)", asked["path"]).groups()
    if path == "/":  # of a server that knows no WebSocket
        path = "/echo"
    if answered["status"] != 101:
        with pytest.raises(ApiError) as caught:
            box.websocket(path, port=int(port))
        assert caught.value.code == answered["status"]
        told = re.sub(r"10\.244\.\d+\.\d+", "127.0.0.1", answered["body"])
        assert caught.value.status == json.loads(told)
        return
    chat = box.websocket(
        path, port=int(port), subprotocols=asked["offered_subprotocols"], timeout=seconds(10)
    )
    # The query of the recording did not reach the server, which is why none can be given here.
    assert asked["query"]
    for name in ("upgrade", "connection", "sec-websocket-protocol", "x-seen-path"):
        assert chat.headers[name] == answered["headers"][name]
    assert chat.recv().startswith("hello")  # of this server alone
    said = [(each["dir"], each["opcode"], each["hex"]) for each in record["frames"]]
    assert said[:2] == [("client", "text", b"hello".hex()), ("server", "text", b"hello".hex())]
    chat.send("hello")
    assert chat.recv() == "hello"
    assert [each[1:] for each in said[2:]] == [("close", "03e8")] * 2
    chat.close()
    assert chat.close_frame is not None
    assert chat.close_frame.opcode == websocket.ABNF.OPCODE_CLOSE
    assert chat.close_frame.data == b"\x03\xe8"
