"""The whole client over a socket that misbehaves and a server that talks nonsense.

Each ends in the right result or in one exception that says what happened, with what had arrived, in
bounded time.
"""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from faults import FaultySocket
from peers import BINARY, CONT, EXIT_3, PING, SUCCESS, Peer, close_frame, data, server_frame
from player import Player, Script, playing, sends
from support import seconds

from kubews import PIPE, Pod, errors
from kubews.popen import Popen
from kubews.transport import wire
from kubews.transport.wire import Wire

INPUT = random.Random(1).randbytes(3000)
OUT = random.Random(2).randbytes(2500)
ERR = b"complaint" * 30


@contextlib.contextmanager
def faulty(monkeypatch: pytest.MonkeyPatch, **faults: int) -> Iterator[list[FaultySocket]]:
    """Wrap the socket of every WebSocket once it is one."""
    made: list[FaultySocket] = []

    def over_faulty(sock: Any, *args: Any) -> wire.Wire:
        made.append(FaultySocket(sock, **faults))
        return Wire(made[-1], *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(wire, "Wire", over_faulty)
        yield made


def fragments(message: bytes, size: int) -> bytes:
    """One message in fragments, with a ping behind each."""
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(
        server_frame(piece, CONT if number else BINARY, final=number == len(pieces) - 1)
        + server_frame(b"%d" % number, PING)
        for number, piece in enumerate(pieces)
    )


# Every form of message that a server may choose, around the input coming back.
BEFORE = server_frame(b"\1") + data(1, OUT[:100]) + fragments(b"\1" + OUT[100:1100], 37)
BEHIND = data(2, ERR) + data(1, OUT[1100:]) + data(3, EXIT_3[:40]) + data(3, EXIT_3[40:])
FAREWELL = b"\xff\1", b"\xff\2"


def conversation(sock: Any) -> None:
    """Say something, take all of the input, send it back, say more, and a Status."""
    peer = Peer(sock)
    came = bytearray()
    while True:
        opcode, payload = peer.read_frame()
        if payload == b"\xff\0":
            break
        if opcode == BINARY:
            if not came:  # not sooner: what comes with the 101 is read before the faults begin
                peer.send(BEFORE)
            came += payload[1:]
    assert bytes(came) == INPUT
    peer.send(data(1, bytes(came)), BEHIND, *map(server_frame, FAREWELL), close_frame())


WHOLE = (OUT[:1100] + INPUT + OUT[1100:], ERR)
#: Bytes of the server's stream up to the last of the Status.
SIZE = len(BEFORE + data(1, INPUT) + BEHIND)
_LAST = data(3, EXIT_3[40:])


def start(player: Player, pod: Pod, script: Script) -> Popen:
    player.play(script)
    return pod.popen(["x"], stdin=PIPE, stdout=PIPE, stderr=PIPE)


def outcome(process: Popen, input: bytes | None = None) -> tuple[str, bytes, bytes]:
    """What comes of a process, in a word, and what it said."""
    try:
        out, err = process.communicate(input, timeout=seconds(10))
        return f"exit {process.wait(0)}", out, err
    except errors.ConnectionLost as exc:
        return "lost", *exc.partial
    except errors.ExecError as exc:
        return "error", *exc.partial
    finally:
        process.close(seconds(1))


@pytest.mark.parametrize(
    "faults",
    [
        {"read_size": 1},
        {"read_size": 2, "again": 1},
        {"write_size": 1},
        {"write_size": 3, "again": 2},
        {"read_size": 5, "write_size": 7, "again": 3},
        {"again": 20},
    ],
    ids=str,
)
def test_short_and_refused_calls_change_nothing(faults: dict[str, int], monkeypatch: Any) -> None:
    with playing() as (player, pod), faulty(monkeypatch, **faults) as made:
        process = start(player, pod, Script(conversation))
        assert outcome(process, INPUT) == ("exit 3", *WHOLE)
        assert sum(made[0].calls.values()) > 20


def boundaries(size: int, count: int) -> list[int]:
    """So many places, with both ends."""
    return sorted({0, 1, 2, size - 1, *random.Random(size).sample(range(size), count)})


@pytest.mark.parametrize("kind", ["reset_after", "end_after"])
def test_an_end_at_any_recv(kind: str, monkeypatch: Any) -> None:
    """Whatever of the Status is missing, there is no exit code; all before it is in ``partial``."""
    counts: Counter[str] = Counter()
    with playing() as (player, pod):
        for after in [*boundaries(SIZE, 110), *range(SIZE, SIZE + 12)]:
            with faulty(monkeypatch, **{kind: after}):
                result, out, err = outcome(start(player, pod, Script(conversation)), INPUT)
            assert WHOLE[0].startswith(out)
            assert WHOLE[1].startswith(err)
            # A part of the Status is an error that shows it.
            begun = after >= SIZE - len(_LAST)
            assert result == ("exit 3" if after >= SIZE else "error" if begun else "lost"), after
            if after > len(BEFORE):
                assert out.startswith(OUT[:1100])
            counts[result] += 1
    print(kind, dict(counts))


def test_a_broken_pipe_at_any_send(monkeypatch: Any) -> None:
    """Writing ends, reading goes on: without the input the server says nothing more."""
    monkeypatch.setattr("kubews.transport.link._GRACE", 0.05)
    counts: Counter[str] = Counter()
    with playing() as (player, pod):
        for after in boundaries(len(INPUT), 15):
            with faulty(monkeypatch, refuse_after=after):
                result, out, _ = outcome(start(player, pod, Script(conversation)), INPUT)
            assert result == "lost"
            assert out in (b"", OUT[:1100])
            counts[result] += 1
    print(dict(counts))


def test_a_stall_at_any_recv_is_bounded_by_the_time_limit(monkeypatch: Any) -> None:
    with playing() as (player, pod):
        for after in boundaries(SIZE, 15):
            with faulty(monkeypatch, stall_after=after):
                player.play(Script(conversation))
                begin = time.monotonic()
                with pytest.raises(errors.TimeoutExpired) as caught:
                    pod.run(["x"], input=INPUT, capture_output=True, timeout=0.4)
                assert time.monotonic() - begin < seconds(5)
                assert WHOLE[0].startswith(caught.value.stdout)
                assert WHOLE[1].startswith(caught.value.stderr)


def test_a_byte_at_a_time(monkeypatch: Any) -> None:
    """A stream that drips is read as it comes, and its Status is one like any other."""
    stream = data(1, b"slow") + fragments(b"\1and steady", 2) + data(3, SUCCESS) + close_frame()
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    for tls in (False, True):
        with playing(tls=tls) as (player, pod):
            process = start(player, pod, Script(sends(*pieces, pause=0.002)))
            assert outcome(process) == ("exit 0", b"slowand steady", b"")


@pytest.mark.parametrize("tls", [False, True])
def test_bytes_of_a_frame_that_is_not_whole_are_signs_of_life(monkeypatch: Any, tls: bool) -> None:
    monkeypatch.setattr("kubews.transport.heartbeat.DEAD_AFTER", 1.5)
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.1)
    stream = data(1, b"a frame that takes its time")
    pieces = [*(stream[i : i + 1] for i in range(len(stream))), data(3, SUCCESS) + close_frame()]
    with playing(tls=tls) as (player, pod):
        drips = sends(*pieces, pause=0.1)  # nor is a ping answered
        player.play(Script(drips))
        done = pod.run(["x"], capture_output=True)  # without input, which might still be on its way
        assert (done.returncode, done.stdout) == (0, stream[3:])


@pytest.mark.parametrize("size", [1, 2, 3, 16, 1000])
def test_tls_records_of_any_size(size: int) -> None:
    """Frames in one record, and records that end anywhere in a frame."""
    stream = BEFORE + BEHIND + close_frame()
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    with playing(tls=True) as (player, pod):
        process = start(player, pod, Script(sends(*pieces)))
        assert outcome(process) == ("exit 3", OUT, ERR)


START = data(1, b"before")
MALFORMED = {
    "reserved bits": (server_frame(b"\1x", rsv=4), "malformed"),
    "unknown opcode": (server_frame(b"\1x", 3), "malformed"),
    "unknown control": (server_frame(b"\1x", 11), "malformed"),
    "fragmented ping": (server_frame(b"x", PING, final=False), "malformed"),
    "long ping": (server_frame(bytes(126), PING), "malformed"),
    "fragment of nothing": (server_frame(b"x", CONT), "malformed"),
    "message in a message": (server_frame(b"\1x", final=False) + data(1, b"y"), "malformed"),
    "close of one byte": (server_frame(b"\3", 8), "malformed|closed"),
    "close with a forbidden code": (server_frame(struct.pack("!H", 1005), 8), "malformed"),
    "a frame of 65 MiB": (b"\x82\x7f" + struct.pack("!Q", 65 << 20) + bytes(100), "limit"),
    "a frame of 2^63 bytes": (b"\x82\x7f" + struct.pack("!Q", 1 << 63) + bytes(100), "limit"),
    "no WebSocket": (b"HTTP/1.1 500 Oops\r\n\r\n" + bytes(100), "malformed"),
    "an end of no stream": (server_frame(b"\xff\x09"), "end of stream"),
    "an end of everything": (server_frame(b"\xff"), "end of stream"),
    "a huge Status": (data(3, b"{" + b" " * (1 << 20)), "Status is larger"),
    "a Status without end": (data(3, b"[" * 1000) * 1100, "Status is larger"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_nonsense_ends_the_connection_and_says_why(name: str) -> None:
    stream, why = MALFORMED[name]
    with playing() as (player, pod):
        player.play(Script(sends(START + stream, data(1, b"behind")), "stall"))
        begin = time.monotonic()
        with pytest.raises(errors.ConnectionLost, match=why) as caught:
            pod.run(["x"], capture_output=True, timeout=seconds(10))
        assert caught.value.partial[0].startswith(b"before")
        assert time.monotonic() - begin < seconds(2)


STRANGE = {
    "not JSON": b"nonsense}",
    "no object": b'["Success"]}',
    "another status": b'{"status":"Perhaps"}',
    "deep": b"[" * 5000 + b"]" * 5000 + b"}",
    "a code that is none": EXIT_3.replace(b'"3"', b'"three"'),
    "a code below zero": EXIT_3.replace(b'"3"', b'"-3"'),
    "a code of 400 digits": EXIT_3.replace(b'"3"', b'"' + b"9" * 400 + b'"'),
    "success as a failure": EXIT_3.replace(b'"3"', b'"0"'),
    "cut in UTF-8": b'{"status":"Failure","message":"\xc3',
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_status_is_an_error_and_no_exit_code(name: str) -> None:
    with playing() as (player, pod):
        process = start(player, pod, Script(sends(START + data(3, STRANGE[name]) + close_frame())))
        assert outcome(process) == ("error", b"before", b"")


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_status_in_many_pieces(tls: bool) -> None:
    message = b"x" * 900_000
    status = b'{"status":"Failure","message":"' + message + b'","reason":"InternalError"}'
    pieces = b"".join(data(3, status[i : i + 999]) for i in range(0, len(status), 999))
    with playing(tls=tls) as (player, pod):
        process = start(player, pod, Script(sends(START + pieces + close_frame())))
        with pytest.raises(errors.ExecError, match="xxxx") as caught:
            process.communicate(timeout=seconds(10))
        assert caught.value.partial == (b"before", b"")
        process.close()


def test_a_server_that_never_closes(monkeypatch: Any) -> None:
    """Nor does it say anything after the Status: the time for what is on the way ends it."""
    monkeypatch.setattr("kubews.transport.link._GRACE", 0.1)
    with playing() as (player, pod):
        process = start(player, pod, Script(sends(START + data(3, SUCCESS)), "stall"))
        assert outcome(process) == ("exit 0", b"before", b"")


def test_everything_in_the_segment_of_the_101() -> None:
    script = Script(ahead=START + data(2, ERR) + data(3, SUCCESS) + close_frame())
    for tls in (False, True):
        with playing(tls=tls) as (player, pod):
            assert outcome(start(player, pod, script)) == ("exit 0", b"before", ERR)


@pytest.mark.parametrize("faults", [{}, {"write_size": 1000, "again": 1}], ids=str)
def test_the_end_of_the_input_stands_behind_all_of_it_r20(
    faults: dict[str, int], monkeypatch: Any
) -> None:
    """R-20: also where the server is slow to take it; and success is what the Status says, not sooner."""
    sent = random.Random(3).randbytes(3_000_000)
    came: list[bytes] = []
    told: list[float] = []

    def act(sock: Any) -> None:
        peer = Peer(sock)
        time.sleep(0.2)  # meanwhile the queue is full
        while (payload := peer.read_frame()[1]) != b"\xff\0":
            came.append(payload[1:])
        time.sleep(0.2)
        told.append(time.monotonic())
        peer.send(data(3, SUCCESS), close_frame())

    with playing() as (player, pod), faulty(monkeypatch, **faults):
        player.play(Script(act))
        done = pod.run(["x"], input=sent, stdout=PIPE, stderr=PIPE, timeout=seconds(30))
        ended = time.monotonic()
        assert (done.returncode, b"".join(came) == sent) == (0, True)
        assert ended >= told[0]
        came.clear()
        player.play(Script(act))
        with pod.popen(["x"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            process.stdin.write(sent)  # leaving the block ends the input, and waits
        assert time.monotonic() >= told[1]
        assert (process.returncode, b"".join(came) == sent) == (0, True)
