"""Measure kubews against floors: ``python tests/benchmarks`` prints one Markdown table.

The server is a process of its own on the loopback interface that sends prebuilt bytes, so the client is
what is measured; where kubectl is a floor, it is a LocalCluster. No figure is ever asserted: they are for
reading.
"""

from __future__ import annotations

import argparse
import faulthandler
import platform
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import copies  # noqa: E402
import handover  # noqa: E402
import latencies  # noqa: E402
import portforward  # noqa: E402
import startup  # noqa: E402
import transfers  # noqa: E402
import tunnels  # noqa: E402
import websocket  # noqa: E402
from clients import Clients  # noqa: E402
from measure import Benchmark, head, lines, measure  # noqa: E402
from peer import Peer  # noqa: E402
from sampling import Sampler  # noqa: E402
from ways import Ways  # noqa: E402

# After so many seconds something hangs; then all threads are shown and everything ends.
_TIME_LIMIT = 900


def main() -> None:
    """Parse the command line and run what it asks for."""
    names = [
        *(
            "download",
            "small",
            "upload",
            "exec",
            "keystroke",
            "import",
            "command",
            "handover",
            "wake-up",
        ),
        *("forwarded-download", "forwarded-upload", "port-forward-download", "port-forward-upload"),
        *("ping-pong", "set-up", "crowd", "copy-file", "copy-files"),
    ]
    parser = argparse.ArgumentParser(prog="tests/benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=9, help="measurements of each figure (%(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=64, help="MiB to move, and a scale for counts (%(default)s)"
    )
    parser.add_argument(
        "--only", action="append", choices=names, help="one benchmark; may be repeated"
    )
    parser.add_argument(
        "--profile", action="store_true", help="show the functions that take the time instead"
    )
    parser.add_argument(
        "--pure", action="store_true", help="mask and sum in Python, as without the extra `speed`"
    )
    options = parser.parse_args()
    if options.pure:
        for name in ("websockets.speedups", "fastcrc"):
            sys.modules[name] = None  # type: ignore[assignment]  # cannot be imported
    if options.rounds < 1 or options.size < 1:
        parser.error("--rounds and --size are at least 1")
    faulthandler.dump_traceback_later(_TIME_LIMIT, exit=True)
    with Peer() as peer, Ways() as ways, tempfile.TemporaryDirectory() as scratch:
        makers = _makers(Clients(peer), ways, options.size, scratch)
        chosen = [makers[name]() for name in names if name in (options.only or names)]
        if options.profile:
            _profile(chosen, options.rounds)
        else:
            _compare(chosen, options.rounds)
    faulthandler.cancel_dump_traceback_later()


def _makers(
    clients: Clients, ways: Ways, mebibytes: int, scratch: str
) -> dict[str, Callable[[], Benchmark]]:
    size = mebibytes << 20
    return {
        "download": lambda: transfers.download(clients, size),
        "small": lambda: transfers.small(clients, size),
        "upload": lambda: transfers.upload(clients, size),
        "exec": lambda: latencies.exec_round_trip(clients, max(1, mebibytes // 4)),
        "keystroke": lambda: latencies.keystroke(clients, 16 * mebibytes),
        "import": lambda: startup.imports(ROOT, scratch),
        "command": lambda: startup.commands(ways, ROOT, scratch),
        "handover": lambda: handover.bulk(size),
        "wake-up": lambda: handover.wake_up(16 * mebibytes),
        "forwarded-download": lambda: tunnels.download(clients, size),
        "forwarded-upload": lambda: tunnels.upload(clients, size),
        "port-forward-download": lambda: portforward.download(ways, size),
        "port-forward-upload": lambda: portforward.upload(ways, size),
        "ping-pong": lambda: portforward.ping_pong(ways, 8 * mebibytes),
        "set-up": lambda: portforward.set_up(ways, max(1, mebibytes // 2)),
        "crowd": lambda: portforward.crowd(ways, -(-500 * mebibytes // 64)),
        "copy-file": lambda: copies.file(ways, size, scratch),
        "copy-files": lambda: copies.files(ways, -(-5000 * mebibytes // 256), scratch),
    }


def _compare(benchmarks: list[Benchmark], rounds: int) -> None:
    print(
        f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION.partition('  ')[0]}, "
        f"websocket-client {websocket.__version__}, {platform.machine()}; "
        f"medians of {rounds} rounds, ratios of time\n"
    )
    for line in head():
        print(line, flush=True)
    for benchmark in benchmarks:
        # Interpreters start in a moment and with much noise.
        more = max(rounds, 15) if benchmark.name in ("import", "command") and rounds > 1 else rounds
        for line in lines(benchmark, measure(benchmark, more)):
            print(line, flush=True)


def _profile(benchmarks: list[Benchmark], rounds: int) -> None:
    for benchmark in benchmarks:
        for name in {row.subject: None for row in benchmark.rows}:
            subject = benchmark.subjects[name]
            subject()
            with Sampler() as sampler:
                for _ in range(rounds):
                    subject()
            print(f"{benchmark.name}, {name}:")
            for line in sampler.lines():
                print(line, flush=True)


if __name__ == "__main__":
    main()
