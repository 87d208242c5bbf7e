"""What takes minutes, behind ``-m long``; each has a short form in the suite."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from support import echo, eventually, in_thread, resources

from kubews import PIPE, Client, Pod
from kubews.testing import LocalCluster

pytestmark = pytest.mark.long

#: Seconds that the storms last.
DURATION = float(os.environ.get("KUBEWS_LONG_SECONDS", "600"))


def test_a_hundred_times_256_mib_r1(pod: Pod) -> None:
    """R-1, R-14: a hundred runs, every byte."""
    for _ in range(100):
        echo(pod, 256 << 20, 1 << 20)


def test_a_gibibyte_there_and_back_r16(pod: Pod, tmp_path: Path) -> None:
    """R-16: input and output are independent, whatever the size."""
    with open(tmp_path / "out", "w+b") as file:
        assert pod.run(["cat"], input=bytes(1 << 30), stdout=file).returncode == 0
        assert file.tell() == 1 << 30


@pytest.mark.parametrize("piece", [4096, 1 << 20, 5 << 30])
def test_an_upload_of_5_gib_r19(pod: Pod, piece: int) -> None:
    """R-19: in small writes, in large ones, and in one."""
    total = 5 << 30
    data = memoryview(bytes(piece))
    with pod.popen(["wc", "-c"], stdin=PIPE, stdout=PIPE) as process:
        for _ in range(total // piece):
            process.stdin.write(data)
        process.stdin.close()
        assert int(process.stdout.read()) == total


def test_sixty_four_threads_on_one_client_r22(client: Client) -> None:
    """R-22: no cross-talk between processes, REST requests and exit codes."""
    end = time.monotonic() + DURATION

    def work(number: int) -> int:
        pod, turns = client.pod("web-0"), 0
        while time.monotonic() < end:
            text = f"{number}-{turns}\n".encode() * 500
            done = pod.run(["sh", "-c", f"cat; exit {number}"], input=text, capture_output=True)
            assert (done.returncode, done.stdout) == (number, text)
            assert client.get("/version")["major"] == "1"
            turns += 1
        return turns

    turns = [future.result(DURATION + 60) for future in [in_thread(work, n) for n in range(64)]]
    assert min(turns) > 0
    print(f"{sum(turns)} commands")


def test_full_duplex_storm_r14(pod: Pod) -> None:
    """R-14: full-duplex traffic over several TLS connections for as long as was asked for."""
    end = time.monotonic() + DURATION

    def work() -> int:
        rounds = 0
        while time.monotonic() < end:
            echo(pod, 16 << 20, 100_000)
            rounds += 1
        return rounds

    rounds = [future.result(DURATION + 120) for future in [in_thread(work) for _ in range(4)]]
    print(f"{sum(rounds)} rounds of 16 MiB")


def used() -> tuple[int, int, float]:
    """Threads, descriptors and MiB of resident memory of this process."""
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    mib = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return threading.active_count(), len(os.listdir("/proc/self/fd")), mib


class Cost(NamedTuple):
    """What each of several streams costs."""

    seconds: float
    threads: float
    descriptors: float
    kib: float


def test_a_thousand_commands_at_once() -> None:
    """R-26: all correct, both ways, and each of them costs what one of ten does."""
    number, before = 1000, resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 16 * number:
        pytest.skip(f"the system allows for {before[1]} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (16 * number, before[1]))
    try:
        with LocalCluster(process=True) as cluster, cluster.client() as client:
            cluster.add_pod("web-0")
            pod = client.pod("web-0")
            alone = resources()
            assert pod.call(["true"]) == 0
            costs = [at_once(pod, each, alone) for each in (10, 100, number)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    ratios = [b / a for a, b in zip(costs[1], costs[2], strict=True)]
    print(
        "of 1000 to 100: "
        + ", ".join(f"{b:.2f} times the {a}" for a, b in zip(Cost._fields, ratios, strict=True))
    )
    assert len({(cost.threads, cost.descriptors) for cost in costs}) == 1, costs


def at_once(pod: Pod, number: int, alone: tuple[list[str], int]) -> Cost:
    # Those before shall be gone, or they would make these seem cheaper; their memory, a tenth at most, does.
    assert eventually(lambda: resources() == alone, 30)
    begin, base = time.monotonic(), used()
    script = "read line; echo got $line; exit $((line % 100))"
    processes = [
        pod.popen(script, shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) for _ in range(number)
    ]
    opened, full = time.monotonic(), used()
    for index, process in enumerate(processes):
        process.stdin.write(b"%d\n" % index)
    for index, process in enumerate(processes):
        assert process.communicate(timeout=120) == (b"got %d\n" % index, b"")
        assert process.returncode == index % 100
    done = time.monotonic()
    for process in processes:
        process.close()
    threads, descriptors, mib = [(b - a) / number for a, b in zip(base, full, strict=True)]
    cost = Cost((opened - begin) / number, threads, descriptors, 1024 * mib)
    print(
        f"{number} opened in {opened - begin:.1f} s, all answered in {done - opened:.1f} s more; each "
        f"{1000 * cost.seconds:.1f} ms to open, {threads:.2f} threads, {descriptors:.2f} descriptors, "
        f"{cost.kib:.0f} KiB"
    )
    return cost
