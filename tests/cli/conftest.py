"""Fixtures of the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pexpect
import pytest
from clusters import AnyCluster, minor
from programs import PROGRAMS, Commands
from support import seconds

from kubews.testing import LocalCluster


@pytest.fixture(scope="session")
def commands(cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The two programs on ``cluster``."""
    return Commands(cluster, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def old_commands(old: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The two programs on a cluster that speaks v4 only."""
    return Commands(old, tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _kubectl_can(request: pytest.FixtureRequest) -> None:
    """Skip kubectl where it would speak SPDY without a WebSocket, which LocalCluster does not."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if PROGRAMS["kubectl"] not in parameters.values():
        return
    cluster = request.getfixturevalue("cluster")
    needed = 31 if request.path.name == "test_forward_ports.py" else 30
    if isinstance(cluster, LocalCluster) and minor(cluster) < needed:
        pytest.skip(f"kubectl cannot do this with a LocalCluster of version {cluster.version}")


@pytest.fixture(autouse=True)
def _commands_hear_signals(signals_are_heard: None) -> None:
    pass


@pytest.fixture
def bash(commands: Commands) -> Iterator[pexpect.spawn]:
    """An interactive shell, whose prompt shows exit codes, in a terminal of 33 lines and 77 columns."""
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "--noediting", "-i"],
        env={**commands.environment, "PS1": "<$?> ", "TERM": "dumb"},
        encoding="utf-8",
        timeout=seconds(30),
        dimensions=(33, 77),
        echo=False,
    )
    shell.expect_exact("<0> ")
    try:
        yield shell
    finally:
        shell.close(force=True)
