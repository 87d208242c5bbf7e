"""The pytest plugin: the fixture ``kube_cluster``.

Registered by the entry point ``pytest11``; imports nothing of kubews until the fixture is used.

::

    def test_hostname(kube_cluster):
        kube_cluster.add_pod("web-0")
        assert kube_cluster.client().pod("web-0").check_output(["hostname"])

    @pytest.mark.kube_cluster(version="1.29")
    def test_on_an_old_server(kube_cluster): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kubews.testing import LocalCluster


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for ``--strict-markers``."""
    config.addinivalue_line(
        "markers", "kube_cluster(**options): arguments of LocalCluster for the fixture kube_cluster"
    )


@pytest.fixture
def kube_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A running, empty LocalCluster for one test, so no test sees another's pods.

    Its arguments are those of the marker: ``@pytest.mark.kube_cluster(version="1.29")``.
    """
    from kubews.testing import LocalCluster

    marker = request.node.get_closest_marker("kube_cluster")
    with LocalCluster(**(marker.kwargs if marker else {})) as cluster:
        yield cluster
