"""However a conversation is cut into messages and fragments, the same bytes come out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import KubewsError
from kubews.protocol.channels import CAPABILITIES, ERROR, STDERR, STDOUT, Channels
from kubews.protocol.events import Data, Status

BINARY = sorted(name for name, can in CAPABILITIES.items() if not can.text)

runs = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40)), max_size=12)


def cut(data: st.DataObject, payload: bytes) -> list[bytes]:
    """Cut bytes at drawn places; pieces may be empty."""
    places = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=6)))
    return [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]


def collect(events: list[Any]) -> dict[int, bytes]:
    streams: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, Data):
            assert len(event.payload) > 0
            streams[event.stream_id] = streams.get(event.stream_id, b"") + bytes(event.payload)
    return streams


def expected(conversation: list[tuple[int, bytes]]) -> dict[int, bytes]:
    streams: dict[int, bytes] = {}
    for channel, data in conversation:
        if data:
            streams[channel] = streams.get(channel, b"") + data
    return streams


@pytest.mark.parametrize("subprotocol", BINARY)
@given(conversation=runs, data=st.data())
def test_fragments(subprotocol: str, conversation: list[tuple[int, bytes]], data: Any) -> None:
    """R-2, R-6: each message in fragments anywhere, some of them empty, the first one too."""
    codec = Channels(subprotocol)
    events: list[Any] = []
    for channel, run in conversation:
        for number, piece in enumerate(cut(data, bytes([channel]) + run)):
            events += codec.receive(piece, start=number == 0)
    assert collect(events) == expected(conversation)
    assert codec.receive_eof() == []


@pytest.mark.parametrize("subprotocol", sorted(CAPABILITIES))
@given(conversation=runs, data=st.data())
def test_messages(subprotocol: str, conversation: list[tuple[int, bytes]], data: Any) -> None:
    """R-2, R-6: the same run of bytes in any number of messages."""
    codec = Channels(subprotocol)
    text = CAPABILITIES[subprotocol].text
    events: list[Any] = []
    for channel, run in conversation:
        for piece in cut(data, run):
            if text:
                events += codec.receive(b"%d" % channel + base64.b64encode(piece))
            else:
                events += codec.receive(bytes([channel]) + piece)
    assert collect(events) == expected(conversation)


documents = st.fixed_dictionaries(
    {"status": st.sampled_from(["Success", "Failure"])},
    optional={"message": st.text(), "metadata": st.just({}), "x": st.lists(st.just({}))},
)


@given(document=documents, data=st.data())
def test_status_in_pieces(document: dict[str, Any], data: Any) -> None:
    """R-4: a Status in pieces, mixed with output, is the Status in one piece."""
    raw = json.dumps(document, ensure_ascii=False).encode()
    codec = Channels("v5.channel.k8s.io")
    events: list[Any] = []
    for piece in cut(data, raw):
        for number, fragment in enumerate(cut(data, bytes([ERROR]) + piece)):
            events += codec.receive(fragment, start=number == 0)
        events += codec.receive(bytes([STDOUT]) + b"o")
    (status,) = [event for event in events if isinstance(event, Status)]
    (whole,) = Channels("v5.channel.k8s.io").receive(bytes([ERROR]) + raw)
    assert status == whole
    assert codec.receive_eof() == []


@pytest.mark.parametrize("subprotocol", sorted(CAPABILITIES))
@given(frames=st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=8))
def test_anything(subprotocol: str, frames: list[tuple[bytes, bool]]) -> None:
    """Whatever a peer sends, nothing but our errors comes out, and no exit code."""
    codec = Channels(subprotocol)
    events: list[Any] = []
    try:
        for payload, start in frames:
            events += codec.receive(payload, start=start)
    except KubewsError:
        pass
    events += codec.receive_eof()
    for event in events:
        assert not isinstance(event, Status) or event.exit_code is None


@pytest.mark.parametrize("subprotocol", sorted(CAPABILITIES))
@given(data=st.binary(max_size=200))
def test_what_is_sent_is_received(subprotocol: str, data: bytes) -> None:
    codec = Channels(subprotocol)
    assert collect(codec.receive(codec.data_to_send(STDOUT, data))) == expected([(STDOUT, data)])
