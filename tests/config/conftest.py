"""A machine of its own for every test: no kubeconfig, no pod, an empty home and working directory."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from kubews.config import incluster


class Certificates:
    """PEM bytes, made once: two authorities, and a client certificate with its key."""

    def __init__(self) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("alice@example.org")
        self.ca = authority.cert_pem.bytes()
        self.other_ca = trustme.CA().cert_pem.bytes()
        self.cert = issued.cert_chain_pems[0].bytes()
        self.key = issued.private_key_pem.bytes()
        second = authority.issue_cert("bob@example.org")
        self.second_cert = second.cert_chain_pems[0].bytes()
        self.second_key = second.private_key_pem.bytes()

    @staticmethod
    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode("ascii")


@pytest.fixture(scope="session")
def pem() -> Certificates:
    return Certificates()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "KUBECONFIG",
        "POD_NAMESPACE",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_MASTER",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(incluster, "ROOT", str(tmp_path / "no-service-account"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def service_account(machine: Path, monkeypatch: pytest.MonkeyPatch, pem: Certificates) -> Path:
    """Make this look like a pod, with its service account in a directory of the test."""
    root = machine / "serviceaccount"
    root.mkdir()
    (root / "token").write_text("pod-token-5EcReT\n")
    (root / "ca.crt").write_bytes(pem.ca)
    (root / "namespace").write_text("from-file\n")
    monkeypatch.setattr(incluster, "ROOT", str(root))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return root


class Kubeconfigs:
    """Writes kubeconfigs from a cluster, a user and a context."""

    def __init__(self, root: Path) -> None:
        self.path = root / "config"

    def write(
        self,
        *,
        cluster: Any = None,
        user: Any = None,
        context: Any = None,
        **top: Any,
    ) -> str:
        # JSON is YAML: no emitter needed, and every odd value survives.
        document = {
            "current-context": "ctx",
            "clusters": [
                {"name": "kube", "cluster": {"server": "https://k:6443", **(cluster or {})}}
            ],
            "users": [{"name": "alice", "user": user}],
            "contexts": [
                {"name": "ctx", "context": {"cluster": "kube", "user": "alice", **(context or {})}}
            ],
            **top,
        }
        self.path.write_text(json.dumps(document))
        return str(self.path)


@pytest.fixture
def kubeconfig(machine: Path) -> Kubeconfigs:
    return Kubeconfigs(machine)
