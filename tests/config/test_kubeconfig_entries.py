"""Entries of a kubeconfig: every field arrives, and what cannot be used is refused by name."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from kubews.config import (
    Cluster,
    Config,
    ExecPlugin,
    Impersonation,
    Oidc,
    User,
)
from kubews.errors import ConfigError, CredentialsError

CERT = {"client-certificate-data": "YQ=="}
EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "plugin",
    "interactiveMode": "Never",
}
OIDC = {"idp-issuer-url": "https://idp", "client-id": "kube"}


def test_every_supported_field_arrives(kubeconfig: Any, machine: Path, pem: Any) -> None:
    config = Config.load(
        kubeconfig.write(
            cluster={
                "certificate-authority-data": pem.b64(pem.ca),
                "tls-server-name": "api",
                "disable-compression": True,
                "proxy-url": "http://proxy:3128",
                "extensions": [
                    {"name": "x", "extension": {}},
                    {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}},
                ],
            },
            user={
                "client-certificate-data": pem.b64(pem.cert),
                "client-key-data": pem.b64(pem.key),
                "token": "t",
                "tokenFile": "sub/../tok",
            },
        )
    )
    assert config.cluster == Cluster(
        "https://k:6443",
        None,
        pem.ca,
        tls_server_name="api",
        proxy_url="http://proxy:3128",
        disable_compression=True,
        exec_extension='{"audience": "a"}',
        name="kube",
    )
    assert config.user == User(
        token="t",
        token_file=str(machine / "tok"),
        client_certificate_data=pem.cert,
        client_key_data=pem.key,
        name="alice",
    )
    config = Config.load(
        kubeconfig.write(
            user={
                "exec": {
                    **EXEC, "command": "./plugin", "args": ["a", "b"], "installHint": "hint",
                    "env": [{"name": "N", "value": "v"}], "provideClusterInfo": True,
                },
                "as": "root", "as-uid": "7", "as-groups": ["g", "h"], "as-user-extra": {"k": ["v"]},
            }
        )
    )  # fmt: skip
    assert config.user == User(
        exec=ExecPlugin(
            str(machine / "plugin"), ("a", "b"), (("N", "v"),),
            "client.authentication.k8s.io/v1", "hint", True, "Never",
        ),
        impersonate=Impersonation("root", "7", ("g", "h"), (("k", ("v",)),)),
        name="alice",
    )  # fmt: skip
    config = Config.load(
        kubeconfig.write(
            user={
                "auth-provider": {
                    "name": "oidc",
                    "config": {
                        **OIDC, "client-secret": "s", "idp-certificate-authority": "ca",
                        "idp-certificate-authority-data": pem.b64(pem.ca), "id-token": "i",
                        "refresh-token": "r", "extra-scopes": "x",
                    },
                }
            }
        )
    )  # fmt: skip
    assert config.user.oidc == Oidc(
        "https://idp", "kube", "s", "ca", pem.ca, "i", "r", str(machine / "config"), "alice"
    )
    config = Config.load(kubeconfig.write(user={"username": "u", "password": "p"}))
    assert config.user == User(username="u", password="p", name="alice")
    config = Config.load(kubeconfig.write(cluster={"insecure-skip-tls-verify": True}))
    assert config.cluster.insecure_skip_tls_verify
    assert config.user == User(name="alice")  # an empty entry is somebody's decision: anonymous


# -- entries that are refused

CLUSTERS = [
    ({"server": ""}, 'no server found for cluster "kube"'),
    ({"server": "ftp://k"}, 'cluster "kube": server has a scheme'),
    *(
        ({"proxy-url": url}, "invalid 'proxy-url' for cluster \"kube\"")
        for url in ("socks5h://p:s3cret@h", "s3cret:3128", "http://", "http://[s3cret", "http://h:0")
    ),
    (
        {"certificate-authority": "a", "certificate-authority-data": "YQ=="},
        "certificate-authority-data and certificate-authority are both specified for kube",
    ),
    ({"certificate-authority": "no"}, "unable to read certificate-authority .*/no for kube due to open"),
    (
        {"certificate-authority-data": "YQ==", "insecure-skip-tls-verify": True},
        "with the insecure flag is not allowed",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "text"), CLUSTERS)
def test_clusters_that_are_refused(kubeconfig: Any, cluster: dict[str, Any], text: str) -> None:
    path = kubeconfig.write(cluster=cluster)
    with pytest.raises(ConfigError, match=f"invalid configuration: .*{text}") as caught:
        Config.load(path)
    assert path in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


# fmt: off
USERS = [
    ({"exec": {"args": ["s3cret"]}}, r"\[command must be specified for alice to use exec"),
    ({"exec": {"command": "x"}}, "apiVersion must be specified for alice to use exec"),
    ({"exec": {**EXEC, "interactiveMode": ""}}, "interactiveMode must be specified for alice"),
    ({"exec": {**EXEC, "interactiveMode": "Ask"}}, 'invalid interactiveMode for alice: "Ask"'),
    ({"exec": {**EXEC, "env": [{"value": "s3cret"}]}}, "env variable name must be specified for"),
    ({"exec": {**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}},
     'exec plugin: invalid apiVersion "client.authentication.k8s.io/v1alpha1" for alice'),
    ({"exec": EXEC, "auth-provider": {"name": "oidc", "config": OIDC}},
     "authProvider cannot be provided in combination with an exec plugin for alice"),
    ({"auth-provider": {"name": "gcp"}},
     "The gcp auth plugin has been removed .*gke-gcloud-auth-plugin"),
    ({"auth-provider": {"name": "azure"}}, "The azure auth plugin has been removed .*kubelogin"),
    ({"auth-provider": {"name": "x"}}, 'no Auth Provider found for name "x"'),
    ({"auth-provider": {"name": "oidc", "config": {"client-secret": "s3cret"}}},
     "Must provide idp-issuer-url .*, Must provide client-id"),
    ({"auth-provider": {"name": "oidc", "config": {
        **OIDC, "idp-certificate-authority-data": "s3cret!"}}},
     "idp-certificate-authority-data in auth-provider of user alice is not valid base64"),
    *(({key: value, "token": "s3cret"}, "requesting uid, groups or user-extra for alice without")
      for key, value in (("as-uid", "1"), ("as-groups", ["g"]), ("as-user-extra", {"k": ["v"]}))),
    ({"token": "s3cret", "username": "u"}, r"found for alice; found \[token basicAuth\], only one"),
    ({"tokenFile": "f", "password": "s3cret"}, r"found \[tokenFile basicAuth\], only one"),
    (CERT, "client-key-data or client-key must be specified for alice"),
    (
        {**CERT, "client-certificate": "f", "client-key-data": "YQ=="},
        "client-cert-data and client-cert are both specified for alice",
    ),
    (
        {**CERT, "client-key": "f", "client-key-data": "YQ=="},
        "client-key-data and client-key are both specified for alice",
    ),
    (
        {"client-certificate": "no", "client-key-data": "YQ=="},
        "unable to read client-cert .*/no for alice due to open",
    ),
    ({**CERT, "client-key": "no"}, "unable to read client-key .*/no for alice due to open"),
    (
        {"client-certificate": "no", "client-key": "no", "as-uid": "x"},
        r"\[unable to read client-cert .*, unable to read client-key .*, requesting uid, .*\]",
    ),
]
# fmt: on


@pytest.mark.parametrize(("user", "text"), USERS)
def test_users_that_are_refused(kubeconfig: Any, user: dict[str, Any], text: str) -> None:
    path = kubeconfig.write(user=user)
    with pytest.raises(CredentialsError, match=text) as caught:
        Config.load(path)
    assert path in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_what_is_not_chosen_may_be_wrong(kubeconfig: Any) -> None:
    path = kubeconfig.write(
        user={"token": "t"},
        users=[
            {"name": "alice", "user": {"token": "t", "exec": None, "as": "", "as-groups": []}},
            {"name": "plugin", "user": {"exec": {"command": "x"}}},
        ],
        contexts=[
            {"name": "ctx", "context": {"cluster": "kube", "user": "alice"}},
            {"name": "plugin", "context": {"cluster": "kube", "user": "plugin"}},
        ],
    )
    assert Config.load(path).user.token == "t"
    with pytest.raises(CredentialsError, match="apiVersion must be specified for plugin"):
        Config.load(path, context="plugin")


def test_a_key_alone_is_ignored(kubeconfig: Any) -> None:
    assert Config.load(kubeconfig.write(user={"client-key": "no", "token": "t"})).user.token == "t"
