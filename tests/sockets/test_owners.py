"""Sockets by ``svc/web`` and ``deploy/web``: into which pod, and to which of its ports."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from serving import SCRIPT
from support import eventually, seconds
from test_socket_contract import read_all

import kubews
from kubews import Client, ConfigError
from kubews.testing import LocalCluster

LABELS = {"app": "owned"}


@pytest.fixture
def owned(cluster: Any, client: Client) -> Iterator[str]:
    """The one of two pods that runs; a Deployment and Services select both."""
    listens: dict[str, Any] = {}
    port = 7100
    if isinstance(cluster, LocalCluster):  # all its pods share the ports of this machine
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        listens = {"listens": {7100: port}}
    cluster.add_pod("owned-a", {"app": ["true"]}, labels=LABELS, state="completed")
    command = ["python3", "-u", "-c", SCRIPT, str(port)]
    cluster.add_pod("owned-b", {"app": command}, labels=LABELS, ports={"talk": 7100}, **listens)
    cluster.add_workload("deploy/owned", selector=LABELS)
    cluster.add_service("owned", selector=LABELS, ports={80: "talk", 7100: None})
    cluster.add_service("lonely", selector={"app": "x"}, ports={80: None})
    cluster.add_service("blind", ports={80: None})

    def answers() -> bool:
        with contextlib.suppress(ConnectionError), client.pod("owned-b").connect(7100) as sock:
            sock.sendall(b"source 1\n")
            return bool(sock.recv(1))
        return False

    assert eventually(answers, 20)
    yield "owned-b"
    for name in ("owned-a", "owned-b"):
        cluster.delete_pod(name)


def test_a_service_and_a_deployment_stand_for_a_pod_that_runs(client: Client, owned: str) -> None:
    for name, port in (
        ("svc/owned", 80),
        ("svc/owned", 7100),
        ("deploy/owned", "talk"),
        ("deployments.apps/owned", 7100),
        (owned, "talk"),
    ):
        with client.pod(name).connect(port, timeout=seconds(10)) as sock:
            assert sock.getpeername() == (owned, 7100)
            sock.sendall(b"source 10\n")
            assert len(read_all(sock)) == 10
    with client.pod("svc/owned").forward([80]) as forward:
        assert "svc " in repr(forward)
        with socket.create_connection((forward.address, forward.ports[80])) as sock:
            sock.sendall(b"source 10\n")
            assert len(read_all(sock)) == 10
    with pytest.raises(ConfigError, match="does not have a service port 81"):
        client.pod("svc/owned").connect(81)
    with pytest.raises(ConfigError, match="without a selector"):
        client.pod("svc/blind").connect(80)
    with pytest.raises(kubews.NotReady, match="lonely"):
        client.pod("svc/lonely").connect(80)
    with pytest.raises(kubews.NotFound, match="nothing"):
        client.pod("deploy/nothing").connect(80)
