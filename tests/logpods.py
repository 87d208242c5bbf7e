"""Pods that say something, and the ways in which their logs are cut."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from clusters import AnyCluster
from support import eventually, seconds

import kubews
from kubews import Pod
from kubews.testing import Faults, LocalCluster

_NUMBERS = itertools.count()
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
SLEEP = "exec sleep 100000"
# What waits for a command: `go` lets it go on.
WAIT = "until [ -e go ]; do sleep 0.02; done; rm go; "
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ngone"


@contextlib.contextmanager
def added(cluster: AnyCluster, *scripts: str | None, **options: Any) -> Iterator[Pod]:
    """Have a pod whose containers ``a``, ``b`` and so on run these scripts once."""
    name = f"logging-{next(_NUMBERS)}"
    if not isinstance(cluster, LocalCluster):
        options["restart_policy"] = "Never"
    containers = {
        chr(ord("a") + number): None if script is None else ["sh", "-c", script]
        for number, script in enumerate(scripts)
    }
    cluster.add_pod(name, containers, **options)
    with cluster.client() as client:
        yield client.pod(name)
    with contextlib.suppress(KeyError, kubews.NotFound):
        cluster.delete_pod(name)


def go(pod: Pod) -> None:
    """Let a script go on, which may end the container, and this command with it, before its own end."""
    pod.run(["touch", "go"])


def said(pod: Pod, count: int, **options: Any) -> bytes:
    """Return a log as soon as it has so many lines: a command takes its time to begin."""

    def lines() -> bytes:
        with contextlib.suppress(kubews.BadRequest), pod.logs(**options) as log:
            return log.read()
        return b""  # it waits to start

    assert eventually(lambda: lines().count(b"\n") >= count, 20)
    return lines()


def cut(log: kubews.Logs[bytes]) -> None:
    """Cut the connection on this side, as a network does: what has arrived is still there."""
    connection = log._session.connection  # type: ignore[attr-defined]
    connection._loop.call_soon(connection._finish, "cut")
    assert eventually(connection.closed.done)


def lines_of(log: kubews.Logs[bytes], count: int) -> list[bytes]:
    return [log.readline(timeout=seconds(20)) for _ in range(count)]


@contextlib.contextmanager
def unavailable(
    local: LocalCluster, pod: Pod, log: kubews.Logs[bytes] | None = None
) -> Iterator[None]:
    """Cut a log if there is one, and let nobody go on with it."""
    local.faults = Faults(match=f"{pod.name}/log", response=UNAVAILABLE)
    if log is not None:
        cut(log)
    try:
        yield
    finally:
        local.faults = Faults()
