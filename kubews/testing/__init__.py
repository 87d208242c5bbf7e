"""Try and test without a cluster: LocalCluster, an API server whose pods are local processes.

::

    from kubews.testing import LocalCluster

    with LocalCluster(version="1.36") as cluster:
        cluster.add_pod("web-0", {"app": ["sh", "-c", "exec sleep 1000"]})
        print(cluster.client().pod("web-0").check_output(["hostname"]))

It needs the packages of the extra ``testing``: ``pip install "kubews[testing]"``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubews.testing.cluster import LocalCluster, LocalPod, ServicePort
    from kubews.testing.faults import FOREVER, Faults

__all__ = ["FOREVER", "Faults", "LocalCluster", "LocalPod", "ServicePort"]

_HOMES = {
    "FOREVER": "kubews.testing.faults",
    "Faults": "kubews.testing.faults",
    "LocalCluster": "kubews.testing.cluster",
    "LocalPod": "kubews.testing.cluster",
    "ServicePort": "kubews.testing.cluster",
}
_EXTRA = frozenset({"h11", "websockets", "trustme", "cryptography"})


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _EXTRA:
            raise
        message = f'{name} needs the package {exc.name}: pip install "kubews[testing]"'
        raise ImportError(message, name=exc.name) from exc
