"""Round trips: a whole exec, and one keystroke in a session."""

from __future__ import annotations

import time
from collections.abc import Callable

from clients import WEBSOCKET, Clients, drain
from measure import Benchmark, Row, Sample, microseconds, milliseconds, timed


def exec_round_trip(clients: Clients, count: int) -> Benchmark:
    """Connect, run a command that does nothing, and learn its exit code."""

    def kubews_run() -> None:
        assert clients.pod.run(["true"], capture_output=True).returncode == 0

    def websocket_run() -> None:
        client = clients.websocket("true")
        drain(client)
        client.shutdown()

    title = 'exec round trip, run(["true"])'
    return Benchmark(
        "exec",
        {
            WEBSOCKET: lambda: repeated(websocket_run, count),
            "run": lambda: repeated(kubews_run, count),
        },
        [Row(title, "run", WEBSOCKET, measure, milliseconds) for measure in ("median", "cpu")],
    )


def keystroke(clients: Clients, count: int) -> Benchmark:
    """Write one byte and wait for one byte."""

    def stream() -> Sample:
        with clients.popen("echo", count, bufsize=0, stdin=True) as process:
            write, read = process.stdin.write, process.stdout.read
            return repeated(lambda: (write(b"k"), read(1)), count)

    def websocket() -> Sample:
        client = clients.websocket("echo", count)
        send, receive = client.send_binary, client.recv_frame
        sample = repeated(lambda: (send(b"\x00k"), receive()), count)
        drain(client)
        client.shutdown()
        return sample

    return Benchmark(
        "keystroke",
        {WEBSOCKET: websocket, "stream": stream},
        [
            Row("keystroke round trip", "stream", WEBSOCKET, measure, microseconds)
            for measure in ("median", "p99", "cpu")
        ],
    )


def repeated(call: Callable[[], object], count: int) -> Sample:
    """Measure single calls, and their CPU time together."""
    walls = []
    with timed() as sample:
        for _ in range(count):
            start = time.perf_counter()
            call()
            walls.append(time.perf_counter() - start)
    walls.sort()
    return {
        "median": walls[count // 2],
        "p99": walls[count * 99 // 100],
        "cpu": sample["cpu"] / count,
    }
