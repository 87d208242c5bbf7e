"""``svc/web`` and ``deploy/web`` on a real cluster: which pod, and which of its ports."""

from __future__ import annotations

from typing import Any

import pytest
from serving import SCRIPT
from support import seconds
from test_socket_contract import read_all

import kubews
from kubews import Client, ConfigError
from kubews.testing import LocalCluster


@pytest.fixture
def owners(cluster: Any) -> Any:
    """Two pods, of which one runs nothing any more, a Deployment and Services that select them."""
    if isinstance(cluster, LocalCluster):
        pytest.skip("LocalCluster has pods only, no Services and no workloads")
    labels = {"app": "owned"}
    cluster.add_pod("owned-a", {"app": ["true"]}, labels=labels, state="completed")
    command = ["python3", "-u", "-c", SCRIPT, "7100"]
    cluster.add_pod("owned-b", {"app": command}, labels=labels, ports={"talk": 7100})
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "replicas": 0,
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app", "image": "none"}]},
        },
    }
    cluster.create(document("apps/v1", "Deployment", "owned", spec))
    ports = [{"name": "talking", "port": 80, "targetPort": "talk"}, {"name": "same", "port": 7100}]
    cluster.create(document("v1", "Service", "owned", {"selector": labels, "ports": ports}))
    cluster.create(document("v1", "Service", "lonely", {"selector": {"app": "x"}, "ports": ports}))
    cluster.create(document("v1", "Service", "blind", {"ports": ports}))
    return cluster


def document(version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def test_a_service_and_a_deployment_stand_for_a_pod_that_runs(client: Client, owners: Any) -> None:
    for name in ("deploy/owned", "deployments.apps/owned", "svc/owned"):
        pod = client.pod(name)
        assert pod.check_output(["hostname"], text=True) == "owned-b\n"
    for name, port in (
        ("svc/owned", 80),
        ("svc/owned", "talking"),
        ("svc/owned", 7100),
        ("deploy/owned", "talk"),
        ("deploy/owned", 7100),
        ("owned-b", "talk"),
    ):
        with client.pod(name).connect(port, timeout=seconds(10)) as sock:
            assert sock.getpeername() == ("owned-b", 7100)
            sock.sendall(b"source 10\n")
            assert len(read_all(sock)) == 10
    with client.pod("svc/owned").forward(["talking"]) as forward:
        assert list(forward.ports) == ["talking"]
    with pytest.raises(ConfigError, match="does not have a service port 81"):
        client.pod("svc/owned").connect(81)
    with pytest.raises(ConfigError, match="without a selector"):
        client.pod("svc/blind").connect(80)
    with pytest.raises(kubews.NotReady, match="lonely"):
        client.pod("svc/lonely").connect(80)
    with pytest.raises(kubews.NotFound, match="nothing"):
        client.pod("deploy/nothing").connect(80)
