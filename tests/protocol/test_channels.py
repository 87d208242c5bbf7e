"""The channel codec, subprotocol by subprotocol."""

from __future__ import annotations

import array
import base64
import json
import time
from typing import Any

import pytest
from support import seconds

from kubews.errors import KubewsError, LocalProtocolError, RemoteProtocolError
from kubews.protocol.channels import (
    CAPABILITIES,
    ERROR,
    MAX_DATA,
    NAMES,
    OFFER,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    window_size,
)
from kubews.protocol.events import Data, End, Status

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
BARE, OLD = "", "channel.k8s.io"
BASE64, V4_BASE64 = "base64.channel.k8s.io", "v4.base64.channel.k8s.io"
BINARY = [BARE, OLD, V4, V5]
TEXT = [BASE64, V4_BASE64]
DOCUMENT = [V4, V4_BASE64, V5]
PLAIN = [BARE, OLD, BASE64]

SUCCESS = b'{"metadata":{},"status":"Success"}'


def message(subprotocol: str, channel: int, data: bytes) -> bytes:
    """Build a message as the specification words it, without the code under test."""
    if "base64" in subprotocol:
        return str(channel).encode() + base64.standard_b64encode(data)
    return bytes([channel]) + data


def plain(events: list[Any]) -> list[Any]:
    """Events with copies of their payloads, to compare."""
    return [
        (event.stream_id, bytes(event.payload)) if isinstance(event, Data) else event
        for event in events
    ]


def test_every_subprotocol_is_in_a_table() -> None:
    assert sorted(CAPABILITIES) == sorted(BINARY + TEXT) == sorted(DOCUMENT + PLAIN)
    assert OFFER == (V5, V4)
    assert NAMES == {0: "stdin", 1: "stdout", 2: "stderr", 3: "error", 4: "resize"}


@pytest.mark.parametrize("name", ["v2.channel.k8s.io", "V5.CHANNEL.K8S.IO", "v5", " "])
def test_unknown_subprotocol(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="no channel protocol"):
        Channels(name)


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
def test_data(subprotocol: str) -> None:
    """R-6: stdout and stderr stay apart, whatever their order."""
    codec = Channels(subprotocol)
    for channel, data in [(STDOUT, b"out"), (STDERR, b"\x00\xff"), (STDOUT, bytes(70_000))]:
        assert plain(codec.receive(message(subprotocol, channel, data))) == [(channel, data)]
    assert codec.receive_eof() == []


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
@pytest.mark.parametrize("channel", range(5))
def test_message_without_data(subprotocol: str, channel: int) -> None:
    """The ready marker, on whichever channel, is neither data nor an end nor a Status."""
    codec = Channels(subprotocol)
    assert codec.receive(message(subprotocol, channel, b"")) == []
    assert codec.receive(b"") == []
    assert codec.receive_eof() == []


@pytest.mark.parametrize("subprotocol", BINARY)
def test_data_is_not_copied(subprotocol: str) -> None:
    payload = message(subprotocol, STDOUT, b"x" * 10)
    (event,) = Channels(subprotocol).receive(payload)
    assert isinstance(event, Data)
    assert event.payload.obj is payload


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: Any) -> None:
    codec = Channels(V5)
    assert plain(codec.receive(kind(b"\x01ab"))) == [(STDOUT, b"ab")]
    assert codec.data_to_send(STDIN, kind(b"ab")) == b"\x00ab"


def test_utf8_split_between_messages_is_left_alone() -> None:
    """R-2: the codec knows bytes only, so a character may be cut anywhere."""
    codec = Channels(V5)
    text = "é→𝄞".encode()
    events = [event for byte in text for event in codec.receive(bytes([STDOUT, byte]))]
    assert b"".join(bytes(event.payload) for event in events) == text


# -- fragments


@pytest.mark.parametrize("subprotocol", BINARY)
def test_only_the_first_fragment_names_the_channel(subprotocol: str) -> None:
    codec = Channels(subprotocol)
    events = codec.receive(b"\x01a")
    events += codec.receive(b"\x02b", start=False)
    events += codec.receive(b"", start=False)
    events += codec.receive(b"\x00", start=False)
    events += codec.receive(b"\x02c")
    assert plain(events) == [(1, b"a"), (1, b"\x02b"), (1, b"\x00"), (2, b"c")]


def test_the_first_fragment_may_be_empty() -> None:
    """RFC 6455, 5.4 allows it: the channel is the first byte of the message, not of a frame."""
    codec = Channels(V5)
    events = codec.receive(b"\x01a")
    events += codec.receive(b"")
    events += codec.receive(b"", start=False)
    events += codec.receive(b"\x02b", start=False)
    events += codec.receive(b"c", start=False)
    assert plain(events) == [(1, b"a"), (2, b"b"), (2, b"c")]


@pytest.mark.parametrize("subprotocol", TEXT)
def test_base64_in_fragments(subprotocol: str) -> None:
    codec = Channels(subprotocol)
    codec.receive(b"1YWJj")
    with pytest.raises(RemoteProtocolError, match="fragments"):
        codec.receive(b"YWJj", start=False)


@pytest.mark.parametrize("subprotocol", TEXT)
@pytest.mark.parametrize(
    "payload", [b"1YWJ", b"1Y", b"1YW=j", b"1YWJj\n", b"1Y\xe9Jj", b"1====", b"1-_-_"]
)
def test_not_base64(subprotocol: str, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not base64"):
        Channels(subprotocol).receive(payload)


# -- the end of a stream


@pytest.mark.parametrize("channel", range(5))
def test_end(channel: int) -> None:
    assert Channels(V5).receive(bytes([255, channel])) == [End(channel)]


@pytest.mark.parametrize("payload", [b"\xff", b"\xff\x05", b"\xff\xff", b"\xff\x00\x00"])
def test_malformed_end(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed end"):
        Channels(V5).receive(payload)


@pytest.mark.parametrize("subprotocol", [BARE, OLD, V4])
def test_end_is_an_unknown_channel_to_older_protocols(subprotocol: str) -> None:
    assert plain(Channels(subprotocol).receive(b"\xff\x00")) == [(255, b"\x00")]


@pytest.mark.parametrize("channel", [STDIN, STDOUT, RESIZE])
def test_end_to_send(channel: int) -> None:
    assert Channels(V5).end_to_send(channel) == bytes([255, channel])


@pytest.mark.parametrize("subprotocol", [BARE, OLD, V4, *TEXT])
def test_end_cannot_be_sent(subprotocol: str) -> None:
    """R-18: an older server ignores the message, so it must not seem to have been sent."""
    with pytest.raises(LocalProtocolError, match=subprotocol or "no subprotocol"):
        Channels(subprotocol).end_to_send(STDIN)


# -- sending


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
@pytest.mark.parametrize("data", [b"", b"x", b"\x00\xff", bytes(range(256)) * 128])
def test_data_to_send(subprotocol: str, data: bytes) -> None:
    for channel in (STDIN, RESIZE):
        expected = message(subprotocol, channel, data)
        assert Channels(subprotocol).data_to_send(channel, data) == expected


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
def test_too_much_for_one_message(subprotocol: str) -> None:
    """R-19: nothing is ever fragmented, and no message is larger than what runtimes copy at once."""
    codec = Channels(subprotocol)
    codec.data_to_send(STDIN, bytes(MAX_DATA))
    with pytest.raises(LocalProtocolError, match=str(MAX_DATA)):
        codec.data_to_send(STDIN, bytes(MAX_DATA + 1))
    with pytest.raises(LocalProtocolError, match=str(MAX_DATA)):
        codec.data_to_send(STDIN, array.array("Q", bytes(2 * MAX_DATA)))


# -- the Status


def status_of(events: list[Any]) -> Status:
    (event,) = events
    assert isinstance(event, Status)
    return event


@pytest.mark.parametrize("subprotocol", DOCUMENT)
def test_status(subprotocol: str) -> None:
    """R-4, R-3: the exit code comes from the document and nothing else, and comes once."""
    codec = Channels(subprotocol)
    assert status_of(codec.receive(message(subprotocol, ERROR, SUCCESS))).exit_code == 0
    assert codec.receive(message(subprotocol, ERROR, SUCCESS)) == []
    assert plain(codec.receive(message(subprotocol, STDOUT, b"late"))) == [(STDOUT, b"late")]
    assert codec.receive_eof() == []


@pytest.mark.parametrize("subprotocol", DOCUMENT)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_status_in_messages(subprotocol: str, size: int) -> None:
    """The Go side writes a stream: one document may come in several messages, and others between."""
    codec = Channels(subprotocol)
    document = b' {"metadata":{},"status":"Failure","message":"}","reason":"X"} \r\n'
    events: list[Any] = []
    for start in range(0, len(document), size):
        piece = message(subprotocol, ERROR, document[start : start + size])
        events += codec.receive(piece)
        assert plain(codec.receive(message(subprotocol, STDOUT, b"o"))) == [(STDOUT, b"o")]
    assert status_of(events).document == json.loads(document)
    assert codec.receive_eof() == []


@pytest.mark.parametrize("size", [1, 2, 7])
def test_status_in_fragments(size: int) -> None:
    codec = Channels(V5)
    payload = bytes([ERROR]) + SUCCESS
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    events = [e for i, piece in enumerate(pieces) for e in codec.receive(piece, start=i == 0)]
    assert status_of(events).success


@pytest.mark.parametrize("subprotocol", DOCUMENT)
@pytest.mark.parametrize(
    "text", [b"command terminated", b'{"status":"Succ', b'{"metadata":{}}', b"[1]", b"\xff{}"]
)
def test_damaged_status(subprotocol: str, text: bytes) -> None:
    """R-4, R-3: damage is a failure with an unknown exit code, told when the connection has ended."""
    codec = Channels(subprotocol)
    assert codec.receive(message(subprotocol, ERROR, text)) == []
    status = status_of(codec.receive_eof())
    assert (status.success, status.exit_code, status.document) == (False, None, {})
    assert status.message == text.decode("utf-8", "replace")
    assert codec.receive_eof() == []
    assert codec.receive(message(subprotocol, ERROR, SUCCESS)) == []


@pytest.mark.parametrize("subprotocol", PLAIN)
@pytest.mark.parametrize("text", [b"command terminated with non-zero exit code: 3", SUCCESS])
def test_text_status(subprotocol: str, text: bytes) -> None:
    """R-4: an unversioned protocol has texts only, and a text is never an exit code."""
    codec = Channels(subprotocol)
    assert codec.receive(message(subprotocol, ERROR, text[:5])) == []
    assert codec.receive(message(subprotocol, ERROR, text[5:])) == []
    status = status_of(codec.receive_eof())
    assert (status.success, status.exit_code) == (False, None)
    assert status.message == text.decode()


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
def test_blank_status_is_none(subprotocol: str) -> None:
    """R-3: white space does not tell how the process ended."""
    codec = Channels(subprotocol)
    assert codec.receive(message(subprotocol, ERROR, b" \n")) == []
    assert codec.receive_eof() == []


def test_status_of_no_end() -> None:
    codec = Channels(V5)
    with pytest.raises(RemoteProtocolError, match="larger than"):
        for _ in range(100):
            codec.receive(bytes([ERROR]) + b"x" * 32_768)


def test_status_in_very_many_pieces() -> None:
    """Each piece may be the last, so each costs a look: the looks together must not grow with the square."""
    codec = Channels(V5)
    codec.receive(b'\x03{"status":"Success","x":[{}')
    began = time.process_time()
    for _ in range(100_000):
        assert codec.receive(b"\x03,{}") == []
    assert codec.receive(b"\x03]}") == []
    assert time.process_time() - began < seconds(10)  # three minutes, once
    assert status_of(codec.receive_eof()).exit_code == 0


def test_names_and_limit_for_the_connection() -> None:
    codec = Channels(V5)
    assert codec.names is NAMES
    assert codec.max_data == MAX_DATA == 65_536
    assert codec.subprotocol == V5
    assert issubclass(RemoteProtocolError, KubewsError)


# -- terminals


@pytest.mark.parametrize("subprotocol", BINARY + TEXT)
def test_the_end_of_a_terminals_input_is_a_key(subprotocol: str) -> None:
    codec = Channels(subprotocol, tty=True)
    assert codec.can_end_stdin
    assert codec.end_to_send(STDIN) == message(subprotocol, STDIN, b"\x04\x04")
    assert Channels(subprotocol).can_end_stdin == codec.can.half_close


@pytest.mark.parametrize(
    ("rows", "cols", "height", "width"),
    [(24, 80, 24, 80), (0, -1, 1, 1), (65535, 65536, 65535, 65535), (1 << 40, True, 65535, 1)],
)
def test_a_size_is_always_one_that_a_server_takes(
    rows: int, cols: int, height: int, width: int
) -> None:
    """Anything else ends the decoder of a server, and with the next message its reading."""
    text = window_size(rows, cols)
    assert json.loads(text) == {"Width": width, "Height": height}
    assert text.endswith(b"\n")


def test_another_size_in_front_makes_a_program_redraw() -> None:
    first, second = map(json.loads, window_size(24, 65535, redraw=True).splitlines())
    assert first == {"Width": 65535, "Height": 25}
    assert second == {"Width": 65535, "Height": 24}


@pytest.mark.parametrize("number", [1.0, "24", None])
def test_a_size_is_two_whole_numbers(number: Any) -> None:
    with pytest.raises(TypeError):
        window_size(24, number)
