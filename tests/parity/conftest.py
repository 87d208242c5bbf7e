"""One body, two modules: the standard subprocess on this machine, and kubews in a pod."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import AnyCluster
from support import seconds, time_limit

import kubews
from kubews import Pod
from kubews.testing import LocalCluster

#: What both have; a test that needs more names it.
NAMES = [
    "CalledProcessError",
    "CompletedProcess",
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "SubprocessError",
    "TimeoutExpired",
]


def in_pod(pod: Pod, **options: Any) -> Any:
    """What a program imports in place of subprocess: the same names, with the pod filled in."""
    functions = ["run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"]
    return SimpleNamespace(
        **{
            name: functools.partial(getattr(kubews, name), pod=pod, **options) for name in functions
        },
        **{name: getattr(kubews, name) for name in NAMES},
        Popen=functools.partial(kubews.Popen, pod=pod, **options),
    )


@pytest.fixture(params=["subprocess", "kubews"])
def sp(request: pytest.FixtureRequest, pod: Pod) -> Any:
    """The module under test."""
    return subprocess if request.param == "subprocess" else in_pod(pod)


@pytest.fixture(params=["subprocess", "kubews"])
def killing(request: pytest.FixtureRequest, pod: Pod) -> Any:
    """The module under test, with ``signals=True`` where that is needed."""
    return subprocess if request.param == "subprocess" else in_pod(pod, signals=True)


@pytest.fixture
def ours(pod: Pod) -> Any:
    """The names of kubews, for what differs."""
    return in_pod(pod)


@pytest.fixture
def enough(cluster: AnyCluster) -> float:
    """Seconds in which a command starts and has printed: containerd takes its time when the node is busy."""
    return seconds(0.7 if isinstance(cluster, LocalCluster) else 3)


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(30):
        yield
