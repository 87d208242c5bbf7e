"""Finding, reading and checking kubeconfig files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kubews.config import (
    Cluster,
    Config,
    User,
    kubeconfig,
)
from kubews.errors import ConfigError

MINIMAL = """
current-context: {ctx}
clusters: [{{name: kube, cluster: {{server: "https://{ctx}:6443"}}}}]
users: [{{name: alice, user: {{token: tok-{ctx}}}}}]
contexts:
- {{name: {ctx}, context: {{cluster: kube, user: alice}}}}
"""


def minimal(path: Path, ctx: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MINIMAL.format(ctx=ctx))
    return path


# -- where the files are


def test_default_path(machine: Path) -> None:
    minimal(machine / "home" / ".kube" / "config", "home")
    config = Config.load()
    assert config == Config(
        Cluster("https://home:6443", name="kube"),
        User(token="tok-home", name="alice"),
        "default",
        "home",
    )


def test_environment_goes_before_the_default(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minimal(machine / "home" / ".kube" / "config", "home")
    path = minimal(machine / "one", "one")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert Config.load().context == "one"
    monkeypatch.setenv("KUBECONFIG", "")
    assert Config.load().context == "home"


def test_path_goes_before_all_and_expands_home(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minimal(machine / "home" / "mine", "mine")
    monkeypatch.setenv("KUBECONFIG", str(minimal(machine / "one", "one")))
    assert Config.load("~/mine").context == "mine"
    assert Config.load(machine / "home" / "mine").context == "mine"


def test_windows_separator_and_empty_and_double_entries(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-35."""
    one, two = minimal(machine / "one", "one"), minimal(machine / "two", "two")
    monkeypatch.setattr(os, "pathsep", ";")
    monkeypatch.setenv("KUBECONFIG", f";{one};;{two};{one}")
    assert kubeconfig.find_files() == ([str(one), str(two)], False)
    assert Config.load().cluster.server == "https://one:6443"
    assert Config.load(context="two").cluster.server == "https://one:6443"


def test_first_file_wins_per_entry_and_for_the_current_context(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-35."""
    one, two = minimal(machine / "one", "one"), minimal(machine / "two", "two")
    monkeypatch.setenv("KUBECONFIG", f"{one}:{two}")
    assert Config.load().context == "one"
    monkeypatch.setenv("KUBECONFIG", f"{two}:{one}")
    config = Config.load(context="one")
    assert (config.context, config.cluster.host, config.user.token) == ("one", "two", "tok-two")


def test_missing_files_are_passed_over_only_in_lists(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = minimal(machine / "one", "one")
    monkeypatch.setenv("KUBECONFIG", f"{machine}/missing:{one}")
    assert Config.load().context == "one"
    with pytest.raises(ConfigError, match=r"missing\": open .*No such file") as caught:
        Config.load(machine / "missing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_an_unreadable_file_is_an_error_even_in_a_list(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = minimal(machine / "one", "one")
    (machine / "dir").mkdir()
    for bad, text in ((f"{machine}/dir", "Is a directory"), (f"{one}/x", "Not a directory")):
        monkeypatch.setenv("KUBECONFIG", f"{one}:{bad}")
        with pytest.raises(ConfigError, match=text):
            Config.load()
    with pytest.raises(ConfigError, match="not a possible path"):
        Config.load("a\0b")


# -- nothing configured


def test_nothing_configured(machine: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration has been provided") as caught:
        Config.load()
    assert str(machine / "home" / ".kube" / "config") in str(caught.value)
    assert "KUBECONFIG" in str(caught.value)


def test_contexts_but_none_chosen(machine: Path) -> None:
    path = minimal(machine / "one", "one")
    path.write_text(path.read_text().replace("current-context", "x"))
    with pytest.raises(ConfigError, match=r"no current-context in .*one; choose .* context=: one"):
        Config.load(path)
    assert Config.load(path, context="one").context == "one"


def test_in_a_pod_nothing_configured_means_the_service_account(service_account: Path) -> None:
    assert Config.load().user.token_file == str(service_account / "token")
    assert Config.load(namespace="mine").namespace == "mine"


def test_in_a_pod_a_named_file_still_means_that_file(service_account: Path, machine: Path) -> None:
    (machine / "empty").touch()
    with pytest.raises(ConfigError, match="no configuration has been provided"):
        Config.load(machine / "empty")
    with pytest.raises(ConfigError, match='context "x" does not exist'):
        Config.load(context="x")


def test_in_a_pod_a_context_without_namespace_means_the_pods(
    service_account: Path, kubeconfig: Any
) -> None:
    assert Config.load(kubeconfig.write()).namespace == "from-file"
    assert Config.load(kubeconfig.write(context={"namespace": "shop"})).namespace == "shop"


# -- choosing


def test_namespace(kubeconfig: Any) -> None:
    path = kubeconfig.write(context={"namespace": "shop"})
    assert Config.load(path).namespace == "shop"
    assert Config.load(path, namespace="other").namespace == "other"
    assert Config.load(kubeconfig.write()).namespace == "default"
    with pytest.raises(ConfigError, match='namespace "No_" for context "ctx" does not conform'):
        Config.load(kubeconfig.write(context={"namespace": "No_"}))


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({"cluster": None}, 'cluster was not specified for context "ctx"'),
        ({"cluster": "x"}, 'cluster "x" was not found for context "ctx"'),
        ({"user": ""}, 'user was not specified for context "ctx"'),
        ({"user": "x"}, 'user "x" was not found for context "ctx"'),
    ],
)
def test_dangling_contexts(kubeconfig: Any, context: dict[str, Any], text: str) -> None:
    path = kubeconfig.write(context=context)
    with pytest.raises(ConfigError, match=f"invalid configuration: {text}") as caught:
        Config.load(path)
    assert path in str(caught.value)


def test_unknown_contexts(kubeconfig: Any) -> None:
    path = kubeconfig.write(**{"current-context": "gone"})
    with pytest.raises(ConfigError, match=r"not found for specified context: gone \(known: ctx\)"):
        Config.load(path)
    with pytest.raises(ConfigError, match=r'^context "nope" does not exist \(known: ctx\)'):
        Config.load(path, context="nope")
    with pytest.raises(ConfigError, match=r"known: none"):
        Config.load(kubeconfig.write(contexts=None))


def test_plain_http_needs_no_user(kubeconfig: Any) -> None:
    path = kubeconfig.write(cluster={"server": "localhost:8001"}, context={"user": None})
    assert Config.load(path).user == User()


def test_paths_are_relative_to_their_file(machine: Path, kubeconfig: Any, pem: Any) -> None:
    """R-35."""
    (machine / "certs").mkdir()
    for name, data in (("ca", pem.ca), ("cert", pem.cert), ("key", pem.key)):
        (machine / "certs" / name).write_bytes(data)
    path = kubeconfig.write(
        cluster={"certificate-authority": "certs/ca"},
        user={"client-certificate": "./certs/cert", "client-key": f"{machine}/certs/../certs/key"},
    )
    os.chdir("/")
    config = Config.load(path)
    assert config.cluster.certificate_authority == str(machine / "certs" / "ca")
    assert config.user.client_certificate == str(machine / "certs" / "cert")
    assert config.user.client_key == f"{machine}/certs/../certs/key"
