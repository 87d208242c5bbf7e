"""Copies through a network that breaks at any byte: the cut is told, nothing is half there, and it goes on."""

from __future__ import annotations

import dataclasses
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Relay, reset

from kubews import Client, Pod
from kubews.errors import KubewsError, TruncatedTransfer

SIZE = 2_000_000
OVERHEAD = 60_000  # of TLS, requests, questions and frames


class Severing(Relay):
    """A man in the middle who resets one connection when so many bytes have passed, and no other."""

    left: int | None = None

    def _move(self, source: Any, target: socket.socket, record: bytearray, *ends: Any) -> bool:
        before = len(record)
        if not super()._move(source, target, record, *ends):
            return False
        if self.left is None:
            return True
        self.left -= len(record) - before
        if self.left > 0:
            return True
        self.left = None
        reset(ends[0])
        return False


@pytest.fixture
def severing(client: Client, nothing_left_behind: None) -> Iterator[Severing]:
    cluster = client.config.cluster
    with Severing((cluster.host, cluster.port)) as relay:
        yield relay


@pytest.fixture
def pod(client: Client, severing: Severing) -> Iterator[Pod]:
    """The pod, behind the one who cuts."""
    cluster = dataclasses.replace(
        client.config.cluster,
        server=f"https://127.0.0.1:{severing.address[1]}{client.config.cluster.path_prefix}",
        tls_server_name=client.config.cluster.tls_server_name or client.config.cluster.host,
    )
    with Client(dataclasses.replace(client.config, cluster=cluster)) as severed:
        yield severed.pod("web-0")


def places() -> list[int]:
    """Ten places to cut at, wherever that is."""
    return [1, SIZE, *(random.randrange(1, SIZE + OVERHEAD) for _ in range(8))]


def test_on_the_way_here_r8_r47(pod: Pod, severing: Severing, place: str, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "source").write_bytes(data)
    pod.copy_to(tmp_path / "source", place)
    (tmp_path / "here").mkdir()
    target = tmp_path / "here" / "f"
    told = 0
    for left in places():
        target.write_text("as before")
        severing.left = left
        try:
            pod.copy_from(place, target, retries=0, resume=True)
        except KubewsError as exc:  # before the first byte of the file it is no copy that was cut
            cut = isinstance(exc, TruncatedTransfer)
            told += cut
            assert target.read_text() == "as before"
            # Once more, and it goes on by itself: not amid the questions before, where few bytes more or less
            # of the connections before decide.
            severing.left = max(left, OVERHEAD) if cut else None
            pod.copy_from(place, target, resume=True)
        assert target.read_bytes() == data
        assert os.listdir(target.parent) == ["f"]
    assert told >= 4


def test_on_the_way_there_r8_r47(pod: Pod, severing: Severing, place: str, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    source = tmp_path / "source"
    source.write_bytes(data)
    there = f"{place}/f"
    told = 0
    for left in places():
        pod.check_call(["sh", "-c", f"mkdir -p {place} && printf 'as before' > {there}"])
        severing.left = left
        try:
            pod.copy_to(source, there, retries=0, resume=True)
        except KubewsError as exc:
            cut = isinstance(exc, TruncatedTransfer)
            told += cut
            severing.left = None
            # Where the answer of the last step is cut, it is done and nobody is told.
            assert pod.check_output(["cat", there]) in (b"as before", data)
            severing.left = left if cut else None
            pod.copy_to(source, there, resume=True)
        severing.left = None
        assert pod.check_output(["cat", there]) == data
        assert pod.check_output(["ls", "-A", place]) == b"f\n"
    assert told >= 4
