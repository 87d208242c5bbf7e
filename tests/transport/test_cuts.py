"""Recorded conversations, cut after every byte: never a false success, never a hang, nothing lost.

The whole client reads them, from ``popen`` to ``communicate``, and what must come of it is said by a few
lines here that follow the specification and know nothing of the code under test.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import random
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from faults import Relay
from peers import server_frame
from player import Player, Script, playing, sends
from support import seconds

from kubews import PIPE, Client, Config, Pod, errors
from kubews.testing import LocalCluster

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
OPCODES = {"text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}
SMALL = 1024

#: Into so many tests the cuts are divided, for those who run tests side by side.
SHARDS = 4


class Recording(NamedTuple):
    name: str
    subprotocol: str
    stream: bytes


def payload_of(frame: dict[str, Any]) -> bytes:
    data = bytes.fromhex(frame["hex"])
    if "rest" in frame:
        data += bytes.fromhex(frame["rest"].rpartition(" ")[2]) * (frame["len"] - len(data))
    assert len(data) == frame["len"]
    return data


@functools.cache
def recordings() -> list[Recording]:
    """The bytes that servers sent after the 101, in each recorded exec that has one; equal ones once."""
    found: dict[tuple[str, bytes], str] = {}
    for path in sorted(TRANSCRIPTS.glob("exec-*.json")):
        record = json.loads(path.read_text())
        if record.get("response", {}).get("status") != 101:
            continue  # refused, or between kubectl and a proxy
        stream = b"".join(
            server_frame(payload_of(frame), OPCODES[frame["opcode"]])
            for frame in record["frames"]
            if frame["dir"] == "server"
        )
        found.setdefault((record["response"].get("subprotocol") or "", stream), path.stem)
    return [Recording(name, *key) for key, name in found.items()]


class Expected(NamedTuple):
    stdout: bytes
    stderr: bytes
    #: What came on the error channel.
    status: bytes


def read_independently(subprotocol: str, stream: bytes) -> Expected:
    """What whole frames of this stream say, up to the Close or to the Status and what follows it."""
    channels = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    at = 0
    while len(stream) >= at + 2:
        opcode, size, start = stream[at] & 15, stream[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(stream[at + 2 : at + 4], "big"), at + 4
        elif size == 127:
            size, start = int.from_bytes(stream[at + 2 : at + 10], "big"), at + 10
        if len(stream) < start + size or opcode == 8:
            break
        payload, at = stream[start : start + size], start + size
        if opcode in (1, 2) and payload:
            channel, data = payload[0], payload[1:]
            if "base64" in subprotocol:
                channel, data = channel - 48, base64.decodebytes(data)
            if channel in channels:
                channels[channel] += data
    return Expected(*map(bytes, channels.values()))


def exit_code_of(subprotocol: str, raw: bytes) -> Optional[int]:
    """The exit code of a whole Status, None for anything else."""
    if "v4" not in subprotocol and "v5" not in subprotocol:
        return None
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    if document["status"] == "Success":
        return 0
    causes = document.get("details", {}).get("causes", [])
    codes = [int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"]
    return codes[0] if codes else None


class Cut(NamedTuple):
    recording: Recording
    after: int
    end: str


def cut(player: Player, pod: Pod, case: Cut) -> str:
    """Let one conversation end early; return in a word what came of it."""
    recording, after, end = case
    seen, go = recording.stream[:after], threading.Event()

    def act(sock: Any) -> None:
        # A reset may overtake what was sent before; the answer to the request shall not be part of that.
        assert go.wait(seconds(10))
        sends(seen)(sock)

    if end == "reset":
        player.play(Script(act, end, recording.subprotocol))
    else:
        player.play(Script(sends(), end, recording.subprotocol, seen))
    begin = time.monotonic()
    process = pod.popen(["x"], stdout=PIPE, stderr=PIPE)
    go.set()
    try:
        out, err = process.communicate(timeout=seconds(10))
        result = f"exit {process.returncode}"
    except errors.ConnectionLost as exc:
        out, err = exc.partial
        result = "lost"
    except errors.ExecError as exc:
        out, err = exc.partial
        result = "error"
    process.close()
    assert time.monotonic() - begin < seconds(10), case
    judge(case, read_independently(recording.subprotocol, seen), result, out, err)
    return result.partition(" ")[0]


def judge(case: Cut, expected: Expected, result: str, out: bytes, err: bytes) -> None:
    subprotocol = case.recording.subprotocol
    code = exit_code_of(subprotocol, expected.status)
    if case.end == "reset" and result == "lost":
        # What was on the way is lost, and it is said so.
        assert expected.stdout.startswith(out), case
        assert expected.stderr.startswith(err), case
        return
    assert (out, err) == (expected.stdout, expected.stderr), case
    if code is not None:
        assert result == f"exit {code}", case
    elif expected.status:  # the bare text of old subprotocols, or a Status without a code
        assert result == "error", case
    else:
        assert result == "lost", case


def every_byte(*, whole: bool = True) -> list[tuple[Recording, int]]:
    """Every cut of the small ones, those that leave the same bytes once; 200 of each large one.

    Args:
        whole: else a sixteenth of those of small ones, with those near the end, and a quarter of those of large ones;
            less where they are of other releases of Kubernetes.
    """
    seen: dict[tuple[str, bytes], tuple[Recording, int]] = {}
    sample = random.Random(5)
    result = []
    for recording in recordings():
        size = len(recording.stream)
        less = not whole and re.match(r"exec-1\.", recording.name)
        if size >= SMALL:
            offsets = sample.sample(range(size), 200 if whole else 10 if less else 50)
            result += [(recording, offset) for offset in [*offsets, size]]
            continue
        offsets = sample.sample(range(size + 1), 1 + size // 40) if less else list(range(size + 1))
        for offset in offsets if whole or less else [*offsets[:-40:16], *offsets[-40:]]:
            seen.setdefault((recording.subprotocol, recording.stream[:offset]), (recording, offset))
    return [*seen.values(), *result]


def run_cuts(cases: list[Cut], monkeypatch: pytest.MonkeyPatch, *, tls: bool) -> None:
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with playing(tls=tls) as (player, pod):
        for case in cases:
            # Also those that are not offered: nobody else speaks them.
            subprotocol = case.recording.subprotocol
            monkeypatch.setattr("kubews.session.OFFER", (subprotocol,) if subprotocol else ())
            counts[cut(player, pod, case)] += 1
    took = time.monotonic() - begin
    print(
        f"{len(cases)} cuts in {took:.1f} s, TLS: {tls}: {dict(counts)}; 0 hangs, 0 false successes"
    )


def test_the_recordings_are_there() -> None:
    small = [one for one in recordings() if len(one.stream) < SMALL]
    large = [one for one in recordings() if len(one.stream) >= SMALL]
    assert len(small) >= 27
    assert len(large) >= 2
    assert {"v4.channel.k8s.io", "v5.channel.k8s.io"} < {one.subprotocol for one in small}


@pytest.mark.parametrize("shard", range(SHARDS))
def test_cut_after_many_bytes_r3(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-3, R-5: an end or a reset, in turns; the long form tries both after every byte."""
    cases = [
        Cut(recording, after, ("fin", "reset")[(number // SHARDS) % 2])
        for number, (recording, after) in enumerate(every_byte(whole=False))
        if number % SHARDS == shard
    ]
    run_cuts(cases, monkeypatch, tls=False)


@pytest.mark.parametrize("end", ["fin", "reset", "close_notify"])
def test_cut_under_tls_r3(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-3: a sample; TLS tells an end from a cut, and neither is a Status."""
    cuts = random.Random(end).sample(every_byte(), 200)
    run_cuts([Cut(*case, end) for case in cuts], monkeypatch, tls=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("end", "tls"),
    [("fin", False), ("reset", False), ("fin", True), ("reset", True), ("close_notify", True)],
)
def test_cut_after_every_byte_in_each_way_r3(
    end: str, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-3, R-5."""
    run_cuts([Cut(*case, end) for case in every_byte()], monkeypatch, tls=tls)


# -- below TLS: within a record, and within its handshake


#: Some KiB in several records, of which no piece is like another, and a little on stderr.
SCRIPT = "for i in 0 1 2 3; do seq $((i * 250 + 1)) $((i * 250 + 250)); done; echo oops >&2; exit 3"
COMMAND = ["sh", "-c", SCRIPT]
STDOUT, STDERR = b"".join(b"%d\n" % number for number in range(1, 1001)), b"oops\n"


class RawCut(NamedTuple):
    after: int
    end: str


def relayed(config: Config, relay: Relay) -> Client:
    server = f"https://127.0.0.1:{relay.address[1]}"
    return Client(
        dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, server=server))
    )


def raw_size(config: Config, target: tuple[str, int]) -> int:
    """The bytes of TLS that a server sends for the command, to its Status at least."""
    with Relay(target) as relay:
        with relayed(config, relay) as client:
            done = client.pod("web-0").run(COMMAND, capture_output=True, timeout=seconds(10))
        assert (done.returncode, done.stdout, done.stderr) == (3, STDOUT, STDERR)
        return len(relay.from_server)


def raw_cut(config: Config, target: tuple[str, int], case: RawCut) -> str:
    """Cut the TLS of one command; return in a word what came of it."""
    begin = time.monotonic()
    with Relay(target, cut_after=case.after, cut=case.end) as relay:
        with relayed(config, relay) as client:
            try:
                done = client.pod("web-0").run(COMMAND, capture_output=True, timeout=seconds(10))
                assert (done.returncode, done.stdout, done.stderr) == (3, STDOUT, STDERR), case
                result = "right"
            except (errors.TimeoutExpired, errors.ConnectTimeout):
                raise AssertionError(f"{case} hangs") from None
            except errors.ConnectionLost as exc:
                out, err = exc.partial
                assert STDOUT.startswith(out), case
                assert STDERR.startswith(err), case
                result = "lost with output" if out else "lost"
            except errors.ConnectFailed:
                result = "not connected"
    assert time.monotonic() - begin < seconds(10), case
    return result


def run_raw_cuts(config: Config, step: int) -> None:
    """Cut at every so many bytes, and around the Status; each with an end and with a reset."""
    target = ("127.0.0.1", config.cluster.port)
    size = raw_size(config, target)
    # A shell's writes may be more records or fewer the next time; what is never cut shall be among them.
    offsets = range(1, size + 200)
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    for after in sorted({*offsets[::step], *offsets[-1:-300:-60]}):
        for end in ("fin", "reset"):
            counts[raw_cut(config, target, RawCut(after, end))] += 1
    took = time.monotonic() - begin
    print(
        f"{counts.total()} cuts of {size} bytes of TLS in {took:.1f} s: {dict(counts)}; "
        "0 hangs, 0 false successes"
    )
    # Each of the stages was met.
    assert set(counts) == {"not connected", "lost", "lost with output", "right"}


def test_cut_within_tls_r3(local: LocalCluster, client: Client) -> None:
    """R-3, R-5: of a real command, wherever the bytes below TLS end."""
    run_raw_cuts(client.config, 293)


@pytest.mark.long
def test_cut_within_tls_after_every_byte_r3(local: LocalCluster, client: Client) -> None:
    """R-3, R-5."""
    run_raw_cuts(client.config, 1)
