"""Threads for what must block: as many as there is work for, and none for longer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support import eventually, in_thread, seconds

from kubews.transport.workers import Workers


def alive(name: str = "worker") -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_jobs_run_and_threads_end() -> None:
    workers, done = Workers(3, "worker"), []
    for number in range(50):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert eventually(lambda: len(done) == 50)
    assert sorted(done) == list(range(50))
    assert eventually(lambda: not alive())
    workers.submit(lambda: done.append(50))
    assert eventually(lambda: done[-1] == 50)


def test_so_many_at_a_time() -> None:
    workers, go = Workers(2, "worker"), threading.Event()
    names: list[str] = []

    def job() -> None:
        names.append(threading.current_thread().name)
        go.wait(seconds(10))

    for _ in range(5):
        workers.submit(job)
    assert eventually(lambda: len(names) == 2)
    assert alive() == 2
    assert len(names) == 2
    go.set()
    assert eventually(lambda: len(names) == 5)
    assert set(names) == {"worker"}


def test_a_job_may_submit_another() -> None:
    workers, done = Workers(1, "worker"), threading.Event()
    workers.submit(lambda: workers.submit(done.set))
    assert done.wait(seconds(10))


def no_threads(monkeypatch: pytest.MonkeyPatch, before: Any = lambda: None) -> None:
    start = threading.Thread.start

    def broken(self: threading.Thread) -> None:
        if self.name == "worker":
            before()
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", broken)


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gets the error knows that the job will not run."""
    workers, done = Workers(2, "worker"), []
    with monkeypatch.context() as patch:
        no_threads(patch)
        with pytest.raises(RuntimeError, match="can't start"):
            workers.submit(lambda: done.append("never"))
    workers.submit(lambda: done.append("later"))
    assert eventually(lambda: done)
    assert eventually(lambda: not alive())
    assert done == ["later"]


def test_no_more_threads_but_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, go, done = Workers(2, "worker"), threading.Event(), threading.Event()

    def hold() -> None:
        go.wait(seconds(10))

    workers.submit(hold)
    with monkeypatch.context() as patch:
        no_threads(patch)
        workers.submit(done.set)
    go.set()
    assert done.wait(seconds(10))


def test_nobody_counts_on_a_thread_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is submitted while a thread fails to start is not left lying."""
    workers, done = Workers(1, "worker"), threading.Event()
    others: list[Any] = []

    def meanwhile() -> None:
        if not others:
            others.append(in_thread(submit_until_it_works))
            others[0].thread.join(0.1)  # it waits for its turn, or has had it

    def submit_until_it_works() -> None:
        try:
            workers.submit(done.set)
        except RuntimeError:
            others.append("told")

    with monkeypatch.context() as patch:
        no_threads(patch, meanwhile)
        with pytest.raises(RuntimeError):
            workers.submit(lambda: None)
        others[0].result()
    assert others[1:] == ["told"] or done.wait(seconds(1))
