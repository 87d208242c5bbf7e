"""``svc/web`` and ``deploy/web``: which pod a socket leads to, and to which of its ports."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from serving import SCRIPT
from support import eventually, seconds, unused_port
from test_socket_contract import read_all

import kubews
from kubews import Client, ConfigError, PodSocket
from kubews.testing import LocalCluster, ServicePort

PORT = 7100


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def owners(cluster: Any) -> Any:
    """Two pods, of which one runs nothing any more, a Deployment and Services that select them."""
    labels = {"app": "owned"}
    cluster.add_pod("owned-a", {"app": ["true"]}, labels=labels, state="completed")
    command = ["python3", "-u", "-c", SCRIPT]
    options: dict[str, Any] = {"labels": labels, "ports": {"talk": PORT}}
    if isinstance(cluster, LocalCluster):  # all its pods share the ports of this machine
        free = unused_port()
        cluster.add_pod("owned-b", {"app": [*command, str(free)]}, listens={PORT: free}, **options)
    else:
        cluster.add_pod("owned-b", {"app": [*command, str(PORT)]}, **options)
    ports = [ServicePort(80, "talk", "talking"), ServicePort(PORT, name="same")]
    cluster.add_workload("deploy/owned", selector=labels)
    cluster.add_service("owned", selector=labels, ports=ports)
    cluster.add_service("lonely", selector={"app": "x"}, ports=ports)
    cluster.add_service("blind", ports=ports)
    with cluster.client() as client:

        def listens() -> bool:
            try:
                return len(source(client.pod("owned-b").connect(PORT, timeout=seconds(10)))) == 10
            except kubews.PortRefused:
                return False

        assert eventually(listens, 20)
    return cluster


def source(connected: PodSocket) -> bytes:
    with connected as sock:
        sock.sendall(b"source 10\n")
        return read_all(sock)


@pytest.mark.parametrize("name", ["deploy/owned", "deployments.apps/owned", "svc/owned"])
def test_a_command_runs_in_the_pod_that_runs(client: Client, owners: Any, name: str) -> None:
    found = client.pod(name).check_output("echo $HOSTNAME", shell=True, text=True)
    assert found == "owned-b\n"


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("svc/owned", 80),
        ("svc/owned", "talking"),
        ("svc/owned", PORT),
        ("deploy/owned", "talk"),
        ("deploy/owned", PORT),
        ("owned-b", "talk"),
    ],
)
def test_a_socket_leads_to_the_port_of_the_pod(
    client: Client, owners: Any, name: str, port: Any
) -> None:
    sock = client.pod(name).connect(port, timeout=seconds(10))
    assert sock.getpeername() == ("owned-b", PORT)
    assert len(source(sock)) == 10


def test_a_listener_for_the_port_of_a_service(client: Client, owners: Any) -> None:
    with client.pod("svc/owned").forward(["talking"]) as forward:
        assert list(forward.ports) == ["talking"]
        with socket.create_connection((forward.address, forward.local_port), seconds(10)) as sock:
            sock.sendall(b"source 10\n")
            assert len(read_all(sock)) == 10


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("svc/owned", ConfigError, "does not have a service port 81"),
        ("svc/blind", ConfigError, "without a selector"),
        ("svc/lonely", kubews.NotReady, "lonely"),
        ("deploy/nothing", kubews.NotFound, "nothing"),
    ],
)
def test_what_leads_nowhere(
    client: Client, owners: Any, name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        client.pod(name).connect(81)
    with pytest.raises(error, match=says):
        client.pod(name).forward(81)
