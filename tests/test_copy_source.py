"""What is at a path is sent by the command that is asked about it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from podprograms import PROGRAMS, Programs, directory_of
from support import eventually

import kubews
from kubews import Client, Pod
from kubews.errors import CopyError, TruncatedTransfer
from kubews.testing import Faults, LocalCluster

DATA = os.urandom(300_000)


@pytest.fixture(params=["web-0", "busybox"])
def each(request: pytest.FixtureRequest, client: Client, nothing_left_behind: None) -> Pod:
    """A pod with coreutils, and one with busybox."""
    name = request.param
    return client.pod(request.getfixturevalue("busybox") if name == "busybox" else name)


@pytest.fixture
def commands(local: LocalCluster, each: Pod) -> Callable[[], int]:
    """Count the commands since the last call."""
    seen = 0

    def count() -> int:
        nonlocal seen
        before = seen
        seen = sum(f"/{each.name}/exec" in request.target for request in local.requests)
        return seen - before

    count()
    return count


def test_one_command_answers_and_sends(
    each: Pod, commands: Callable[[], int], place: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "file").write_bytes(DATA)
    each.copy_to(source, place)
    commands()
    whole, file = tmp_path / "whole", tmp_path / "file"
    assert each.copy_from(place, whole).verified == "archive"
    assert commands() == 1
    assert (whole / "below" / "file").read_bytes() == DATA
    assert each.copy_from(f"{place}/below/file", file).verified in ("cksum", "sha256")
    assert each.copy_from(f"{place}/below/file", io.BytesIO(), checksum=True).verified == "sha256"
    assert file.read_bytes() == DATA
    assert commands() == 2


def test_what_the_answer_does_not_bring_is_sent_by_another(
    each: Pod, commands: Callable[[], int], place: str, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "empty").touch()
    for name in ("data", "empty"):
        each.copy_to(tmp_path / name, f"{place}-{name}")
    commands()
    assert each.copy_from(f"{place}-data", tmp_path / "copy", checksum=False).verified == "size"
    assert (tmp_path / "copy").read_bytes() == DATA
    assert each.copy_from(f"{place}-empty", tmp_path / "copy").files == 1
    assert (tmp_path / "copy").read_bytes() == b""
    assert commands() == 4
    with pytest.raises(kubews.NoSuchFile):
        each.copy_from(f"{place}-none", tmp_path / "none")
    with pytest.raises(CopyError, match="is a directory"):
        each.copy_from("/tmp", io.BytesIO())
    assert commands() == 2


def test_what_is_sent_and_not_wanted_ends(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    (directory_of(pod) / place).write_bytes(bytes(50 << 20))
    with pytest.raises(kubews.NoSuchFile, match="no such directory"):
        pod.copy_from(place, f"{tmp_path}/none/")
    with pytest.raises(kubews.NoSuchFile, match="no such directory"):
        pod.copy_from(f"{place}/", tmp_path / "file")
    assert eventually(lambda: not local.execs)


@pytest.mark.parametrize("size", [0, 60])
def test_a_cut_before_the_answer_counts_as_one_of_the_retries_r47(
    size: int, local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(DATA)
    cut = Faults(match="/exec", drop_after=size)
    local.next_faults(cut)
    pod.copy_to(tmp_path / "source", place)
    local.next_faults(cut, cut)
    pod.copy_from(place, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    local.next_faults(cut, cut)
    with pytest.raises(TruncatedTransfer, match="was cut after 0 bytes"):
        pod.copy_from(place, tmp_path / "copy", retries=1)
    local.next_faults(cut)
    with pytest.raises(TruncatedTransfer, match="was cut after 0 bytes"):
        pod.copy_to(tmp_path / "source", place, retries=0)


def test_who_cannot_be_asked_is_not_asked_again(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    response = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    local.next_faults(Faults(match="/exec", response=response))
    with pytest.raises(kubews.ServerError):
        pod.copy_from(place, tmp_path / "copy")


@pytest.mark.parametrize("sh", ["while :; do echo yes; done", "echo file", "printf 'a\\0b\\0'"])
def test_a_shell_that_answers_something_else(
    sh: str, local: LocalCluster, programs: Programs, tmp_path: Path
) -> None:
    pod = programs(PROGRAMS, sh=sh)
    with pytest.raises(CopyError, match="sh does not do what it is told"):
        pod.copy_from("/etc/passwd", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
