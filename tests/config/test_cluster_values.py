"""Cluster, User and Config as values."""

from __future__ import annotations

import pickle
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubews.config import ClientCertificate, Cluster, Config, Credentials, User
from kubews.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "server", "scheme", "host", "port", "netloc", "prefix"),
    [
        ("https://a", "https://a", "https", "a", 443, "a", ""),
        ("http://a", "http://a", "http", "a", 80, "a", ""),
        ("https://a:6443/", "https://a:6443", "https", "a", 6443, "a:6443", ""),
        ("HTTPS://A.B:6443/x/y/", "https://a.b:6443/x/y", "https", "a.b", 6443, "a.b:6443", "/x/y"),
        ("https://a/x?q=1#f", "https://a/x", "https", "a", 443, "a", "/x"),
        ("a", "http://a", "http", "a", 80, "a", ""),
        (
            "localhost:8080",
            "http://localhost:8080",
            "http",
            "localhost",
            8080,
            "localhost:8080",
            "",
        ),
        ("10.0.0.1:1/", "http://10.0.0.1:1", "http", "10.0.0.1", 1, "10.0.0.1:1", ""),
        ("https://[::1]:6443", "https://[::1]:6443", "https", "::1", 6443, "[::1]:6443", ""),
        ("https://[FE80::A]", "https://[fe80::a]", "https", "fe80::a", 443, "[fe80::a]", ""),
        (
            "https://[fe80::1%25eth0]:6443",
            "https://[fe80::1%25eth0]:6443",
            "https",
            "fe80::1%eth0",
            6443,
            "[fe80::1]:6443",
            "",
        ),
        (
            "https://b\u00fccher.example/\u00fc",
            "https://xn--bcher-kva.example/%C3%BC",
            "https",
            "xn--bcher-kva.example",
            443,
            "xn--bcher-kva.example",
            "/%C3%BC",
        ),
        (
            "https://a/k8s/clusters/c-1",
            "https://a/k8s/clusters/c-1",
            "https",
            "a",
            443,
            "a",
            "/k8s/clusters/c-1",
        ),
    ],
)
def test_server_is_normalised(
    given: str, server: str, scheme: str, host: str, port: int, netloc: str, prefix: str
) -> None:
    cluster = Cluster(given)
    assert cluster.server == server
    assert (cluster.scheme, cluster.host, cluster.port) == (scheme, host, port)
    assert (cluster.netloc, cluster.path_prefix) == (netloc, prefix)
    assert Cluster(cluster.server) == cluster


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ("", "no server found"),
        ("ftp://a", "neither http nor https"),
        ("127.0.0.1:1/x", "must be a URL or a host:port pair"),
        ("https://", "must be a URL or a host:port pair"),
        ("https://:6443", "no usable host"),
        ("https://a_b c", "blanks"),
        ("https://a\r\nX: y", "control"),
        ("https://a\u2028", "control"),
        ("https://a:0", "port 0"),
        ("https://a:99999", "is not a URL"),
        ("https://a:b", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://[::zz]", "is not a URL|no usable host"),
        ("https://a%0d", "no usable host"),
        ("https://user:hunter2@a", "must not hold a user name or password"),
        ("https://\u2100.example", "is not a URL"),
        ("https://" + "\u00fc" * 80, "is not a URL"),
    ],
)
def test_unusable_servers_are_refused_without_being_shown(server: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        Cluster(server, name="kube")
    assert "kube" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_cluster_without_a_name_is_refused_as_well() -> None:
    with pytest.raises(ConfigError, match=r"^server has a scheme"):
        Cluster("ftp://a")


def test_insecure_and_an_authority_exclude_each_other_for_https_only() -> None:
    with pytest.raises(ConfigError, match="insecure flag is not allowed"):
        Cluster("https://a", "ca.pem", insecure_skip_tls_verify=True)
    with pytest.raises(ConfigError, match="insecure flag is not allowed"):
        Cluster("https://a", certificate_authority_data=b"x", insecure_skip_tls_verify=True)
    Cluster("http://a", "ca.pem", insecure_skip_tls_verify=True)


def test_tls_server_name_is_checked() -> None:
    assert Cluster("https://a", tls_server_name="::1").tls_server_name == "::1"
    with pytest.raises(ConfigError, match="tls-server-name"):
        Cluster("https://a", tls_server_name="a\nb")


def test_ca_pem_of_data_file_and_nothing(tmp_path: Path, pem: Any) -> None:
    assert Cluster("https://a").ca_pem() is None
    path = tmp_path / "ca.pem"
    path.write_bytes("# Jürgens CA\n".encode() + pem.ca + "# ü\r\n".encode() + pem.other_ca)
    from_file = Cluster("https://a", str(path))
    text = from_file.ca_pem()
    assert text is not None
    assert text.isascii()
    assert text.count("BEGIN CERTIFICATE") == 2
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=text)
    assert len(context.get_ca_certs()) == 2

    path.write_bytes(pem.other_ca)  # the authority is replaced
    assert (from_file.ca_pem() or "").strip() == pem.other_ca.decode().strip()
    both = Cluster("https://a", str(path), pem.ca)
    assert (both.ca_pem() or "").strip() == pem.ca.decode().strip()


def test_ca_pem_that_cannot_be_had(tmp_path: Path, pem: Any) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(
        ConfigError, match=r"unable to read certificate-authority .*ca.pem for kube"
    ):
        Cluster("https://a", str(path), name="kube").ca_pem()
    path.write_bytes(pem.key)
    with pytest.raises(ConfigError, match=r"ca\.pem holds no PEM certificate"):
        Cluster("https://a", str(path)).ca_pem()
    with pytest.raises(
        ConfigError, match='certificate-authority-data of cluster "kube" holds no PEM'
    ):
        Cluster("https://a", certificate_authority_data=b"\xff\x00", name="kube").ca_pem()
    with pytest.raises(ConfigError, match="not a possible path"):
        Cluster("https://a", "a\0b").ca_pem()


SECRETIVE = User(
    token="s3cret-token",
    client_certificate_data=b"s3cret-cert",
    client_key_data=b"s3cret-key",
    username="root",
    password="s3cret-password",
    name="alice",
)


def test_values_are_equal_hashable_and_survive_pickling() -> None:
    config = Config(Cluster("https://a/", certificate_authority_data=b"x"), SECRETIVE, "ns", "ctx")
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert hash(again) == hash(config)
    assert again.user.token == "s3cret-token"
    assert Config(Cluster("https://b")) != config
    with pytest.raises(AttributeError):
        config.namespace = "other"  # type: ignore[misc]


def test_reprs_are_readable_and_show_no_secret() -> None:
    config = Config(
        Cluster("https://a/x/", certificate_authority_data=b"s3cret"), SECRETIVE, "shop"
    )
    assert repr(config) == (
        "Config(context=None, server='https://a/x', "
        "user='alice (client certificate, token, basic)', namespace='shop')"
    )
    assert repr(Config(Cluster("a"))) == (
        "Config(context=None, server='http://a', user='(anonymous)', namespace='default')"
    )
    everything = [
        config, config.cluster, config.user, Credentials(SECRETIVE),
        ClientCertificate(b"s3cret", b"s3cret"),
    ]  # fmt: skip
    assert "s3cret" not in f"{everything!r} {' '.join(map(str, everything))}"


@pytest.mark.parametrize(
    ("user", "kind"),
    [
        (User(), "anonymous"),
        (User(token="t"), "token"),
        (User(token_file="f"), "token file"),
        (User(client_certificate="f"), "client certificate"),
        (User(password="p"), "basic"),
    ],
)
def test_kind_of_user(user: User, kind: str) -> None:
    assert user.kind == kind


@pytest.mark.parametrize("namespace", ["", "Bad", "a.b", "-a", "a-", "a/b", "a" * 64, "a\n", "ü"])
def test_impossible_namespaces_are_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match="DNS_LABEL"):
        Config(Cluster("https://a"), namespace=namespace)


def test_possible_namespaces() -> None:
    for namespace in ("a", "0", "a-b", "a" * 63):
        assert Config(Cluster("https://a"), namespace=namespace).namespace == namespace


def test_import_of_config_brings_neither_yaml_nor_sockets() -> None:
    code = (
        "import sys, kubews.config as c; c.Cluster('a'); "
        "print(sorted({'yaml', 'json', 'socket', 'ssl', 'websocket', 'logging'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert shown.stdout.strip() == "[]"
