"""Arbitrary bytes from a server: for the codecs, for the frames, and for the whole client.

Few examples in the suite, many with ``-m long``; ``KUBEWS_FUZZ=100000`` chooses their number.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peers import BINARY, CONT, EXIT_3, PING, PONG, SUCCESS, TEXT, close_frame, data, server_frame
from player import Player, Script, playing
from support import seconds

from kubews import PIPE, Pod, errors
from kubews.protocol import status
from kubews.protocol.channels import CAPABILITIES, Channels
from kubews.protocol.events import Data, Status

LONG = int(os.environ.get("KUBEWS_FUZZ", "20000"))


def budget(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < LONG,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


# -- the codecs

STATUS_PIECES = st.sampled_from(
    [SUCCESS, EXIT_3, EXIT_3[:50], EXIT_3[50:], b"{", b"}", b"{}", b'"Success"', b"null", b"\xff"]
)
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda piece: b"\3" + piece, STATUS_PIECES),
    st.builds(lambda piece: b"3" + piece, STATUS_PIECES),
    st.builds(lambda channel: bytes((255, channel)), st.integers(0, 255)),
)


def codec_takes(subprotocol: str, messages: list[tuple[bytes, bool]]) -> None:
    """Whatever comes, the only exception is RemoteProtocolError, and a Status comes once."""
    codec = Channels(subprotocol)
    events = []
    try:
        for payload, start in messages:
            events += codec.receive(payload, start=start)
    except errors.RemoteProtocolError:
        pass
    events += codec.receive_eof()
    statuses = [event for event in events if isinstance(event, Status)]
    assert len(statuses) <= 1
    assert all(event.payload for event in events if isinstance(event, Data))
    for event in statuses:
        if event.exit_code is not None:
            assert CAPABILITIES[subprotocol].status_document
            assert (event.exit_code == 0) == event.success
            assert 0 <= event.exit_code < 1 << 34
        assert event.success or event.message


def document_is_read(raw: bytes) -> None:
    document = status.decode_document(raw)
    if document is not None:
        assert status.from_document(document).success == (document["status"] == "Success")
    assert status.from_text(raw).exit_code is None


SUBPROTOCOLS = st.sampled_from(sorted(CAPABILITIES))
MESSAGES = st.lists(st.tuples(PAYLOADS, st.booleans()), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "reason", "message", "details", "causes", "code", "x"]),
            inner | st.sampled_from(["Success", "Failure", "NonZeroExitCode", "ExitCode", "3"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@budget(300)
@given(SUBPROTOCOLS, MESSAGES)
def test_codecs_take_anything(subprotocol: str, messages: list[tuple[bytes, bool]]) -> None:
    codec_takes(subprotocol, messages)


@budget(300)
@given(JSON.map(encoded) | st.binary(max_size=60))
def test_documents_may_be_anything(raw: bytes) -> None:
    document_is_read(raw)


@pytest.mark.long
@budget(LONG)
@given(SUBPROTOCOLS, MESSAGES)
def test_codecs_take_anything_for_long(
    subprotocol: str, messages: list[tuple[bytes, bool]]
) -> None:
    codec_takes(subprotocol, messages)


@pytest.mark.long
@budget(LONG)
@given(JSON.map(encoded) | st.binary(max_size=60))
def test_documents_may_be_anything_for_long(raw: bytes) -> None:
    document_is_read(raw)


# -- the whole client

# What a server may say, as (what kind, channel, bytes, stream).
ORDERLY = st.one_of(
    st.builds(
        lambda channel, payload, opcode: (
            channel,
            payload,
            server_frame(bytes((channel,)) + payload, opcode),
        ),
        st.sampled_from([1, 2, 4, 9]),
        st.binary(max_size=300),
        st.sampled_from([BINARY, TEXT]),
    ),
    st.builds(
        lambda channel, pieces: (
            channel,
            b"".join(pieces),
            b"".join(
                server_frame(
                    bytes((channel,)) + piece if not number else piece,
                    CONT if number else BINARY,
                    final=number == len(pieces) - 1,
                )
                + server_frame(b"", PING)
                for number, piece in enumerate(pieces)
            ),
        ),
        st.sampled_from([1, 2]),
        st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    ),
    st.builds(
        lambda payload, opcode: (0, b"", server_frame(payload, opcode)),
        st.binary(max_size=125),
        st.sampled_from([PING, PONG]),
    ),
    st.just((0, b"", server_frame(b""))),
)
ENDINGS = st.one_of(
    st.sampled_from(
        [
            (0, data(3, SUCCESS)),
            (0, data(3, SUCCESS) + close_frame()),
            (3, data(3, EXIT_3) + close_frame()),
            (3, data(3, EXIT_3[:9]) + data(3, EXIT_3[9:])),
            (None, close_frame()),
            (None, close_frame(1011)),
            (None, b""),
            (None, data(3, EXIT_3)[:-1]),
        ]
    ),
    st.binary(min_size=1, max_size=60).map(lambda noise: (None, noise)),
)


@pytest.fixture(scope="module")
def players() -> Iterator[tuple[tuple[Player, Pod], tuple[Player, Pod]]]:
    with ExitStack() as stack:
        yield stack.enter_context(playing()), stack.enter_context(playing(tls=True))


Orderly = list[tuple[int, bytes, bytes]]
Ending = tuple[Any, bytes]


def client_reads(
    player: Player, pod: Pod, orderly: Orderly, ending: Ending, pieces: list[int], end: str
) -> None:
    stream = b"".join(one[2] for one in orderly) + ending[1]
    expected = [b"".join(one[1] for one in orderly if one[0] == channel) for channel in (1, 2)]

    def act(sock: Any) -> None:
        at = 0
        for size in [*pieces, len(stream)]:
            sock.sendall(stream[at : at + size])
            at += size

    player.play(Script(act, end))
    begin = time.monotonic()
    process = pod.popen(["x"], stdout=PIPE, stderr=PIPE)
    try:
        out, err = process.communicate(timeout=seconds(10))
        code, said = process.wait(0), ""
    except (errors.ConnectionLost, errors.ExecError) as exc:
        out, err = exc.partial
        code, said = (
            None,
            f"{exc!r} from {exc.__cause__!r} from {getattr(exc.__cause__, '__cause__', None)!r}",
        )
    process.close()
    assert time.monotonic() - begin < seconds(10)
    # The noise of an ending may be a frame with output; it is never an exit code.
    assert code == ending[0]
    assert out[: len(expected[0])] == expected[0], said
    assert err[: len(expected[1])] == expected[1], said
    if code is not None:
        assert [out, err] == expected


CONVERSATION = (
    st.lists(ORDERLY, max_size=8),
    ENDINGS,
    st.lists(st.integers(0, 50), max_size=6),
    st.sampled_from(["fin", "close_notify"]),
    st.sampled_from([0, 0, 0, 1]),
)


@budget(250)
@given(*CONVERSATION)
def test_the_client_takes_anything(
    players: Any, orderly: Orderly, ending: Ending, pieces: list[int], end: str, tls: int
) -> None:
    client_reads(*players[tls], orderly, ending, pieces, end if tls else "fin")


@pytest.mark.long
@budget(LONG)
@given(*CONVERSATION)
def test_the_client_takes_anything_for_long(
    players: Any, orderly: Orderly, ending: Ending, pieces: list[int], end: str, tls: int
) -> None:
    client_reads(*players[tls], orderly, ending, pieces, end if tls else "fin")
