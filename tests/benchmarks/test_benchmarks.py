"""The benchmarks run and print every row. What the figures are is no test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import seconds

PROGRAM = str(Path(__file__).parent)


def _run(*options: str) -> str:
    command = [sys.executable, PROGRAM, "--size=1", "--rounds=1", *options]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=seconds(180)
    ).stdout


def test_every_row_is_printed() -> None:
    """R-27: throughput and the cost of small frames, each beside its floor, with everything else."""
    head, line, *rows = [row for row in _run().splitlines() if row.startswith("|")]
    assert [cell.strip() for cell in head.strip("|").split("|")][-2:] == ["ratio", "spread"]
    assert set(line) == set("|- ")
    subjects = [row.split("|")[1].partition(":")[0].strip() for row in rows]
    assert list(dict.fromkeys(subjects)) == [
        "download, readinto(64 KiB)",
        "download, read() of 1 MiB",
        "messages of 64 bytes, readinto1()",
        "upload, write(32 KiB)",
        "upload, write(1 MiB)",
        'exec round trip, run(["true"])',
        "keystroke round trip",
        "import kubews",
        "import kubews; kubews.run",
        "kubews exec",
        "kubews --version",
        "handover between threads",
        "wake-up of a thread and back",
        "forwarded download, pod.connect, tunnel",
        "forwarded download, pod.forward, tunnel",
        "forwarded download, pod.forward, channel pairs",
        "forwarded upload, pod.connect, tunnel",
        "forwarded upload, pod.forward, tunnel",
        "forwarded upload, pod.forward, channel pairs",
        "port-forward download, pod.connect",
        "port-forward download, pod.forward",
        "port-forward upload, pod.connect",
        "port-forward upload, pod.forward",
        "port-forward, 64 bytes and back, pod.connect",
        "port-forward, 64 bytes and back, pod.forward",
        "port-forward, connect and one byte, pod.connect",
        "port-forward, connect and one byte, pod.forward",
        "port-forward, connect and one byte, pod.forward, multiplex",
        "port-forward, 8 connections at once, pod.forward",
        "port-forward, 8 connections at once, pod.forward, multiplex",
        "copy a file of 1 MiB to a pod",
        "copy a file of 1 MiB from a pod",
        "copy 20 files to a pod",
        "copy 20 files from a pod",
    ]
    assert all(row.split("|")[5].strip().endswith("x") for row in rows)


def test_the_profile_shows_the_thread_of_the_connection() -> None:
    output = _run("--profile", "--only=small")
    assert "kubews pod default/web-0" in output
