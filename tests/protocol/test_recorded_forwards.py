"""Port-forwards recorded with a real cluster pass through the codec and through both roles of the session.

Each is read twice: by the code under test, and by the few lines here that follow the specification (or by
the recorder, which took the frames of the tunnel apart).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from kubews.protocol import spdy_frames as frames
from kubews.protocol.events import Data, End, GoAway, Opened, Reset
from kubews.protocol.forwarding import OFFER, SUBPROTOCOLS, Forwarding
from kubews.protocol.requests import portforward_path
from kubews.protocol.spdy import SUBPROTOCOL, Session
from kubews.protocol.spdy_headers import Decoder

RECORDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "transcripts").glob("portforward-*.json"))
}
# Seen through a relay, kubectl being the client.
TUNNELS = [name for name, record in RECORDS.items() if "messages" in record]
LEGACY = [
    name
    for name, record in RECORDS.items()
    if record.get("response", {}).get("status") == 101
    and (record["response"]["subprotocol"] or "") in SUBPROTOCOLS
]
REQUESTS = [name for name, record in RECORDS.items() if "request" in record]


def ports_of(record: dict[str, Any]) -> list[int]:
    return [int(port) for _, value in record["request"]["query"] for port in value.split(",")]


def legacy_messages(record: dict[str, Any], direction: str) -> list[bytes]:
    return [
        bytes.fromhex(frame["hex"])
        for frame in record["frames"]
        if frame["dir"] == direction and frame["opcode"] == "binary"
    ]


def test_the_records_are_there() -> None:
    assert len(TUNNELS) >= 4
    assert len(LEGACY) >= 8
    assert {f"portforward-v4-{name}" for name in ("refused", "same-port-twice", "redis")} <= {
        *LEGACY
    }
    assert {f"portforward-tunnel-{name}" for name in ("refused", "half-close")} <= {*TUNNELS}


# -- legacy


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("fragments", [False, True], ids=["whole", "fragments"])
def test_from_legacy_server(name: str, fragments: bool) -> None:
    """R-2, R-39: two bytes of header on each channel, then data and error text."""
    record = RECORDS[name]
    ports = ports_of(record)
    codec = Forwarding(record["response"]["subprotocol"] or "", ports)
    payloads = legacy_messages(record, "server")
    received: dict[int, bytes] = {}
    for payload in payloads:
        pieces = [payload[i : i + 1] for i in range(len(payload))] if fragments else [payload]
        for number, piece in enumerate(pieces):
            for event in codec.receive(piece, start=number == 0):
                assert isinstance(event, Data)
                received[event.stream_id] = received.get(event.stream_id, b"") + event.payload
    assert codec.receive_eof() == []

    expected: dict[int, bytes] = {}
    for payload in payloads:
        expected[payload[0]] = expected.get(payload[0], b"") + payload[1:]
    assert sorted(expected) == list(range(2 * len(ports)))
    for channel, data in expected.items():
        assert data[:2] == struct.pack("<H", ports[channel // 2])
        assert received.get(channel, b"") == data[2:]
        if channel % 2 and data[2:]:
            assert data[2:].startswith(b"error forwarding port %d to pod" % ports[channel // 2])


@pytest.mark.parametrize(
    "name", [name for name in LEGACY if legacy_messages(RECORDS[name], "client")]
)
def test_to_legacy_server(name: str) -> None:
    record = RECORDS[name]
    codec = Forwarding(record["response"]["subprotocol"] or "", ports_of(record))
    for payload in legacy_messages(record, "client"):
        assert codec.data_to_send(payload[0], memoryview(payload)[1:]) == payload


# -- tunnel


def payload_of(message: dict[str, Any]) -> bytes:
    """Return a message's bytes; of a long one the relay kept the first 600, and what follows was data."""
    return bytes.fromhex(message["hex"]).ljust(message["len"], b"?")


def messages(name: str, direction: str) -> list[bytes]:
    return [
        payload_of(message)
        for message in RECORDS[name]["messages"]
        if message.get("dir") == direction and message.get("opcode") == "binary"
    ]


def recorded_frames(name: str, direction: str) -> list[dict[str, Any]]:
    return [
        frame
        for message in RECORDS[name]["messages"]
        if message.get("dir") == direction
        for frame in message.get("spdy", [])
    ]


def as_recorded(frame: frames.Frame, decoder: Decoder) -> dict[str, Any]:
    """Describe a frame as the recorder does."""
    if isinstance(frame, frames.SynStream):
        return {
            "frame": "SYN_STREAM",
            "stream": frame.stream_id,
            "headers": decoder.decode(frame.block),
        }
    if isinstance(frame, frames.SynReply):
        return {
            "frame": "SYN_REPLY",
            "stream": frame.stream_id,
            "headers": decoder.decode(frame.block),
        }
    if isinstance(frame, frames.RstStream):
        return {"frame": "RST_STREAM", "stream": frame.stream_id, "status": frame.code}
    if isinstance(frame, frames.GoAwayFrame):
        return {
            "frame": "GOAWAY",
            "last_good_stream": frame.last_stream_id,
            "status": frame.code,
        }
    assert isinstance(frame, frames.DataPiece)
    payload = bytes(frame.payload)
    return {
        "frame": "DATA",
        "stream": frame.stream_id,
        "flags": int(frame.fin),
        "length": len(payload),
        "ascii": payload.decode()[:60],
    }


@pytest.mark.parametrize("direction", ["client", "server"])
@pytest.mark.parametrize("name", TUNNELS)
def test_frames_of_the_tunnel(name: str, direction: str) -> None:
    """Every frame, with its headers, as the recorder has read it; kubectl writes one in pieces of 1 to 4."""
    framer, decoder = frames.Framer(), Decoder()
    # Every payload lies in one message, and so is told in one piece.
    read = [
        as_recorded(frame, decoder)
        for payload in messages(name, direction)
        for frame in framer.receive(payload)
    ]
    for frame, recorded in zip(read, recorded_frames(name, direction), strict=True):
        assert frame.items() <= recorded.items()


def expected_events(recorded: list[dict[str, Any]]) -> list[Any]:
    """What is to be told of frames, as long as no stream was given up on this side."""
    events: list[Any] = []
    over: set[int] = set()
    for frame in recorded:
        kind = frame["frame"]
        if kind in ("SYN_STREAM", "SYN_REPLY"):
            events.append(Opened(frame["stream"], frame["headers"]))
        elif kind == "RST_STREAM":
            events.append(Reset(frame["stream"], frame["status"]))
        elif kind == "GOAWAY":
            events.append(GoAway(frame["last_good_stream"], frame["status"]))
        elif frame["stream"] not in over:
            if frame["length"]:
                events.append((frame["stream"], frame["length"], frame["ascii"]))
            if frame["flags"]:
                over.add(frame["stream"])
                events.append(End(frame["stream"]))
    return events


def compared(events: list[Any]) -> list[Any]:
    """Data as ``expected_events`` has it, however it came in pieces."""
    result: list[Any] = []
    for event in events:
        if not isinstance(event, Data):
            result.append(event)
        elif result and isinstance(result[-1], list) and result[-1][0] == event.stream_id:
            result[-1][1] += bytes(event.payload)
        else:
            result.append([event.stream_id, bytes(event.payload)])
    return [
        (event[0], len(event[1]), event[1].decode()[:60]) if isinstance(event, list) else event
        for event in result
    ]


def cut(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", TUNNELS)
def test_kubectl_to_our_server(name: str, size: int) -> None:
    """R-2, R-39: what kubectl sent, read by the server's role."""
    server = Session(server=True)
    events: list[Any] = []
    for payload in cut(b"".join(messages(name, "client")), size):
        events += server.receive(payload)
    assert compared(events) == expected_events(recorded_frames(name, "client"))
    assert server.pending_to_send() == b""


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", TUNNELS)
def test_real_server_to_our_client(name: str, size: int) -> None:
    """R-39, R-41: the conversation held again by the client's role, in the recorded order."""
    client, decoder, seen = Session(), Decoder(), frames.Framer()
    events: list[Any] = []
    sent: list[dict[str, Any]] = []
    for message in RECORDS[name]["messages"]:
        if message.get("opcode") != "binary":
            continue
        if message["dir"] == "server":
            for piece in cut(payload_of(message), size):
                events += client.receive(piece)
            continue
        for frame in message["spdy"]:
            made = hold(client, frame)
            sent += [as_recorded(each, decoder) for each in seen.receive(made)]
    assert compared(events) == expected_events(recorded_frames(name, "server"))
    # Its frames are kubectl's, but for the reset of what has ended both ways, which says nothing.
    expected = [
        frame
        for frame in recorded_frames(name, "client")
        if frame["frame"] != "RST_STREAM" or not ended_both_ways(name, frame["stream"])
    ]
    for frame, recorded in zip(sent, expected, strict=True):
        assert frame.items() <= recorded.items()


def ended_both_ways(name: str, stream: int) -> bool:
    return all(
        any(
            frame.get("stream") == stream and frame["frame"] == "DATA" and frame["flags"]
            for frame in recorded_frames(name, direction)
        )
        for direction in ("client", "server")
    )


def hold(client: Session, frame: dict[str, Any]) -> bytes:
    """Let the client do what a recorded frame did."""
    if frame["frame"] == "SYN_STREAM":
        assert client.open(frame["headers"]) == frame["stream"]
    elif frame["frame"] == "RST_STREAM":
        client.reset(frame["stream"], frame["status"])
    elif frame["frame"] == "GOAWAY":
        client.goaway(frame["status"])
    elif not frame["length"]:
        return client.end_to_send(frame["stream"])
    else:
        return client.data_to_send(frame["stream"], frame["ascii"].encode())
    return client.pending_to_send()


def test_a_refused_port_leaves_the_session_usable() -> None:
    """R-39: text on the error stream, ends on both, and no reset."""
    (index,) = [
        number
        for number, message in enumerate(RECORDS["portforward-tunnel-refused"]["messages"])
        if len(message.get("spdy", [])) == 3
    ]
    frame = RECORDS["portforward-tunnel-refused"]["messages"][index]
    client = Session()
    client.open({"streamtype": "error"}, fin=True)
    client.open({"streamtype": "data"})
    events = client.receive(bytes.fromhex(frame["hex"]))
    assert [type(event) for event in events] == [End, Data, End]
    assert isinstance(events[1], Data)
    assert events[1].stream_id == 1
    assert bytes(events[1].payload).startswith(b"error forwarding port 9 to pod")
    assert b"connection refused" in events[1].payload.obj
    assert client.open({"streamtype": "error"}) == 5


# -- requests


@pytest.mark.parametrize("name", REQUESTS)
def test_request(name: str) -> None:
    """The recorded request is the one that ``portforward_path`` makes, a parameter for each port."""
    request = RECORDS[name]["request"]
    _, _, _, _, namespace, _, pod, _ = request["path"].split("/")
    try:
        ports = ports_of(RECORDS[name])
    except ValueError:
        ports = []  # recorded for its refusal
        request["query"] = []
    head, _, tail = portforward_path(namespace, pod, ports).partition("?")
    assert head == request["path"]
    assert parse_qsl(tail) == [("ports", str(port)) for port in ports]


def test_the_offer() -> None:
    """Both names, and the tunnel comes out; the name is spelled as the server spells it."""
    record = RECORDS["portforward-tunnel-and-v4-offered"]
    assert record["request"]["offered_subprotocols"] == [*OFFER]
    assert record["response"]["headers"]["sec-websocket-protocol"] == SUBPROTOCOL
    assert record["response"]["subprotocol"] == SUBPROTOCOL.lower()


def test_path() -> None:
    assert portforward_path("shop", "web-0", [80, 443, 80]) == (
        "/api/v1/namespaces/shop/pods/web-0/portforward?ports=80&ports=443&ports=80"
    )
    assert portforward_path("a/b", "c?d", []) == "/api/v1/namespaces/a%2Fb/pods/c%3Fd/portforward"
