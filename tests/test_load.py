"""Much of everything, on whichever cluster: large outputs, slow readers, many commands at once."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator

import pytest
from support import in_thread, put, seconds, time_limit

from kubews import PIPE, Client, Pod

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(180):
        yield


def test_all_output_comes_before_the_exit_code(pod: Pod) -> None:
    """Several times the size of every buffer on the way, both channels, and a process that ends at once."""
    script = "head -c 20000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2; exit 9"
    for _ in range(3):
        done = pod.run(script, shell=True, capture_output=True, timeout=seconds(60))
        assert done.returncode == 9
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(b"x" * 20_000_000).digest()
        assert done.stderr == b"y" * 3_000_000


def test_random_bytes_come_back_as_they_went(pod: Pod) -> None:
    data = random.Random(11).randbytes(4 * MIB)
    assert pod.check_output(["cat", put(pod, "random", data)]) == data


# Writes 100 MiB, and into a file how many of them it has got rid of.
COUNTING = """
rm -f sent; number=0
while [ $number -lt 100 ]; do
    head -c 1048576 /dev/zero; number=$((number + 1)); echo $number > next; mv next sent
done
"""


def test_a_slow_reader_of_100_mib_loses_nothing_and_holds_up_the_process(pod: Pod) -> None:
    """What is not read stays in the pod, but for some MiB here, and what servers and kernels hold."""
    with pod.popen(COUNTING, shell=True, stdout=PIPE, bufsize=0) as process:
        count = 0
        for pause in (20, 40, 60, 80):
            while count < pause * MIB:
                piece = process.stdout.read(MIB)
                assert piece
                count += len(piece)
            time.sleep(0.5)
            assert process.stdout._pipe.size < 8 * MIB
            assert int(pod.check_output(["cat", "sent"])) * MIB < count + 64 * MIB
        while piece := process.stdout.read(MIB):
            count += len(piece)
        assert count == 100 * MIB
        assert process.wait(seconds(30)) == 0


def test_two_hundred_commands_at_once(client: Client) -> None:
    pod = client.pod("web-0")
    barrier = threading.Barrier(200)

    def work(number: int) -> None:
        barrier.wait(seconds(60))
        done = pod.run(f"echo {number}; sleep 1; exit {number % 100}", shell=True, stdout=PIPE)
        assert (done.returncode, done.stdout) == (number % 100, b"%d\n" % number)

    for future in [in_thread(work, number) for number in range(200)]:
        future.result(seconds(120))


@pytest.mark.half_close
def test_many_small_messages_both_ways(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        received = bytearray()

        def read() -> None:
            while piece := process.stdout.read(65536):
                received.extend(piece)

        reading = in_thread(read)
        for number in range(5000):
            process.stdin.write(b"%d\n" % number)
        process.stdin.close()
        reading.result(seconds(60))
    assert received == b"".join(b"%d\n" % number for number in range(5000))
