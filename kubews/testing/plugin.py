"""The pytest plugin: the fixture ``kube_cluster``.

Registered by the entry point ``pytest11``; imports nothing of kubews until the fixture is used.

::

    def test_hostname(kube_cluster):
        kube_cluster.add_pod("web-0")
        assert kube_cluster.client().pod("web-0").check_output(["hostname"])

    @pytest.mark.kube_cluster("1.29", status_metadata=False)
    def test_on_an_old_server(kube_cluster): ...

The arguments of the marker are those of LocalCluster. Of several markers the closest counts, and it
alone: one of a test replaces one of its class, module or package; nothing is merged.
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
        "markers",
        "kube_cluster(*args, **options): arguments of LocalCluster for the fixture kube_cluster",
    )


@pytest.fixture
def kube_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A running, empty LocalCluster for one test, so no test sees another's pods.

    Its arguments are those of the closest marker: ``@pytest.mark.kube_cluster("1.29")``.
    """
    from kubews.testing import LocalCluster

    marker = request.node.get_closest_marker("kube_cluster")
    arguments, options = (marker.args, marker.kwargs) if marker else ((), {})
    with LocalCluster(*arguments, **options) as cluster:
        yield cluster
