"""Fixtures of the whole suite, and the check that no test leaves a thread or a descriptor behind.

Tests that only run commands take the fixture ``cluster`` (or ``client`` or ``pod``, which are made of it):
a LocalCluster, or with ``--real-cluster`` a real one. What needs ``local`` needs LocalCluster itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import leaks
import pytest
from cluster import BUSYBOX, DEFAULT_VERSION, versions
from clusters import AnyCluster, added, make_cluster, minor
from podprograms import Programs, links_to
from support import eventually, resources

from kubews import Client, Pod
from kubews.testing import LocalCluster

# Why a test takes the fixture ``local``.
LOCAL = "LocalCluster only: it breaks connections, or looks at what the server received"


# The name of this worker of xdist, as gw0.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clusters")
    group.addoption(
        "--real-cluster",
        metavar="VERSION",
        nargs="?",
        const=DEFAULT_VERSION,
        choices=versions(),  # so that it takes no path of a test for one
        help=f"run on a real Kubernetes on this machine (root, Debian, Go); by default {DEFAULT_VERSION}",
    )
    group.addoption("--kubeconfig", metavar="PATH", help="run on the cluster of a kubeconfig")
    group.addoption("--context", metavar="NAME", help="its context, by default the current one")
    group.addoption("--image", help="the image of pods there, by default debian:12-slim")
    group.addoption("--local-version", metavar="VERSION", help="which LocalCluster to be")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that would be ignored, and see to it that Ctrl-C is not."""
    # A shell that runs scripts starts what it puts into the background with SIGINT and SIGQUIT ignored,
    # and every process below inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGQUIT"):
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # All that it could ever say is searched for secrets.
    logging.getLogger("kubews").setLevel(logging.DEBUG)
    leaks.watch()
    # Who believes to test his cluster shall not test ours.
    kubeconfig, ours = config.getoption("--kubeconfig"), config.getoption("--real-cluster")
    for option in ("--context", "--image"):
        if config.getoption(option) and not kubeconfig:
            raise pytest.UsageError(f"{option} goes with --kubeconfig")
    if ours and kubeconfig:
        raise pytest.UsageError("--real-cluster is one of our own: not together with --kubeconfig")
    if config.getoption("--local-version") and is_real(config):
        raise pytest.UsageError("--local-version is LocalCluster's: not together with a real one")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Have three workers a core for ``-n auto``: most of the time the tests wait for time limits and servers."""
    chosen = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return None if chosen or is_real(config) else 3 * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Have each worker import the tests from another one on.

    To compile them takes longer than to import them, and most of them others have compiled by then.
    """
    report = yield
    if WORKER and isinstance(collector, pytest.Dir):
        number = int(re.sub("[^0-9]", "", WORKER) or 0)
        first = len(report.result) * number // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        report.result[:] = report.result[first:] + report.result[:first]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that has printed a secret."""
    report = yield
    leaks.check(report)
    return report


def of_local_cluster(path: Path) -> bool:
    """Tell whether a test is one of LocalCluster itself, where a fixture ``cluster`` is something else."""
    return path.relative_to(Path(__file__).parent).parts[0] == "testing"


def of_this_machine(item: pytest.Item) -> bool:
    """Tell whether a test of parity runs its body with the standard library, which knows no cluster."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "subprocess" in (
        callspec.params.get("sp"),
        callspec.params.get("killing"),
    )


def is_real(config: pytest.Config) -> bool:
    return bool(config.getoption("--real-cluster") or config.getoption("--kubeconfig"))


@pytest.hookimpl(tryfirst=True)  # before pytest brings together what shares a fixture
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let tests that take minutes run: to dump stacks while threads come and go may crash the interpreter."""
    if item.get_closest_marker("long"):
        faulthandler.cancel_dump_traceback_later()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a real cluster run what runs commands, and say of the rest of that why it cannot."""
    if WORKER:
        items.sort(key=lambda item: item.path.parts)  # each has collected them in another order
    if not is_real(config):
        return
    kept = [
        item
        for item in items
        if {"cluster", "old"} & set(getattr(item, "fixturenames", ()))
        and not of_local_cluster(item.path)
        and not of_this_machine(item)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept
    for item in kept:
        if "local" in item.fixturenames:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.skip(reason=LOCAL))
        for marker in item.iter_markers("local_only"):
            item.add_marker(pytest.mark.skip(reason=f"LocalCluster only: {marker.args[0]}"))


def pytest_collection_finish() -> None:
    """Leave what lives as long as the session out of the many collections that look for leaks."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[AnyCluster]:
    """One cluster with a pod ``web-0`` for all tests that only run commands."""
    with make_cluster(pytestconfig) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 100000"]})
        yield cluster


@pytest.fixture(scope="session")
def local(cluster: AnyCluster) -> LocalCluster:
    """The same, for tests that only LocalCluster can serve; see ``LOCAL``."""
    assert isinstance(cluster, LocalCluster)
    return cluster


@pytest.fixture(scope="session")
def old(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[AnyCluster]:
    """One that speaks v4 only: another LocalCluster, or the real one if it is so old."""
    if is_real(pytestconfig):
        real = request.getfixturevalue("cluster")
        if minor(real) >= 30:
            pytest.skip(f"Kubernetes {real.version} speaks v5; this is about v4 (1.28)")
        yield real
        return
    with LocalCluster(version="1.28", process=True) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 100000"]})
        yield cluster


@pytest.fixture(scope="module")
def busybox(cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pod whose sh, env and everything else are busybox."""
    applets = tmp_path_factory.mktemp("applets")
    if isinstance(cluster, LocalCluster):
        if shutil.which("busybox") is None:
            pytest.skip(
                "LocalCluster's pods have the programs of this machine: there is no busybox"
            )
        subprocess.run(["busybox", "--install", "-s", str(applets)], check=True, timeout=30)
    with added(cluster, "busybox", BUSYBOX, None, applets) as pod:
        yield pod


@pytest.fixture
def client(cluster: AnyCluster) -> Iterator[Client]:
    """A client of ``cluster``."""
    with cluster.client() as client:
        yield client


@pytest.fixture
def pod(client: Client, nothing_left_behind: None) -> Pod:
    """The pod ``web-0`` of ``cluster``."""
    return client.pod("web-0")


@pytest.fixture
def old_pod(old: AnyCluster, nothing_left_behind: None) -> Iterator[Pod]:
    """The pod ``web-0`` of ``old``."""
    with old.client() as client:
        yield client.pod("web-0")


@pytest.fixture
def programs(
    local: LocalCluster, client: Client, tmp_path: Path, nothing_left_behind: None
) -> Iterator[Programs]:
    """Make a pod of programs by name, and of scripts in place of programs."""
    with contextlib.ExitStack() as pods:

        def make(names: list[str], **others: str) -> Pod:
            kept = [name for name in names if name not in others]
            path = links_to(tmp_path / "programs", kept, **others)
            return client.pod(pods.enter_context(added(local, "programs", "", None, path)))

        yield make


@pytest.fixture(params=["web-0", "busybox"])
def each(request: pytest.FixtureRequest, client: Client, nothing_left_behind: None) -> Pod:
    """A pod with coreutils, and one with busybox."""
    name = request.param
    return client.pod(request.getfixturevalue("busybox") if name == "busybox" else name)


@pytest.fixture
def place(client: Client) -> str:
    """A name in the pods' directories that no other test has."""
    return f"copy-{os.getpid()}-{random.getrandbits(64):x}"


@pytest.fixture
def signals_are_heard() -> Iterator[None]:
    """Have children hear the signals that whoever has started this may have had ignored, as nohup does."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def _half_close(request: pytest.FixtureRequest) -> None:
    """Skip what ends stdin where the server cannot."""
    if request.node.get_closest_marker("half_close") and "cluster" in request.fixturenames:
        cluster = request.getfixturevalue("cluster")
        if minor(cluster) < 30:
            pytest.skip(f"Kubernetes {cluster.version} speaks v4, which cannot end stdin")


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor behind."""
    # Started first, so that what lives as long as the session is not counted as a test's.
    for name in ("cluster", "old"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    marker = request.node.get_closest_marker("descriptors_may_leak")
    lost = marker.args[0] if marker else 0
    threads, descriptors = resources()
    gc.freeze()  # the collections that look for leaks need only look at what is new

    def as_before() -> bool:
        now = resources()
        return now[0] == threads and descriptors <= now[1] <= descriptors + lost

    yield
    assert eventually(as_before), f"{threads, descriptors} became {resources()}"
    for name in ("cluster", "old"):
        if name in request.fixturenames and not of_local_cluster(request.path):
            end_commands(request.getfixturevalue(name))


def end_commands(cluster: AnyCluster) -> None:
    """Kill what a test has left running: a lost connection ends no command, as on any cluster."""
    if isinstance(cluster, LocalCluster):
        for command in cluster.execs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
