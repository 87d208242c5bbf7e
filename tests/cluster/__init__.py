"""A real Kubernetes on this machine, and pods in it or in any other one.

::

    from tests.cluster import NODE, RealCluster, up

    machine = up("1.36")                                   # seconds, if the cache is full
    with RealCluster(machine.kubeconfig, "admin", node=NODE) as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 1000"]})
        print(cluster.client().pod("web-0").check_output(["hostname"]))
    machine.kubelet.kill()
    machine.kubelet.start()

``python -m tests.cluster up`` does the first line; README.md in this directory has the rest.
"""

from __future__ import annotations

from .errors import ClusterError
from .images import BUSYBOX, NOSHELL, TOOLS
from .layout import DEFAULT_VERSION, NODE, versions
from .machine import Cluster, down, up
from .real import RealCluster

__all__ = [
    "BUSYBOX",
    "DEFAULT_VERSION",
    "NODE",
    "NOSHELL",
    "TOOLS",
    "Cluster",
    "ClusterError",
    "RealCluster",
    "down",
    "up",
    "versions",
]
