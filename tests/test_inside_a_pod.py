"""A program in a pod, with nothing but its service account: it finds the cluster, and may what the account may."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import AnyCluster, make_cluster
from identities import PORT, WHO, Place
from support import put, seconds

from kubews import Pod
from kubews.config import incluster
from kubews.testing import LocalCluster

# All that kubews needs, without what is compiled for this machine.
PACKAGES = ("kubews", "websocket", "yaml", "certifi")
ACCOUNT = ("token", "ca.crt", "namespace")

PROGRAM = """
import json, sys
from kubews import Client, Forbidden
from kubews.config import incluster

incluster.ROOT = sys.argv[1]
with Client() as client:
    sent = {"Content-Type": "application/json"}
    review = client.request("POST", sys.argv[2], body=b"{}", headers=sent).json()
    pod = client.pod("web-0")
    said = pod.check_output(["echo", "hello"], text=True)
    with pod.connect(int(sys.argv[3]), timeout=20) as sock:
        sock.sendall(b"source 1\\n")
        received = list(sock.recv(1))
    try:
        refused = client.get(f"/api/v1/namespaces/{client.config.namespace}/pods")
    except Forbidden as exc:
        refused = str(exc)
print(json.dumps([repr(client.config), review["status"]["userInfo"]["username"], said, received, refused]))
"""


def packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in PACKAGES:
            folder = Path(str(importlib.import_module(name).__file__)).parent
            for path in sorted(folder.rglob("*")):
                if path.suffix in (".py", ".pem"):
                    archive.add(path, Path(name, path.relative_to(folder)))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(cluster: AnyCluster, pytestconfig: pytest.Config) -> Iterator[Place]:
    with make_cluster(pytestconfig) as own:
        yield Place(own)


@pytest.fixture
def inside(place: Place) -> Iterator[tuple[Pod, list[str]]]:
    """A pod with the account ``worker``, and how to run a program of Python there that is told of it."""
    server, cluster = place.admin.cluster, place.cluster
    env = {"KUBERNETES_SERVICE_HOST": server.host, "KUBERNETES_SERVICE_PORT": str(server.port)}
    with cluster.client() as client:
        pod = client.pod("inside")
        if isinstance(cluster, LocalCluster):  # its pods have the files of this machine
            cluster.add_pod("inside", {"app": None}, env={**env, "HOME": "/", "KUBECONFIG": ""})
            values = (f"{place.token}\n", server.ca_pem(), place.admin.namespace)
            for name, value in zip(ACCOUNT, values, strict=True):
                put(pod, name, str(value).encode())
            yield pod, [sys.executable, "-c", PROGRAM, "."]
        else:
            cluster.add_pod(
                "inside", {"app": None}, account="worker", env=env if cluster.node else {}
            )
            yield pod, ["python3", "-c", PROGRAM, incluster.ROOT]


def test_a_program_in_a_pod_uses_its_account_r30(
    place: Place, inside: tuple[Pod, list[str]]
) -> None:
    """R-30: for REST, commands and ports, without a word of configuration."""
    pod, command = inside
    put(pod, "kubews.tar.gz", packed())
    pod.check_call(["tar", "xzf", "kubews.tar.gz"])
    done = pod.run([*command, WHO, str(PORT)], capture_output=True, timeout=seconds(60))
    assert done.returncode == 0, done.stderr
    shown, name, said, received, refused = json.loads(done.stdout)
    assert "token file" in shown
    assert name == place.full_name("worker")
    assert (said, received) == ("hello\n", [0])
    assert 'cannot list resource "pods"' in refused
