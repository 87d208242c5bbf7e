"""What is at a path is sent by the command that is asked about it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from podprograms import PROGRAMS, Programs, directory_of, links_to
from support import eventually

import kubews
from kubews import Client, Pod
from kubews.errors import CopyError, TruncatedTransfer
from kubews.testing import Faults, LocalCluster

DATA = os.urandom(300_000)
AWAY = Faults(
    match="/exec", response=b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
)


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
    local.next_faults(cut, AWAY, cut)  # a server that starts again is away for a while
    pod.copy_from(place, tmp_path / "copy")
    local.next_faults(cut, AWAY)
    pod.copy_to(tmp_path / "source", place)


def test_who_cannot_be_asked_is_not_asked_again(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    local.next_faults(AWAY)
    with pytest.raises(kubews.ServerError):
        pod.copy_from(place, tmp_path / "copy")


ANSWER = "directory\\ndirectory\\n10 644 1\\ncat head\\n\\n\\0"


@pytest.mark.parametrize(
    ("sh", "words"),
    [
        ("while :; do echo yes; done", "sh does not do what it is told"),
        ("echo file", "sh does not do what it is told"),
        ("printf 'a\\0b\\0'", "sh does not do what it is told"),
        (f"printf '{ANSWER}nothing\\0'; exec sleep 100", "is no listing"),
        ("echo cannot fork >&2; exit 2", "looking at /etc failed with exit code 2: cannot fork"),
    ],
)
def test_a_shell_that_answers_something_else(
    sh: str, words: str, local: LocalCluster, programs: Programs, tmp_path: Path
) -> None:
    pod = programs(PROGRAMS, sh=sh)
    with pytest.raises(CopyError, match=words):
        pod.copy_from("/etc", tmp_path / "copy", retries=0)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("names", [["cat", "head", "sha256sum"], ["cat", "cksum", "head", "wc"]])
def test_few_programs_are_enough_for_one_command(
    names: list[str], local: LocalCluster, programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(DATA)
    pod = programs(["sh", *names, "stat"])
    before = len(local.requests)
    pod.copy_from(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert sum("/exec" in request.target for request in local.requests[before:]) == 1


def test_a_tar_that_reads_when_it_is_asked_for_its_version(
    programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(DATA)
    pod = programs(PROGRAMS, tar="cat >/dev/null")
    assert pod.copy_from(tmp_path / "source", tmp_path / "copy").verified == "cksum"


def test_a_time_limit_of_bash_is_none_of_a_copy(
    local: LocalCluster, client: Client, tmp_path: Path, nothing_left_behind: None
) -> None:
    (tmp_path / "source").write_bytes(bytes(20 << 20))
    path = links_to(tmp_path / "bin", [name for name in PROGRAMS if name != "sh"])
    (path / "sh").symlink_to("/bin/bash")

    def wait(done: int, total: int | None) -> None:
        if not waited:
            waited.append(time.sleep(2))

    waited: list[None] = []
    name = f"bash-{os.getpid()}"
    local.add_pod(name, {"app": None}, env={"PATH": str(path), "TMOUT": "1"})
    try:
        copied = client.pod(name).copy_from(
            tmp_path / "source", tmp_path / "copy", progress=wait, retries=0
        )
        assert copied.size == 20 << 20
    finally:
        local.delete_pod(name)


def test_what_is_gone_on_with_is_not_sent_from_the_beginning_r47(
    local: LocalCluster, programs: Programs, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(DATA)
    log = tmp_path / "log"
    pod = programs(PROGRAMS, cksum=f'echo once >>{log}; exec /usr/bin/cksum "$@"')

    def interrupt(done: int, total: int | None) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pod.copy_from(tmp_path / "source", tmp_path / "copy", resume=True, progress=interrupt)
    assert eventually(lambda: not [each for each in local.execs if each.pod == pod.name])
    log.unlink(missing_ok=True)  # it may have been ended before it wrote
    assert pod.copy_from(tmp_path / "source", tmp_path / "copy", resume=True).verified == "cksum"
    assert log.read_text() == "once\n"
    assert (tmp_path / "copy").read_bytes() == DATA
