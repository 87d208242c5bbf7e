"""The service account of a pod, in a directory of the test."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from kubews.config import Config, Credentials, User, incluster
from kubews.errors import ConfigError, CredentialsError


def test_in_cluster(service_account: Path, pem: Any) -> None:
    config = Config.in_cluster()
    assert config.cluster.server == "https://10.96.0.1:443"
    assert (config.cluster.ca_pem() or "").strip() == pem.ca.decode().strip()
    assert config.user == User(token_file=str(service_account / "token"))
    assert (config.namespace, config.context) == ("from-file", None)
    assert "5EcReT" not in repr(config)


def test_the_token_rotates(service_account: Path) -> None:
    """R-30."""
    credentials = Credentials(Config.in_cluster().user)
    assert credentials.headers() == {"Authorization": "Bearer pod-token-5EcReT"}
    (service_account / "token").write_text("next")
    assert credentials.headers() == {"Authorization": "Bearer next"}


@pytest.mark.parametrize("host", ["fd00::1", "[fd00::1]"])
def test_ipv6(service_account: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    if host[0] == "[":
        with pytest.raises(ConfigError):
            Config.in_cluster()
        return
    cluster = Config.in_cluster().cluster
    assert (cluster.server, cluster.host) == ("https://[fd00::1]:443", "fd00::1")


def test_namespace(service_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config.in_cluster("given").namespace == "given"
    (service_account / "namespace").write_text(" \n")
    assert incluster.namespace() == "default"
    (service_account / "namespace").unlink()
    assert Config.in_cluster().namespace == "default"
    monkeypatch.setenv("POD_NAMESPACE", "from-env")
    assert Config.in_cluster().namespace == "from-env"
    (service_account / "namespace").write_bytes(b"\xff")
    monkeypatch.delenv("POD_NAMESPACE")
    with pytest.raises(ConfigError, match="DNS_LABEL"):
        Config.in_cluster()


@pytest.mark.parametrize("make", ["remove", "garbage"])
def test_an_unusable_authority_means_the_systems_and_is_told(
    service_account: Path, caplog: pytest.LogCaptureFixture, make: str
) -> None:
    if make == "remove":
        (service_account / "ca.crt").unlink()
    else:
        (service_account / "ca.crt").write_text("no PEM")
    with caplog.at_level(logging.INFO, logger="kubews"):
        config = Config.in_cluster()
    assert config.cluster.ca_pem() is None
    (record,) = caplog.records
    assert "expected to load root CA config from" in record.getMessage()
    assert str(service_account / "ca.crt") in record.getMessage()


@pytest.mark.parametrize("name", ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"])
def test_not_in_a_cluster(
    service_account: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert incluster.possible()
    monkeypatch.setenv(name, "")
    assert not incluster.possible()
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_PORT must be defined"):
        Config.in_cluster()


def test_no_token(service_account: Path) -> None:
    (service_account / "token").unlink()
    assert not incluster.possible()
    with pytest.raises(CredentialsError, match=r"open .*token: No such file") as caught:
        Config.in_cluster()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_another_root(service_account: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert incluster.possible(str(service_account))
    assert not incluster.possible(str(other))
    assert incluster.namespace(str(other)) == "default"
    assert incluster.load(root=str(service_account)).namespace == "from-file"
