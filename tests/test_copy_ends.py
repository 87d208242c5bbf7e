"""What is left running in a pod when a copy ends early: nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from podprograms import PROGRAMS, Programs, directory_of
from support import eventually

from kubews.errors import CopyError


def test_who_is_not_listened_to_any_more_ends_r47(programs: Programs, tmp_path: Path) -> None:
    """The runtime keeps the pipes of a command open when its client is gone: it would wait for ever."""
    waits = "echo $$ >>pids; printf %100000s; exec sleep 1000"
    pod = programs(PROGRAMS, cat=waits, tar=f"case $1 in --version) exit;; esac; {waits}")
    there = directory_of(pod)
    (there / "d").mkdir()
    (there / "d" / "f").write_bytes(bytes(200_000))

    def ended(count: int) -> bool:
        pids = [int(line) for line in (there / "pids").read_text().split()]
        return len(pids) == count and not any(runs(pid) for pid in pids)

    with pytest.raises(ZeroDivisionError):
        pod.copy_from("d/f", tmp_path / "f", progress=lambda done, total: 1 // 0)
    assert eventually(lambda: ended(1), 10)
    with pod.open("d/f", "rb") as file:
        file.read(1000)
    assert eventually(lambda: ended(2), 10)
    with pytest.raises(CopyError, match="no archive"):
        pod.copy_from("d", tmp_path / "d")
    assert eventually(lambda: ended(3), 10)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
