"""What is chosen: overrides by argument, a server without a kubeconfig, and configurations of a program."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubews import Client
from kubews.config import Cluster, Config, User
from kubews.errors import ConfigError, CredentialsError

DOCUMENT: dict[str, Any] = {
    "current-context": "ctx",
    "clusters": [
        {"name": "one", "cluster": {"server": "https://one", "tls-server-name": "api"}},
        {"name": "two", "cluster": {"server": "https://two"}},
        {"name": "empty", "cluster": {}},
    ],
    "users": [
        {"name": "alice", "user": {"token": "t-alice"}},
        {"name": "bob", "user": {"tokenFile": "tokens/bob"}},
    ],
    "contexts": [
        {"name": "ctx", "context": {"cluster": "one", "user": "alice", "namespace": "shop"}},
        {"name": "half", "context": {"user": "alice"}},
        {"name": "empty", "context": {"cluster": "empty", "user": "alice"}},
    ],
}


@pytest.fixture
def path(machine: Path) -> str:
    path = machine / "config"
    path.write_text(json.dumps(DOCUMENT))
    return str(path)


def test_overrides(path: str) -> None:
    config = Config.load(path, cluster="two", user="bob", namespace="other")
    assert (config.cluster.server, config.user.name) == ("https://two", "bob")
    assert (config.namespace, config.context) == ("other", "ctx")
    config = Config.load(path, user="bob")
    assert (config.cluster.name, config.user.name, config.namespace) == ("one", "bob", "shop")


@pytest.mark.parametrize("given", ["~/.kube/config", Path("config"), {}, User()])
def test_what_is_no_configuration_is_refused_with_the_cure(given: Any) -> None:
    with pytest.raises(TypeError, match=r"config must be a Config, not \w+: Config\.load\(PATH\)"):
        Client(given)


def test_a_list_without_a_file(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.pathsep * 2)
    with pytest.raises(ConfigError, match="nothing in KUBECONFIG, which lists no file; name a"):
        Config.load()


def test_another_server_has_another_name(path: str) -> None:
    """As kubectl's flag --server: what was to be verified for the other one does not hold for it."""
    assert Config.load(path).cluster.tls_server_name == "api"
    cluster = Config.load(path, server="https://third:6443").cluster
    assert cluster == Cluster("https://third:6443", name="one")
    assert Config.load(path, context="empty", server="https://third").cluster.name == "empty"
    assert Config.load(path, context="half", server="https://third").user.name == "alice"


@pytest.mark.parametrize("kind", ["cluster", "user", "context"])
def test_what_does_not_exist(path: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf'^{kind} "nope" does not exist \(known: ') as caught:
        Config.load(path, **{kind: "nope"})  # type: ignore[arg-type]
    assert "t-alice" not in str(caught.value)


def test_a_cluster_or_a_server_without_a_context_is_asked_by_nobody(machine: Path) -> None:
    (machine / "config").write_text(json.dumps({**DOCUMENT, "current-context": ""}))
    for chosen in ({"cluster": "two"}, {"server": "https://two"}):
        config = Config.load(machine / "config", **chosen)  # type: ignore[arg-type]
        assert (config.cluster.server, config.user) == ("https://two", User())
        assert (config.context, config.namespace) == (None, "default")
    config = Config.load(machine / "config", cluster="two", user="alice")
    assert config.user.token == "t-alice"
    with pytest.raises(ConfigError, match="no current-context"):
        Config.load(machine / "config", user="alice")


def test_the_old_variable_is_the_default_server(
    path: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KUBERNETES_MASTER: for kubectl, too, only what has no server of its own."""
    with pytest.raises(ConfigError, match="no configuration has been provided"):
        Config.load()
    with pytest.raises(ConfigError, match='no server found for cluster "empty"'):
        Config.load(path, context="empty")
    monkeypatch.setenv("KUBERNETES_MASTER", "http://localhost:8080")
    assert Config.load() == Config(Cluster("http://localhost:8080"))
    assert Config.load(path, context="empty").cluster.server == "http://localhost:8080"
    assert Config.load(path).cluster.server == "https://one"


# -- from a program


def test_from_a_dict(machine: Path) -> None:
    config = Config.from_dict(DOCUMENT)
    assert (config.cluster.server, config.user.token) == ("https://one", "t-alice")
    assert (config.namespace, config.context) == ("shop", "ctx")
    document = {**DOCUMENT, "current-context": "bob"}
    document["contexts"] = [{"name": "bob", "context": {"cluster": "two", "user": "bob"}}]
    config = Config.from_dict(document, namespace="mine")
    assert config.user.token_file == str(machine / "tokens" / "bob")
    assert (config.namespace, config.context) == ("mine", "bob")
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"current-context": "nope"}, "context was not found for specified context: nope"),
        ({"current-context": ""}, "no current-context in the given document; choose one"),
        ({"contexts": [], "current-context": ""}, "no configuration has been provided: nothing in"),
        ({"users": []}, 'user "alice" was not found for context "ctx"$'),
        ({"users": [{"name": "alice", "user": {"token": 5}}]}, 'user "alice": token must be a string'),
        ({"kind": "Pod"}, "kind must be Config"),
        (
            {"users": [{"name": "alice", "user": {"exec": {"command": "s3cret x"}}}]},
            "apiVersion must be specified for alice",
        ),
        (
            {"users": [{"name": "alice", "user": {"exec": {"env": [{"name": ["s3cret"]}]}}}]},
            'user "alice": exec env name must be a string, not a list',
        ),
        (
            {"users": [{"name": "alice", "user": {"as-user-extra": {"k": ["v", 5]}}}]},
            'user "alice": as-user-extra must be a string, not a number',
        ),
        (
            {"clusters": [{"name": "one", "cluster": {"server": "https://x", "extensions": [
                {"name": "client.authentication.k8s.io/exec", "extension": {"x": {1, 2}}}]}}]},
            'cluster "one": extensions has something in it that JSON cannot express',
        ),
    ],
)  # fmt: skip
def test_a_dict_that_is_refused(change: dict[str, Any], text: str) -> None:
    """The message names no file, because there is none."""
    with pytest.raises(ConfigError, match=text) as caught:
        Config.from_dict({**DOCUMENT, **change})
    assert str(caught.value).startswith("invalid configuration: ")
    assert "(in " not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_no_document_at_all() -> None:
    for document in ([], "x", 5):
        with pytest.raises(ConfigError, match="the top level must be a mapping"):
            Config.from_dict(document)  # type: ignore[arg-type]
    with pytest.raises(CredentialsError, match="only one is allowed"):
        user = {"token": "t", "username": "u"}
        Config.from_dict({**DOCUMENT, "users": [{"name": "alice", "user": user}]})
