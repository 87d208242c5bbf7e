"""Conversations recorded with a real cluster pass through the codec.

Each is read twice: by the code under test, and by the few lines here that follow the specification.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qsl

import pytest

from kubews.errors import LocalProtocolError
from kubews.protocol import status
from kubews.protocol.channels import MAX_DATA, Channels
from kubews.protocol.events import Data, Status
from kubews.protocol.requests import exec_path

RECORDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "transcripts").glob("*exec-*.json"))
    if "kubectl" not in path.stem
}
UPGRADED = [name for name, record in RECORDS.items() if record["response"]["status"] == 101]
REFUSED = sorted(RECORDS.keys() - set(UPGRADED))


def payload_of(frame: dict[str, Any]) -> bytes:
    data = bytes.fromhex(frame["hex"])
    if "rest" in frame:
        data += bytes.fromhex(frame["rest"].rpartition(" ")[2]) * (frame["len"] - len(data))
    assert len(data) == frame["len"]
    if "sha256" in frame:
        assert hashlib.sha256(data).hexdigest() == frame["sha256"]
    return data


def messages(record: dict[str, Any], direction: str) -> list[bytes]:
    return [
        payload_of(frame)
        for frame in record["frames"]
        if frame["dir"] == direction and frame.get("opcode") in ("binary", "text")
    ]


def read_independently(subprotocol: str, payloads: list[bytes]) -> dict[int, bytes]:
    channels: dict[int, bytes] = {}
    for payload in payloads:
        channel, data = payload[0], payload[1:]
        if "base64" in subprotocol:
            channel, data = int(chr(channel)), base64.decodebytes(data)
        if data:
            channels[channel] = channels.get(channel, b"") + data
    return channels


def exit_code_of(raw: bytes) -> Optional[int]:
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    if document["status"] == "Success":
        return 0
    codes = [
        int(cause["message"])
        for cause in document.get("details", {}).get("causes", [])
        if cause.get("reason") == "ExitCode"
    ]
    return codes[0] if codes else None


def test_the_records_are_there() -> None:
    assert len(UPGRADED) >= 30
    assert len(REFUSED) >= 12
    assert {record["response"].get("subprotocol") for record in RECORDS.values()} == {
        None,
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v5.channel.k8s.io",
    }


@pytest.mark.parametrize("name", UPGRADED)
@pytest.mark.parametrize("fragments", [False, True], ids=["whole", "fragments"])
def test_from_server(name: str, fragments: bool) -> None:
    """R-1, R-4, R-5, R-6: every recorded byte on its channel, and the Status that the raw frames hold."""
    record = RECORDS[name]
    subprotocol = record["response"]["subprotocol"] or ""
    codec = Channels(subprotocol)
    payloads = messages(record, "server")
    events: list[Any] = []
    for payload in payloads:
        if fragments and not codec.can.text:
            cuts = [payload[:1], b"", payload[1:2], payload[2:100], payload[100:]]
            for number, piece in enumerate(cuts):
                events += codec.receive(piece, start=number == 0)
        else:
            events += codec.receive(payload)
    before_the_end = len(events)
    events += codec.receive_eof()

    expected = read_independently(subprotocol, payloads)
    streams: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, Data):
            streams[event.stream_id] = streams.get(event.stream_id, b"") + bytes(event.payload)
    raw = expected.pop(3, None)
    assert streams == expected

    statuses = [event for event in events if isinstance(event, Status)]
    if raw is None:  # a connection that just ended tells nothing
        assert statuses == []
        return
    (event,) = statuses
    assert event.exit_code == exit_code_of(raw)
    assert event.success == (event.exit_code == 0)
    if codec.can.status_document:
        assert events.index(event) < before_the_end
        assert event.document == json.loads(raw)
        assert event.reason == json.loads(raw).get("reason", "")
    else:
        assert event.message == raw.decode()


@pytest.mark.parametrize("name", [name for name in UPGRADED if messages(RECORDS[name], "client")])
def test_to_server(name: str) -> None:
    """R-18, R-19: what a client sent is what the codec makes, in pieces where it was too large."""
    record = RECORDS[name]
    codec = Channels(record["response"]["subprotocol"] or "")
    for payload in messages(record, "client"):
        if payload[0] == 255:
            if len(payload) != 2 or payload[1] > 4:  # recorded because it ends the connection
                continue
            if codec.can.half_close:
                assert codec.end_to_send(payload[1]) == payload
            else:  # recorded because the server ignores it
                with pytest.raises(LocalProtocolError):
                    codec.end_to_send(payload[1])
            continue
        channel, data = payload[0], memoryview(payload)[1:]
        if len(data) <= MAX_DATA:
            assert codec.data_to_send(channel, data) == payload
            continue
        with pytest.raises(LocalProtocolError):
            codec.data_to_send(channel, data)
        pieces = [
            codec.data_to_send(channel, data[start : start + MAX_DATA])
            for start in range(0, len(data), MAX_DATA)
        ]
        assert all(piece[0] == channel for piece in pieces)
        assert b"".join(piece[1:] for piece in pieces) == data


@pytest.mark.parametrize("name", RECORDS)
def test_request(name: str) -> None:
    """The recorded request is the one that ``exec_path`` makes."""
    request = RECORDS[name]["request"]
    query = [tuple(pair) for pair in request["query"]]
    single = dict(pair for pair in query if pair[0] != "command")
    _, _, _, _, namespace, _, pod, _ = request["path"].split("/")
    path = exec_path(
        namespace,
        pod,
        [value for key, value in query if key == "command"],
        container=single.get("container"),
        stdin="stdin" in single,
        stdout="stdout" in single,
        stderr="stderr" in single,
        tty="tty" in single,
    )
    head, _, tail = path.partition("?")
    assert head == request["path"]
    assert parse_qsl(tail, keep_blank_values=True) == query


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str) -> None:
    """R-33, R-34: the body of a refusal is a Status, a text, or (unknown subprotocol) nothing."""
    response = RECORDS[name]["response"]
    body = response["body"]
    document = status.decode_document((body or "").encode())
    if response["headers"].get("content-type") != "application/json":
        assert document is None
        return
    assert document == json.loads(body)
    event = status.from_document(document)
    assert (event.success, event.exit_code) == (False, None)
    assert event.reason == document.get("reason", "")
    assert event.message == document["message"]
