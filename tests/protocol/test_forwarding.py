"""The codec of legacy port-forward, and what both protocols share."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import KubewsError, LocalProtocolError, RemoteProtocolError
from kubews.protocol.codec import Codec
from kubews.protocol.events import Data
from kubews.protocol.forwarding import (
    DATA,
    ERROR,
    MAX_DATA,
    MAX_PORTS,
    MAX_PORTS_TEXT,
    OFFER,
    SUBPROTOCOLS,
    Forwarding,
    data_channel,
    error_channel,
    stream_headers,
)

BARE, V4, V4_BASE64 = "", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
BINARY = [BARE, V4]
ALL = [BARE, V4, V4_BASE64]


def message(subprotocol: str, channel: int, data: bytes) -> bytes:
    """Build a message as the specification words it, without the code under test."""
    if "base64" in subprotocol:
        return chr(0x30 + channel).encode() + base64.standard_b64encode(data)
    return bytes([channel]) + data


def headers(subprotocol: str, ports: list[int]) -> list[bytes]:
    return [
        message(subprotocol, channel, struct.pack("<H", port))
        for index, port in enumerate(ports)
        for channel in (2 * index, 2 * index + 1)
    ]


def ready(subprotocol: str, *ports: int) -> Forwarding:
    """Return a codec that has seen all headers."""
    codec = Forwarding(subprotocol, ports)
    for each in headers(subprotocol, list(ports)):
        assert codec.receive(each) == []
    return codec


def plain(events: list[Any]) -> list[Any]:
    """Events with copies of their payloads, to compare."""
    return [(event.stream_id, bytes(event.payload)) for event in events]


def test_what_is_offered() -> None:
    assert OFFER == ("SPDY/3.1+portforward.k8s.io", V4)
    assert sorted(SUBPROTOCOLS) == sorted(ALL)


@pytest.mark.parametrize("name", ["channel.k8s.io", "v5.channel.k8s.io", OFFER[0], "V4", " "])
def test_unknown_subprotocol(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="no legacy port-forward protocol"):
        Forwarding(name, [80])


def test_headers_of_the_specification() -> None:
    """``ports=80,81&ports=8080``, as observed."""
    codec = Forwarding(V4, [80, 81, 8080])
    for raw in ("005000", "015000", "025100", "035100", "04901f", "05901f"):
        assert codec.receive(bytes.fromhex(raw)) == []
    assert plain(codec.receive(b"\x04x")) == [(4, b"x")]


@pytest.mark.parametrize("subprotocol", ALL)
def test_data_and_error_text(subprotocol: str) -> None:
    """R-39: the text of one port that failed is told apart from the data of all."""
    codec = ready(subprotocol, 80, 81)
    assert codec.names == {
        0: "data of port 80",
        1: "error of port 80",
        2: "data of port 81",
        3: "error of port 81",
    }
    for channel, data in [(3, b"error forwarding port 81"), (0, b"\x00\xff"), (2, bytes(70_000))]:
        assert plain(codec.receive(message(subprotocol, channel, data))) == [(channel, data)]
    assert codec.receive_eof() == []
    assert codec.max_data == MAX_DATA == 32768
    assert codec.subprotocol == subprotocol


def test_channels_of_a_port() -> None:
    names = Forwarding(V4, [80, 81]).names
    assert names[data_channel(1)] == "data of port 81"
    assert names[error_channel(1)] == "error of port 81"


@pytest.mark.parametrize("subprotocol", ALL)
def test_headers_in_any_order_and_data_of_other_ports_between(subprotocol: str) -> None:
    codec = Forwarding(subprotocol, [80, 81])
    first, second, third, fourth = headers(subprotocol, [80, 81])
    assert codec.receive(fourth) == codec.receive(first) == []
    assert plain(codec.receive(message(subprotocol, 0, b"ab"))) == [(0, b"ab")]
    assert codec.receive(second) == codec.receive(third) == []
    assert plain(codec.receive(message(subprotocol, 2, b"ab"))) == [(2, b"ab")]


def test_the_same_port_twice() -> None:
    codec = ready(V4, 80, 80)
    assert plain(codec.receive(b"\x00a") + codec.receive(b"\x02b")) == [(0, b"a"), (2, b"b")]


@pytest.mark.parametrize("subprotocol", ALL)
def test_messages_without_data(subprotocol: str) -> None:
    """They are neither headers nor data."""
    codec = Forwarding(subprotocol, [80])
    for each in (b"", message(subprotocol, 0, b""), message(subprotocol, 1, b"")):
        assert codec.receive(each) == []
    for each in headers(subprotocol, [80]):
        assert codec.receive(each) == []
    assert codec.receive(message(subprotocol, 0, b"")) == []
    assert plain(codec.receive(message(subprotocol, 0, b"x"))) == [(0, b"x")]


def test_data_is_not_copied() -> None:
    codec = ready(V4, 80)
    (event,) = codec.receive(payload := b"\x00data")
    assert isinstance(event, Data)
    assert event.payload.obj is payload


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: Any) -> None:
    codec = ready(V4, 80)
    assert plain(codec.receive(kind(b"\x00ab"))) == [(0, b"ab")]
    assert codec.data_to_send(0, kind(b"ab")) == b"\x00ab"


def test_fragments() -> None:
    codec = Forwarding(V4, [80])
    events = codec.receive(b"")
    for piece in (b"\x00", b"", b"\x50", b"", b"\x00", b""):
        events += codec.receive(piece, start=False)
    events += codec.receive(b"\x01\x50\x00")
    assert events == []
    events = codec.receive(b"\x00a")
    events += codec.receive(b"\x01b", start=False)
    events += codec.receive(b"\x01c")
    assert plain(events) == [(0, b"a"), (0, b"\x01b"), (1, b"c")]


# -- what a peer may not do


@pytest.mark.parametrize("subprotocol", ALL)
@pytest.mark.parametrize(
    ("channel", "data", "error"),
    [
        (0, b"\x51\x00", "channel 0 is for port 81, not for 80"),
        (1, b"\x00\x50", "channel 1 is for port 20480, not for 80"),
        (0, b"\x50\x00\x00", "the first message on channel 0"),
        (1, b"error forwarding port 80", "the first message on channel 1"),
        (2, b"\x50\x00", "channel 2, which belongs to no port"),
        (40, b"", "channel 40, which belongs to no port"),
    ],
)
def test_bad_headers(subprotocol: str, channel: int, data: bytes, error: str) -> None:
    codec = Forwarding(subprotocol, [80])
    with pytest.raises(RemoteProtocolError, match=error):
        codec.receive(message(subprotocol, channel, data))


@pytest.mark.parametrize("subprotocol", ALL)
def test_half_a_header(subprotocol: str) -> None:
    codec = Forwarding(subprotocol, [80])
    assert codec.receive(message(subprotocol, 1, b"\x50")) == []
    with pytest.raises(RemoteProtocolError, match="half a port number on channel 1"):
        codec.receive(message(subprotocol, 0, b"\x50\x00"))


def test_a_header_that_goes_on() -> None:
    codec = Forwarding(V4, [80])
    assert codec.receive(b"\x00\x50\x00") == []
    with pytest.raises(RemoteProtocolError, match="the first message on channel 0"):
        codec.receive(b"x", start=False)


@pytest.mark.parametrize("payload", [b"0!", b"0a", b"0aaa=a", b"0aa==\n", b"0\xff\xff\xff\xff"])
def test_not_base64(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not base64"):
        ready(V4_BASE64, 80).receive(payload)


@pytest.mark.parametrize("payload", [b"/aaaa", b"\x00aaaa", b"\xffaaaa", b"2aaaa"])
def test_no_channel_in_text(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="belongs to no port"):
        ready(V4_BASE64, 80).receive(payload)


def test_base64_in_fragments() -> None:
    codec = ready(V4_BASE64, 80)
    codec.receive(b"0YQ==")
    with pytest.raises(RemoteProtocolError, match="came in fragments"):
        codec.receive(b"YQ==", start=False)


# -- ports


@pytest.mark.parametrize(
    ("subprotocol", "limit"), [(BARE, MAX_PORTS), (V4, 128), (V4_BASE64, MAX_PORTS_TEXT)]
)
def test_most_ports(subprotocol: str, limit: int) -> None:
    ports = list(range(65536 - limit, 65536))
    codec = ready(subprotocol, *ports)
    assert len(codec.names) == 2 * limit
    last = 2 * limit - 1
    assert plain(codec.receive(message(subprotocol, last, b"x"))) == [(last, b"x")]
    assert codec.data_to_send(last - 1, b"x") == message(subprotocol, last - 1, b"x")
    with pytest.raises(LocalProtocolError, match=f"{limit + 1} ports on one connection"):
        Forwarding(subprotocol, [1, *ports])


def test_no_ports() -> None:
    with pytest.raises(LocalProtocolError, match="0 ports"):
        Forwarding(V4, [])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_bad_ports(port: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"port {port} is not one of"):
        Forwarding(V4, [80, port])
    with pytest.raises(LocalProtocolError, match=f"port {port} is not one of"):
        stream_headers(DATA, port, "0")


def test_headers_on_the_tunnel() -> None:
    assert stream_headers(ERROR, 65535, "a") == {
        "streamtype": "error",
        "port": "65535",
        "requestid": "a",
    }
    assert stream_headers(DATA, 1, "a")["streamtype"] == "data"


# -- sending


@pytest.mark.parametrize("subprotocol", ALL)
def test_to_send(subprotocol: str) -> None:
    codec = Forwarding(subprotocol, [80, 81])
    for channel in (0, 2):
        for data in (b"x", bytes(MAX_DATA)):
            assert codec.data_to_send(channel, data) == message(subprotocol, channel, data)
    for channel in (1, 3, 4, -1, 255):
        with pytest.raises(LocalProtocolError, match="is none for data"):
            codec.data_to_send(channel, b"x")
    with pytest.raises(LocalProtocolError, match="32769 bytes in one message"):
        codec.data_to_send(0, bytes(MAX_DATA + 1))


@pytest.mark.parametrize(("channel", "name"), [(2, "data of port 81"), (9, "9")])
def test_there_is_no_end(channel: int, name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{name} cannot be ended on its own"):
        Forwarding(V4, [80, 81]).end_to_send(channel)


def test_it_is_a_codec() -> None:
    codec: Codec = Forwarding(V4, [80])
    assert codec.names[0] == "data of port 80"


# -- splits


runs = st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=40)), max_size=12)


@pytest.mark.parametrize("subprotocol", ALL)
@given(conversation=runs, data=st.data())
def test_every_cut(subprotocol: str, conversation: list[tuple[int, bytes]], data: Any) -> None:
    """R-2: headers and data in any fragments; text comes whole."""
    codec = Forwarding(subprotocol, [80, 443, 8080])
    received: dict[int, bytes] = {}
    sent: dict[int, bytes] = {}
    payloads = headers(subprotocol, [80, 443, 8080])
    for channel, run in conversation:
        payloads.append(message(subprotocol, channel, run))
        if run:
            sent[channel] = sent.get(channel, b"") + run
    for payload in payloads:
        places = st.lists(st.integers(0, len(payload)), max_size=6)
        drawn = [] if "base64" in subprotocol else sorted(data.draw(places))
        for number, (a, b) in enumerate(zip([0, *drawn], [*drawn, len(payload)], strict=True)):
            for event in codec.receive(payload[a:b], start=number == 0):
                assert isinstance(event, Data)
                assert len(event.payload) > 0
                received[event.stream_id] = received.get(event.stream_id, b"") + event.payload
    assert received == sent


@pytest.mark.parametrize("subprotocol", ALL)
@given(frames=st.lists(st.tuples(st.binary(max_size=6), st.booleans()), max_size=8))
def test_anything(subprotocol: str, frames: list[tuple[bytes, bool]]) -> None:
    """Whatever a peer sends, nothing but our errors comes out."""
    for codec in (Forwarding(subprotocol, [80]), ready(subprotocol, 80)):
        try:
            for payload, start in frames:
                for event in codec.receive(payload, start=start):
                    assert isinstance(event, Data)
                    assert event.stream_id in codec.names
        except KubewsError:
            pass
