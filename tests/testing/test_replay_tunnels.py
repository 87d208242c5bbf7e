"""Replay what kubectl said to a real cluster through tunnels: LocalCluster must answer the same.

The client's messages are kubectl's, byte for byte. Of the server's, the SPDY frames are compared, data of
a stream joined: how they are cut into messages means nothing. Times are ignored.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from podservers import PodServer, echo, http, redis
from rawclient import SCALE
from spdyclient import SpdyClient

from kubews.protocol import spdy_frames as frames
from kubews.protocol.spdy_headers import Decoder
from kubews.testing import LocalCluster

RECORDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "transcripts").glob("portforward-*.json"))
}
NAMES = [name for name, record in RECORDS.items() if "messages" in record]


def payload_of(message: dict[str, Any]) -> bytes:
    """Return a message's bytes; of a long one the relay kept the first 600, and what follows was data."""
    return bytes.fromhex(message["hex"]).ljust(message["len"], b"?")


def said(record: dict[str, Any]) -> bytes:
    """Return what the server's end said on data streams, for the server of the pod to say it again."""
    data = b""
    framer = frames.Framer()
    for message in record["messages"]:
        if message.get("dir") == "server" and message.get("opcode") == "binary":
            for frame in framer.receive(payload_of(message)):
                data += frame.payload if isinstance(frame, frames.DataPiece) else b""
    return data


@pytest.fixture
def box(name: str) -> Iterator[LocalCluster]:
    handlers = {6379: redis, 7001: echo, 80: http(said(RECORDS[name]))}
    with ExitStack() as stack:
        servers = {port: stack.enter_context(PodServer(each)) for port, each in handlers.items()}
        cluster = stack.enter_context(LocalCluster())
        listens = {port: server.port for port, server in servers.items()}
        cluster.add_pod("box", listens={**listens, 9: None})
        yield cluster


class Expected(SpdyClient):
    """Decodes what the server has said in a recording."""

    def __init__(self) -> None:
        self._decoder, self._framer = Decoder(), frames.Framer()
        self.seen = []

    def add(self, payload: bytes) -> None:
        for frame in self._framer.receive(payload):
            self._note(frame)


def masked(seen: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    masks = [(rb"[0-9a-f]{64}", b"ID"), (rb"cni-[0-9a-f-]{36}", b"CNI")]
    result = []
    for entry in seen:
        for pattern, mask in masks:
            entry = tuple(
                re.sub(pattern, mask, each) if isinstance(each, bytes) else each for each in entry
            )
        result.append(entry)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_kubectl_is_answered_as_by_a_real_cluster(name: str, box: LocalCluster) -> None:
    record, expected = RECORDS[name], Expected()
    rest, before = b"", 0
    with SpdyClient(box) as client:
        for message in record["messages"]:
            if message.get("opcode") != "binary":
                continue
            payload = payload_of(message)
            if message["dir"] == "client":
                if message["spdy"]:
                    read_until(client, expected)
                    time.sleep(min((message["t_ms"] - before) / 1000, 0.25))
                    before = message["t_ms"]
                client.send(payload)
                continue
            expected.add(payload)
            rest = b"" if message["spdy"] else rest + payload
        read_until(client, expected)
        if rest:  # the beginning of a frame that was cut off by the end: GOAWAY
            assert rest == frames.goaway(0, 0)[: len(rest)]
            client.see(("goaway", 3, 0))
            client.seen.pop()
    assert masked(client.seen) == masked(expected.seen)


def read_until(client: SpdyClient, expected: Expected) -> None:
    end = time.monotonic() + 10 * SCALE
    # There may be more: kubectl has answered in the middle of what was told at once here.
    while masked(client.seen)[: len(expected.seen)] != masked(expected.seen):
        assert time.monotonic() < end, (client.seen[-4:], expected.seen[-4:])
        client.pump(0.1)


def test_every_recording_is_replayed() -> None:
    assert len(NAMES) >= 4
