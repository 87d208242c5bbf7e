"""Connections that end before they should: never a false success, never a hang, nothing lost."""

from __future__ import annotations

import codecs
import gc
import io
import itertools
import pickle
import random
import time
from pathlib import Path
from typing import Any

import pytest
from support import echo, put, seconds
from transport.peers import data, opened, pass_the_grace

import kubews
from kubews import PIPE, Client, Pod
from kubews.session import Session
from kubews.streams import Stream
from kubews.testing import FOREVER, Faults
from kubews.transport import heartbeat
from kubews.transport.deadline import Deadline
from kubews.wrappers import TextReadStream


@pytest.mark.parametrize(
    "faults",
    [
        Faults(no_status=True),
        Faults(no_status=True, close_frame=False),
        Faults(no_status=True, close_frame=False, close_notify=False),
        Faults(drop_after=8, drop="reset"),
        Faults(drop_after=8, drop="fin"),
        Faults(drop_after=8, drop="close_notify"),
        Faults(status=b"", close_frame=False),
        Faults(no_status=True, close_code=1001),
        Faults(no_status=True, close_code=0),
    ],
    ids=repr,
)
def test_an_end_without_status_is_a_lost_connection_r3(pod: Pod, local, faults: Faults) -> None:
    """R-3: Close, TLS EOF with and without close_notify, FIN and RST are no exit codes."""
    local.next_faults(faults)
    with pytest.raises(kubews.ConnectionLost) as caught:
        pod.run(["printf", "abc"], capture_output=True)
    assert isinstance(caught.value, ConnectionError)
    assert sum(caught.value.received.values()) == len(b"".join(caught.value.partial))
    assert b"abc".startswith(caught.value.partial[0])
    for word in ("default/web-0", ".channel.k8s.io", "bytes of stdout"):
        assert word in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.partial, copy.received) == (
        str(caught.value),
        caught.value.partial,
        caught.value.received,
    )


def test_poll_raises_instead_of_none_for_ever_r3(pod: Pod, local) -> None:
    """R-3: ``while p.poll() is None`` ends."""
    local.next_faults(Faults(no_status=True, close_frame=False))
    with pytest.raises(kubews.ConnectionLost):
        with pod.popen(["true"], stdout=PIPE) as process:
            end = time.monotonic() + seconds(5)
            while process.poll() is None:
                assert time.monotonic() < end
    assert process.returncode is None


def test_a_ping_that_nobody_answers_is_no_exit_code_r3(pod: Pod, local, monkeypatch) -> None:
    """R-3, R-10: a server that says nothing more is given up, with what it had said."""
    monkeypatch.setattr("kubews.transport.heartbeat.DEAD_AFTER", 0.6)
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.1)
    local.next_faults(Faults(pong=False))
    with pytest.raises(kubews.ConnectionLost, match="no sign of life") as caught:
        pod.run(["sh", "-c", "echo early; exec sleep 4"], capture_output=True, timeout=seconds(10))
    assert caught.value.partial[0] == b"early\n"
    local.next_faults(Faults(match="/attach", pong=False))
    with pod.attach(stdout=PIPE) as attached:
        with pytest.raises(kubews.ConnectionLost, match="no sign of life"):
            attached.wait(seconds(10))


def test_everything_before_the_loss_can_be_read_r5(pod: Pod, local) -> None:
    """R-5: whatever mix of read, readline and iteration, then ConnectionLost, every time."""
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["printf", "one\\ntwo\\nthree"], stdout=PIPE)
    assert process.stdout.readline() == b"one\n"
    assert process.stdout.read(2) == b"tw"
    assert next(process.stdout) == b"o\n"
    assert process.stdout.readline() == b"three"
    for _ in range(2):
        for read in (process.stdout.readline, process.stdout.read, process.stdout.read1):
            with pytest.raises(kubews.ConnectionLost):
                read()
        with pytest.raises(kubews.ConnectionLost):
            next(process.stdout)
        with pytest.raises(kubews.ConnectionLost):
            process.stdout.readinto(bytearray(4))
        with pytest.raises(kubews.ConnectionLost):
            process.stdout.readinto1(bytearray(4))
    process.close()


def test_read_to_the_end_carries_everything_in_partial_r5(pod: Pod, local) -> None:
    """R-5, for the buffered, the raw and the text stream."""
    for options, expected in (
        ({}, b"one\ntwo"),
        ({"bufsize": 0}, b"one\ntwo"),
        ({"text": True}, "one\ntwo"),
    ):
        local.next_faults(Faults(no_status=True))
        process = pod.popen(["printf", "one\\ntwo"], stdout=PIPE, **options)
        with pytest.raises(kubews.ConnectionLost) as caught:
            process.stdout.read()
        assert caught.value.partial == expected
        process.close()


def test_what_a_wrapper_of_the_users_holds_stays_there_r5(pod: Pod, local) -> None:
    """R-5: communicate() has the rest, as bytes."""
    local.next_faults(Faults(no_status=True))
    script = "printf 'one\\ntwo\\n'; read x; echo three"
    with pod.popen(script, shell=True, stdin=PIPE, stdout=PIPE) as process:
        process.stdout = io.TextIOWrapper(process.stdout, encoding="utf-8")
        assert process.stdout.readline() == "one\n"
        with pytest.raises(kubews.ConnectionLost) as caught:
            process.communicate(b"\n")
        assert caught.value.partial == (b"three\n", None)
        assert process.stdout.readline() == "two\n"


@pytest.mark.parametrize("options", [{}, {"bufsize": 0}, {"text": True}], ids=repr)
def test_read_to_the_end_of_a_descriptor_carries_everything_in_partial_r5(
    pod: Pod, local, options: Any
) -> None:
    """R-5: a fault behind ``fileno()`` is as one before it."""
    local.next_faults(Faults(no_status=True))
    process = pod.popen("printf one; sleep 0.3; printf two", stdout=PIPE, shell=True, **options)
    process.stdout.fileno()
    with pytest.raises(kubews.ConnectionLost) as caught:
        process.stdout.read()
    assert caught.value.partial == ("onetwo" if "text" in options else b"onetwo")
    process.close()


def peeked(stream: Any) -> bytes:
    found = []
    while size := len(stream.peek()):
        found.append(stream.read(size))
    return b"".join(found)


def pieces(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.read(2), b""))


@pytest.mark.parametrize(
    "read", [lambda stream: stream.read(), pieces, list], ids=["all", "pieces", "lines"]
)
@pytest.mark.parametrize(
    ("options", "inner"),
    [
        ({}, lambda stream: stream.detach()),
        ({}, lambda stream: stream.raw),
        ({}, lambda stream: io.BufferedReader(stream.detach())),
        ({"text": True}, lambda stream: stream.buffer),
        ({"text": True}, lambda stream: stream.detach()),
        ({"text": True}, lambda stream: io.TextIOWrapper(stream.detach(), "latin-1")),
        ({"text": True, "bufsize": 0}, lambda stream: stream.buffer),
        ({"text": True, "bufsize": 0}, lambda stream: stream.detach()),
    ],
    ids=["raw", "attribute", "buffer", "bytes", "detached", "text", "unbuffered", "detached too"],
)  # fmt: skip
def test_what_is_within_the_wrappers_tells_of_a_loss_too_r3(
    pod: Pod, local, read: Any, options: Any, inner: Any
) -> None:
    """R-3: a cut is no end of file for any of the objects that ``io`` hands out."""
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["printf", "one\\ntwo"], stdout=PIPE, **options)
    outer, stream = process.stdout, inner(process.stdout)
    with pytest.raises(kubews.ConnectionLost):
        read(stream)
    process.close()
    stream.close()
    del outer


def test_peeking_to_the_end_tells_of_a_loss_r3(pod: Pod, local) -> None:
    """R-3."""
    for bufsize in (0, -1):
        local.next_faults(Faults(no_status=True))
        with pod.popen(["echo", "x"], stdout=PIPE, bufsize=bufsize) as process:
            with pytest.raises(kubews.ConnectionLost):
                peeked(process.stdout)
            with pytest.raises(kubews.ConnectionLost):
                process.wait()


def test_text_goes_on_behind_a_look_at_its_bytes(pod: Pod) -> None:
    with pod.popen(["printf", "one\\ntwo\\n"], stdout=PIPE, text=True) as process:
        assert process.stdout.buffer.readline() == b"one\n"
        assert process.communicate() == ("two\n", None)


def test_readlines_has_what_came_in_partial_r5(pod: Pod, local) -> None:
    """R-5."""
    for text, nothing in ((False, b""), (True, "")):
        local.next_faults(Faults(no_status=True))
        process = pod.popen(["printf", "one\\ntwo"], stdout=PIPE, text=text)
        with pytest.raises(kubews.ConnectionLost) as caught:
            process.stdout.readlines()
        assert caught.value.partial == ("one\ntwo" if text else b"one\ntwo")
        process.close()
        with pod.popen(["printf", "1\\n2\\n3\\n4\\n"], stdout=PIPE, text=text) as process:
            assert nothing.join(process.stdout.readlines(2)) == ("1\n2\n" if text else b"1\n2\n")
            assert len(process.stdout.readlines(None)) == 2
            assert process.stdout.readlines() == []


def test_text_lines_before_the_loss_r5(pod: Pod, local) -> None:
    """R-5."""
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["printf", "é\\nb"], stdout=PIPE, text=True)
    lines = []
    with pytest.raises(kubews.ConnectionLost):
        lines.extend(iter(process.stdout.readline, ""))
    process.close()
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["printf", "é\\nb"], stdout=PIPE, text=True)
    with pytest.raises(kubews.ConnectionLost):
        for line in process.stdout:
            lines.append(line)
    process.close()
    assert lines == ["é\n", "b"] * 2


def test_a_cut_in_the_middle_of_a_character_loses_nothing_r5(pod: Pod, local) -> None:
    """R-5: what can be decoded is there, and the connection is what is complained about."""
    for first in ("", "é\n"):
        local.next_faults(Faults(no_status=True))
        process = pod.popen(["printf", "\\303\\251\\n0123\\303"], stdout=PIPE, text=True)
        if first:
            assert process.stdout.readline() == first
        with pytest.raises(kubews.ConnectionLost) as caught:
            process.stdout.read()
        assert first + caught.value.partial == "é\n0123\N{REPLACEMENT CHARACTER}"
        process.close()


def test_recv_gives_the_bytes_first_and_has_a_timeout(pod: Pod, local) -> None:
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["sh", "-c", "read x; printf abc"], stdin=PIPE, stdout=PIPE, bufsize=0)
    with pytest.raises(kubews.ReadTimeout):
        process.stdout.recv(10, timeout=0.05)
    process.stdin.write(b"\n")
    assert process.stdout.recv(2, timeout=seconds(5)) == b"ab"
    assert process.stdout.recv(2, timeout=seconds(5)) == b"c"
    for _ in range(2):
        with pytest.raises(kubews.ConnectionLost):
            process.stdout.recv(2, timeout=seconds(5))
    process.close()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (b'{"metadata":{},"status":"Success"}', 0),
        (
            b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":'
            b'[{"reason":"Other","message":"x"},{"reason":"ExitCode","message":"42"}]}}',
            42,
        ),
        (b'{"status":"Failure","reason":"InternalError","message":"broke","code":500}', "broke"),
        (b'{"status":"Failure","message":"no details","reason":"NonZeroExitCode"}', "no details"),
        (b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[]}}', "no message"),
        (b"command terminated with non-zero exit code", "command terminated"),
        (b'{"status":"Failure","message":"cut of', "cut of"),
        (b"[]", r"\[\]"),
        (b"\xff\xfe", "web-0"),
    ],
)
def test_every_shape_of_status_r4(pod: Pod, local, status: bytes, expected: int | str) -> None:
    """R-4: an integer only where the Status has one; asking twice gives the same."""
    for pieces in (None, 1):
        local.next_faults(Faults(status=status, status_pieces=pieces))
        process = pod.popen(["true"], stdout=PIPE)
        for _ in range(2):
            if isinstance(expected, int):
                assert process.wait(seconds(5)) == expected
            else:
                with pytest.raises(kubews.ExecError, match=expected) as caught:
                    process.wait(seconds(5))
                assert pickle.loads(pickle.dumps(caught.value)).status == caught.value.status
        process.close()


def test_status_before_the_data_loses_nothing(pod: Pod, local) -> None:
    local.next_faults(Faults(early_status=True))
    done = pod.run(["head", "-c", "300000", "/dev/zero"], capture_output=True)
    assert (done.returncode, len(done.stdout)) == (0, 300_000)


def test_output_that_still_flows_after_the_status_is_not_cut_r12(
    pod: Pod, local, monkeypatch, tmp_path: Path
) -> None:
    """R-12: the time to wait for what is on the way counts silence, not output."""
    monkeypatch.setattr("kubews.transport.link._GRACE", 1000)
    local.next_faults(Faults(early_status=True))
    script = 'for i in 1 2 3 4; do echo $i; until [ -e "$0/$i" ]; do sleep 0.02; done; done'
    with pod.popen(["sh", "-c", script, tmp_path], stdout=PIPE) as process:
        for number in range(1, 5):
            assert process.stdout.readline() == b"%d\n" % number
            if number > 1:  # which may have come along with the Status
                pass_the_grace(process._connection)
            (tmp_path / str(number)).touch()
        assert process.stdout.read() == b""
        assert process.wait() == 0


def test_a_server_that_never_closes_does_not_hold_anybody(pod: Pod, local, monkeypatch) -> None:
    monkeypatch.setattr("kubews.transport.link._GRACE", 0.2)
    local.next_faults(Faults(close_frame=False, close_notify=False, drop="fin"))
    assert pod.run(["echo", "x"], capture_output=True).stdout == b"x\n"


# How a server may cut the same bytes, and how many of them to send. With pings in between the server
# closes with pongs unread, which makes its kernel drop what is not yet sent: then only a few.
FORMS = [
    (Faults(), 200_000),
    (Faults(record_size=1), 20_000),
    (Faults(record_size=7, join=True), 20_000),
    (Faults(join=True), 200_000),
    (Faults(fragment=5), 20_000),
    (Faults(fragment=50, ping=b"between"), 400),
    (Faults(frame_size=3), 20_000),
    (Faults(fragment=3, record_size=2, ping=b""), 40),
]


@pytest.mark.parametrize(("faults", "size"), FORMS, ids=str)
def test_however_frames_and_records_are_cut_every_byte_arrives_r1(
    pod: Pod, local, faults: Faults, size: int
) -> None:
    """R-1: frames packed many to a TLS record, records and messages split anywhere."""
    data = random.Random(7).randbytes(size)
    put(pod, "data", data)
    local.next_faults(faults)
    done = pod.run(["cat", "data"], capture_output=True, timeout=seconds(60))
    assert (done.returncode, done.stdout) == (0, data)


@pytest.mark.parametrize(("faults", "size"), FORMS, ids=str)
def test_a_character_on_the_border_of_frames_survives_r2(
    pod: Pod, local, faults: Faults, size: int
) -> None:
    """R-2: text is decoded over the stream, not a frame at a time."""
    text = "é\N{GRINNING FACE}ü" * (size // 8)
    put(pod, "text", text.encode())
    local.next_faults(faults)
    done = pod.run(["cat", "text"], text=True, stdout=PIPE, timeout=seconds(60))
    assert done.stdout == text


@pytest.mark.local_only("containerd tells no end of a command that leaves much input unread")
@pytest.mark.half_close
def test_what_came_before_a_reset_counts(pod: Pod) -> None:
    """A server that closes with input unread resets the connection; the Status came before."""
    for _ in range(20):
        done = pod.run(
            ["sh", "-c", "echo out; exit 3"], input=b"x" * 3_000_000, capture_output=True
        )
        assert (done.returncode, done.stdout) == (3, b"out\n")


@pytest.mark.parametrize("left", [3 << 20, 8 << 20])
def test_a_pause_shortly_before_the_end_loses_nothing_r1_r25(
    client: Client, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """R-1, R-25: the command has ended, the servers have closed, and much of its output is on its way."""
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.4)
    with Client(client.config) as pinging:
        size, count = 32 << 20, 0
        command = ["head", "-c", str(size), "/dev/zero"]
        with pinging.pod("web-0").popen(command, stdout=PIPE, bufsize=0) as process:
            while size - count > left:
                piece = process.stdout.read(1 << 18)
                assert piece, "the server has cut it and says that it was well"
                count += len(piece)
            time.sleep(1)
            while piece := process.stdout.read(1 << 18):
                count += len(piece)
            assert (count, process.wait(seconds(10))) == (size, 0)


@pytest.mark.half_close
def test_256_mib_of_random_bytes_down_and_up_are_exact_r1(pod: Pod) -> None:
    """R-1: through TLS, both ways at once."""
    echo(pod, 256 << 20, 1 << 20)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(accept_delay=FOREVER),
        Faults(handshake_delay=FOREVER),
        Faults(response_delay=FOREVER),
        Faults(drip=0.05),
        Faults(response=b"HTTP/1.1 1", drip=0.01),
    ],
    ids=repr,
)
def test_nothing_waits_longer_than_the_time_limit_r9(local, faults: Faults) -> None:
    """R-9: silent after accept, in TLS, after the request; half a status line; a byte at a time."""
    with local.client() as client:
        client.connect_timeout = seconds(0.5)
        local.next_faults(faults)
        begin = time.monotonic()
        with pytest.raises(kubews.ConnectFailed):
            client.pod("web-0").run(["true"])
        assert time.monotonic() - begin < seconds(1.5)
        local.next_faults(faults)
        with pytest.raises((kubews.ConnectFailed, kubews.ApiError)):
            client.get("/version")
        assert time.monotonic() - begin < seconds(3)


def test_the_default_time_limit_is_finite_r9() -> None:
    """R-9."""
    assert 0 < kubews.client.CONNECT_TIMEOUT <= 30


def test_by_default_a_silent_server_is_given_up_after_a_minute_r10() -> None:
    """R-10: pings at least every 15 s, and client-go's time for an answer."""
    assert 0 < kubews.client.PING_INTERVAL <= 15
    assert kubews.client.PING_INTERVAL < heartbeat.DEAD_AFTER <= 61


@pytest.mark.parametrize("read", [lambda text: text.readline(), next, lambda text: text.read(99)])
def test_a_loss_in_the_middle_of_a_character_is_a_loss_r5(read) -> None:
    """R-5: the text is not to blame; but for bytes that are wrong whatever comes, it is."""
    for size in (8192, 0):
        for sent in ("é".encode()[:1], b"\xff!"):
            with opened() as (connection, peer):
                raw = Stream(Session(connection), 1, connection.pipes[1])
                text = TextReadStream(raw, size, None, None)
                peer.send(data(1, b"cut " + sent))
                peer.close()
                if sent == b"\xff!":
                    with pytest.raises(UnicodeDecodeError):
                        read(text)
                else:
                    assert read(text) == "cut "
                half = "" if sent == b"\xff!" else "\N{REPLACEMENT CHARACTER}"
                for partial in (half, ""):
                    with pytest.raises(kubews.ConnectionLost) as caught:
                        read(text)
                    assert caught.value.partial == partial
                connection.join(Deadline(seconds(10)))


@pytest.mark.parametrize(
    ("encoding", "errors", "sent", "half"),
    [
        ("utf-8", "strict", "añ€😀".encode()[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("utf-8", "surrogateescape", "a€".encode()[:-1], "\udce2\udc82"),
        ("utf-8", "ignore", "a€".encode()[:-1], ""),
        ("utf-8", "surrogatepass", "a€".encode()[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("utf-8", "xmlcharrefreplace", "a€".encode()[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("utf-8-sig", None, "a€".encode("utf-8-sig")[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("utf-16", None, "añ😀".encode("utf-16")[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("shift_jis", None, "aあい".encode("shift_jis")[:-1], "\N{REPLACEMENT CHARACTER}"),
        ("iso2022_jp", None, "aあ".encode("iso2022_jp")[:5], "\N{REPLACEMENT CHARACTER}"),
        ("latin-1", None, b"a\xe9", ""),
        ("idna", None, b"xn--caf-dma.de.", ""),
    ],
)
def test_text_of_every_encoding_up_to_a_cut_character_comes_first_r5(
    encoding: str, errors: Any, sent: bytes, half: str
) -> None:
    """R-5: however the bytes are split."""
    for splits in (range(len(sent) + 1), range(0, len(sent) + 2, 2), (0, len(sent))):
        with opened() as (connection, peer):
            raw = Stream(Session(connection), 1, connection.pipes[1])
            text = TextReadStream(raw, 0, encoding, errors)
            for begin, end in itertools.pairwise(splits):
                peer.send(data(1, sent[begin:end]))
            peer.close()
            expected = codecs.getincrementaldecoder(encoding)("strict").decode(sent)
            assert text.read(99) == expected
            with pytest.raises(kubews.ConnectionLost) as caught:
                text.read(99)
            assert caught.value.partial == half
            connection.join(Deadline(seconds(10)))


@pytest.mark.parametrize(
    ("encoding", "begun", "first", "rest", "partial"),
    [
        ("utf-8", "a\n", b"a\n", "é".encode() + b"\xff!", "é\N{REPLACEMENT CHARACTER}!"),
        (
            "utf-16",
            "a\n",
            "\ufeffa\n".encode("utf-16-be"),
            b"\xd8\0\0b",
            "\N{REPLACEMENT CHARACTER}b",
        ),
        (
            "iso2022_jp",
            "あ",
            "あ".encode("iso2022_jp")[:-3],
            b"$$\x1b(B\xff",
            "い\N{REPLACEMENT CHARACTER}",
        ),
    ],
)
def test_what_is_no_text_before_a_loss_is_in_its_partial_r5(
    encoding: str, begun: str, first: bytes, rest: bytes, partial: str
) -> None:
    """R-5: replaced, and the rest decoded as what it is."""
    with opened() as (connection, peer):
        raw = Stream(Session(connection), 1, connection.pipes[1])
        text = TextReadStream(raw, 8192, encoding, None)
        peer.send(data(1, first))
        assert text.read(len(begun)) == begun
        peer.send(data(1, rest))
        peer.close()
        with pytest.raises(kubews.ConnectionLost) as caught:
            text.read()
        assert caught.value.partial == partial
        connection.join(Deadline(seconds(10)))


@pytest.mark.parametrize("bufsize", [-1, 0])
@pytest.mark.parametrize("looked", [False, True])
def test_text_before_a_cut_character_is_read_first_r5(
    pod: Pod, local, bufsize: int, looked: bool
) -> None:
    """R-5: a line or a count that the loss ends is given out, also behind a look at ``buffer``."""

    def everything(read: Any) -> tuple[list[str], Any]:
        local.next_faults(Faults(no_status=True))
        options = {"stdout": PIPE, "text": True, "bufsize": bufsize}
        process = pod.popen(["printf", "a\\r\\n0123\\303"], **options)
        if looked:
            assert hasattr(process.stdout, "buffer")
        got: list[str] = []
        with pytest.raises(kubews.ConnectionLost) as caught:
            while True:
                got += read(process.stdout)
        process.close()
        return got, caught.value.partial

    half = "\N{REPLACEMENT CHARACTER}"
    assert everything(lambda text: [text.readline()]) == (["a\n", "0123"], half)
    assert everything(lambda text: [next(text)]) == (["a\n", "0123"], half)
    assert everything(lambda text: [text.read(100)]) == (["a\n0123"], half)
    assert everything(lambda text: text.readlines()) == ([], "a\n0123" + half)
    assert everything(lambda text: [text.read()]) == ([], "a\n0123" + half)


def filled(stream: Any) -> bytes:
    buffer, got = bytearray(2), b""
    while count := stream.readinto(buffer):
        got += buffer[:count]
    return got


def buffered(raw: Any) -> bytes:
    buffer = io.BufferedReader(raw)
    try:
        return pieces(buffer)
    finally:
        buffer.detach()


@pytest.mark.parametrize(
    "read",
    [
        filled,
        pieces,
        lambda raw: raw.readall(),
        buffered,
        lambda raw: b"".join(iter(lambda: raw.recv(2, seconds(10)), b"")),
    ],
    ids=["readinto", "read", "readall", "buffer", "recv"],
)
@pytest.mark.parametrize("bridged", [False, True])
def test_the_raw_stream_tells_of_a_loss_however_it_is_read_r3(
    pod: Pod, local, read: Any, bridged: bool
) -> None:
    """R-3."""
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["printf", "one\\ntwo"], stdout=PIPE)
    raw = process.stdout.raw
    assert isinstance(raw, Stream)
    if bridged:
        raw.fileno()
    for _ in range(2):
        with pytest.raises(kubews.ConnectionLost):
            read(raw)
    process.close()


@pytest.mark.half_close
def test_text_may_be_reconfigured_before_it_is_read(pod: Pod) -> None:
    with pod.popen(
        "printf 'caf\\351'; read x", stdin=PIPE, stdout=PIPE, text=True, shell=True
    ) as p:
        p.stdout.reconfigure(encoding="latin-1")
        assert p.stdout.read(4) == "café"
        p.stdin.close()


def test_a_text_stream_that_was_detached_is_as_any_other(pod: Pod) -> None:
    with pod.popen(["echo", "x"], stdout=PIPE, text=True) as process:
        text, process.stdout = process.stdout, process.stdout.detach()
        with pytest.raises(ValueError, match="detached"):
            _ = text.closed
        del text
        gc.collect()
        assert process.stdout.read() == b"x\n"
