"""The cluster that the suite runs on: a LocalCluster, or a real one if the command line asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest
from cluster import NODE, TOOLS, RealCluster, up

from kubews.testing import LocalCluster

AnyCluster = Union[LocalCluster, RealCluster]


def make_cluster(config: pytest.Config) -> AnyCluster:
    """Return an empty cluster of the kind that was asked for; it must be closed."""
    if config.getoption("--kubeconfig"):
        path, context = config.getoption("--kubeconfig"), config.getoption("--context")
        image = config.getoption("--image") or "debian:12-slim"
        return RealCluster(path, context, image=image)
    if config.getoption("--real-cluster"):
        machine = up(config.getoption("--real-cluster"))
        return RealCluster(machine.kubeconfig, "admin", node=NODE, image=TOOLS)
    return LocalCluster(version=config.getoption("--local-version") or "1.36", process=True)


def minor(cluster: AnyCluster) -> int:
    """Return 36 for Kubernetes 1.36."""
    return int(cluster.version.split(".")[1])


@contextlib.contextmanager
def added(
    cluster: AnyCluster, name: str, image: str, command: list[str] | None, path: Path
) -> Iterator[str]:
    """Have a pod of an image, which in LocalCluster is a directory of programs."""
    if isinstance(cluster, LocalCluster):
        cluster.add_pod(name, {"app": None}, env={"PATH": str(path)})
    elif cluster.node is None:
        pytest.skip(f"{image} is only in a cluster of our own")
    else:
        cluster.add_pod(name, {"app": command}, image=image)
    yield name
    cluster.delete_pod(name)
