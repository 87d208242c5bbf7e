"""Rounds, ratios and the table: every figure stands beside a floor measured in the same round.

A machine that is busy with something else slows both down, so the ratio of two neighbours says more than
either figure. It is a ratio of times: 1.00x is as fast as the floor, 2.00x takes twice as long.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

#: Seconds by what was measured, such as ``wall`` and ``cpu``.
Sample = dict[str, float]
Subject = Callable[[], Sample]
Show = Callable[[float], str]


class Row(NamedTuple):
    """One line of the table: a measure of two subjects and how to show it."""

    title: str
    subject: str
    floor: str
    measure: str
    show: Show


class Benchmark(NamedTuple):
    """Subjects that are measured in turns, and the rows that come of it."""

    name: str
    subjects: Mapping[str, Subject]
    rows: Sequence[Row]


@contextmanager
def timed() -> Iterator[Sample]:
    """Measure the wall clock and the CPU time of all threads of this process."""
    sample: Sample = {}
    cpu, wall = time.process_time(), time.perf_counter()
    yield sample
    sample["wall"] = time.perf_counter() - wall
    sample["cpu"] = time.process_time() - cpu


def measure(benchmark: Benchmark, rounds: int) -> dict[str, list[Sample]]:
    """Measure each subject once a round, in an order that changes, after a round that does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in benchmark.subjects}
    names = list(benchmark.subjects)
    for subject in benchmark.subjects.values():
        subject()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            samples[name].append(benchmark.subjects[name]())
    return samples


def lines(benchmark: Benchmark, samples: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    """Format the rows of a benchmark."""
    for row in benchmark.rows:
        ours = [sample[row.measure] for sample in samples[row.subject]]
        floors = [sample[row.measure] for sample in samples[row.floor]]
        ratios = [one / other for one, other in zip(ours, floors, strict=True)]
        yield table_line(
            f"{row.title}: {row.measure}",
            row.floor,
            row.show(statistics.median(ours)),
            row.show(statistics.median(floors)),
            f"{statistics.median(ratios):.2f}x",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )


def table_line(*cells: str) -> str:
    """Format one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head() -> Iterator[str]:
    """Format the head of the table."""
    cells = ("what: measure", "floor", "kubews", "the floor", "ratio", "spread")
    yield table_line(*cells)
    yield table_line(*("---" for _ in cells))


def rate(size: int) -> Show:
    """Show the seconds for ``size`` bytes as megabytes a second."""
    return lambda seconds: f"{size / seconds / 1e6:.0f} MB/s"


def per_gigabyte(size: int) -> Show:
    """Show the seconds for ``size`` bytes as seconds a gigabyte."""
    return lambda seconds: f"{seconds / size * 1e9:.2f} s/GB"


def each(count: int) -> Show:
    """Show the seconds for ``count`` things as microseconds for one."""
    return lambda seconds: f"{seconds / count * 1e6:.1f} µs each"


def per_second(count: int) -> Show:
    """Show the seconds for ``count`` things as things a second."""
    return lambda seconds: f"{count / seconds:,.0f} a second"


def milliseconds(seconds: float) -> str:
    """Show seconds as milliseconds."""
    return f"{seconds * 1e3:.2f} ms"


def microseconds(seconds: float) -> str:
    """Show seconds as microseconds."""
    return f"{seconds * 1e6:.0f} µs"
