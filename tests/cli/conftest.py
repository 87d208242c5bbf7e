"""Fixtures of the tests of the command line."""

from __future__ import annotations

import pytest
from clusters import AnyCluster
from programs import Commands


@pytest.fixture(scope="session")
def commands(cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The two programs on ``cluster``."""
    return Commands(cluster, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def old_commands(old: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The two programs on a cluster that speaks v4 only."""
    return Commands(old, tmp_path_factory.mktemp("home"))
