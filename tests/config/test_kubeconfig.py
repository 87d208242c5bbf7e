"""Finding, reading and checking kubeconfig files."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from kubews.config import Cluster, Config, User, incluster, kubeconfig
from kubews.errors import ConfigError, CredentialsError

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


def test_every_supported_field_arrives(kubeconfig: Any, machine: Path, pem: Any) -> None:
    config = Config.load(
        kubeconfig.write(
            cluster={
                "certificate-authority-data": pem.b64(pem.ca),
                "tls-server-name": "api",
                "disable-compression": True,
                "extensions": [{"name": "x", "extension": {}}],
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
        "https://k:6443", None, pem.ca, tls_server_name="api", name="kube"
    )
    assert config.user == User(
        token="t",
        token_file=str(machine / "tok"),
        client_certificate_data=pem.cert,
        client_key_data=pem.key,
        name="alice",
    )
    config = Config.load(kubeconfig.write(user={"username": "u", "password": "p"}))
    assert config.user == User(username="u", password="p", name="alice")
    config = Config.load(kubeconfig.write(cluster={"insecure-skip-tls-verify": True}))
    assert config.cluster.insecure_skip_tls_verify
    assert config.user == User(name="alice")  # an empty entry is somebody's decision: anonymous


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


# -- entries that are refused

CLUSTERS = [
    ({"server": ""}, 'no server found for cluster "kube"'),
    ({"server": "ftp://k"}, 'cluster "kube": server has a scheme'),
    ({"proxy-url": "ftp://p:s3cret@h"}, "invalid .proxy-url. for cluster .kube.: unsupported scheme .ftp."),
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


CERT = {"client-certificate-data": "YQ=="}
USERS = [
    ({"exec": {"command": "s3cret"}}, 'exec of user "alice" is not supported'),
    ({"exec": {}}, "exec of user"),
    ({"auth-provider": {"name": "oidc"}}, "auth-provider of user"),
    ({"as": "root", "token": "s3cret"}, "as of user"),
    ({"as-uid": "1"}, "as-uid of user"),
    ({"as-groups": ["g"]}, "as-groups of user"),
    ({"as-user-extra": {"k": ["v"]}}, "as-user-extra of user"),
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
        {"client-certificate": "no", "client-key": "no", "as": "x"},
        r"\[as of user .*, unable to read client-cert .*, unable to read client-key .*\]",
    ),
]


@pytest.mark.parametrize(("user", "text"), USERS)
def test_users_that_are_refused(kubeconfig: Any, user: dict[str, Any], text: str) -> None:
    path = kubeconfig.write(user=user)
    with pytest.raises(CredentialsError, match=text) as caught:
        Config.load(path)
    assert path in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_what_is_not_chosen_may_be_unsupported(kubeconfig: Any) -> None:
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
    with pytest.raises(CredentialsError, match="exec of user"):
        Config.load(path, context="plugin")


def test_a_key_alone_is_ignored(kubeconfig: Any) -> None:
    assert Config.load(kubeconfig.write(user={"client-key": "no", "token": "t"})).user.token == "t"


# -- the text of a file

TEXTS = [
    ("a: b: c", r"yaml: line 1, column 5: mapping values are not allowed"),
    ("users:\n\t- x", r"yaml: line 2, column 1: found character that cannot start"),
    ("[" * 100_000, "yaml: nested too deeply"),
    ("- " * 100_000, "yaml: nested too deeply"),
    ('{"a":' * 100_000, "yaml: nested too deeply"),
    ("x: !!timestamp nothing", "yaml: not readable"),
    ("x: !!bool nothing", "yaml: not readable"),
    ("{users: " + "9" * 5000 + "}", "yaml: not readable|users must be a list"),
    ("token: *s3cret", "yaml: line 1, column 8: found undefined alias"),
    ("token: !s3cret", "yaml: line 1, column 8: could not determine a constructor for the tag"),
    ("token: 'a' s3cret", "yaml: line 1, column 12: "),
    ("s3cret: \x00", "yaml: not readable"),
    ("[]", "the top level must be a mapping, not a list"),
    ("s3cret", "the top level must be a mapping, not a string"),
    ("5", "the top level must be a mapping, not a number"),
    ("!!set {}", "the top level must be a mapping, not set"),
    ("apiVersion: v2", "apiVersion must be v1"),
    ("apiVersion: 1", r"apiVersion must be a string, not a number \(put it in quotes\)"),
    ("kind: Pod", "kind must be Config"),
    ("current-context: yes", r"current-context must be a string, not a boolean \(put it in"),
    ("current-context: {}", "current-context must be a string, not a mapping$"),
    ("clusters: {}", "clusters must be a list, not a mapping"),
    ("clusters: [5]", r"clusters\[0\] must be a mapping, not a number"),
    ("users: [{}, {name: 5}]", r"users\[1\].name must be a string"),
    ("users: [{name: a}, {name: a}]", r'users\[1\].name "a" is a duplicate name in the list'),
    ("users: [null, null]", r'users\[1\].name "" is a duplicate name'),
    ("users: [{name: a, user: []}]", 'user "a" must be a mapping, not a list'),
    ("users: [{name: a, user: {token: 1.5}}]", 'user "a": token must be a string, not a number'),
    ("users: [{name: a, user: {tokenFile: []}}]", 'user "a": tokenFile must be a string'),
    ("users: [{name: a, user: {exec: s3cret}}]", 'user "a": exec must be a mapping'),
    ("users: [{name: a, user: {as-groups: s3cret}}]", 'user "a": as-groups must be a list'),
    ("users: [{name: a, user: {client-key-data: s3cret}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: YQ}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: 'YQ ='}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: 'ü'}}]", "client-key-data is not valid base64"),
    (
        "clusters: [{name: k, cluster: {insecure-skip-tls-verify: 's3cret'}}]",
        'cluster "k": insecure-skip-tls-verify must be true or false, not a string',
    ),
    ("contexts: [{name: c, context: {namespace: 12}}]", 'context "c": namespace must be a string'),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_broken_files(machine: Path, text: str, expected: str) -> None:
    path = machine / "broken"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f'error loading config file "{path}": ')
    shown = "".join(traceback.format_exception(caught.value))
    shown += f"{caught.value!r}{caught.value.__context__!r}"
    assert "s3cret" not in shown.replace(str(machine), "")  # pytest names directories after texts


def test_bytes_that_are_no_text(machine: Path) -> None:
    path = machine / "broken"
    for data in (b"\xff\xfe\xff", b"token: s3cret\xff", b"{\xff", b"\x80"):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="yaml: ") as caught:
            Config.load(path)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["", "\n", "---\n", "null", "# nothing", "{}", "--- {}\n---\n[]"])
def test_empty_files(machine: Path, text: str) -> None:
    (machine / "empty").write_text(text)
    assert kubeconfig.read_all(machine / "empty").contexts == {}


def test_json_with_tabs_and_yaml_that_looks_like_json(machine: Path) -> None:
    path = machine / "config"
    for text in ('{\t"current-context":\t"x"}', "{current-context: x}", "\ufeffcurrent-context: x"):
        path.write_text(text, encoding="utf-8")
        assert kubeconfig.read_all(path).current_context == "x"


def test_what_looks_like_a_date_is_a_string(machine: Path) -> None:
    (machine / "config").write_text("current-context: 2020-01-01")
    assert kubeconfig.read_all(machine / "config").current_context == "2020-01-01"


def test_without_libyaml(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    kubeconfig._loader_class.cache_clear()
    try:
        assert issubclass(kubeconfig._loader_class(), yaml.SafeLoader)
        assert Config.load(minimal(machine / "one", "one")).context == "one"
        for text in ("token: *s3cret", "token: 's3cret", "a: s3cret: b", "[" * 5000):
            (machine / "bad").write_text(text)
            with pytest.raises(ConfigError, match="yaml: ") as caught:
                Config.load(machine / "bad")
            shown = "".join(traceback.format_exception(caught.value))
            assert "s3cret" not in shown
    finally:
        kubeconfig._loader_class.cache_clear()


def test_no_secret_in_the_repr_of_what_is_between(machine: Path) -> None:
    merged = kubeconfig.read_all(minimal(machine / "one", "one"))
    assert "tok-one" not in repr(merged)
    assert incluster.possible() is False
