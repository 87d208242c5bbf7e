"""Credentials on real connections: the same for REST, for commands and for ports."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from clusters import AnyCluster, make_cluster
from identities import NOBODY, WHO, Place, reach_a_port, use_everything, who
from support import in_thread

from kubews import (
    AuthPluginError,
    Client,
    Config,
    ConfigError,
    ConnectFailed,
    Forbidden,
    Pod,
    Unauthorized,
)
from kubews.config import ExecPlugin, Impersonation, User, incluster


@pytest.fixture(scope="module")
def place(cluster: AnyCluster, pytestconfig: pytest.Config) -> Iterator[Place]:
    with make_cluster(pytestconfig) as own:
        yield Place(own)


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], ExecPlugin]:
    """Make a plugin of a shell script, in which ``$n`` counts its runs."""

    def make(script: str) -> ExecPlugin:
        path, runs = tmp_path / "plugin", shlex.quote(str(tmp_path / "runs"))
        path.write_text(f"#!/bin/sh\necho run >> {runs}; n=$(grep -c run {runs})\n{script}\n")
        path.chmod(0o755)
        return ExecPlugin(str(path), interactive_mode="Never")

    return make


def printing(**status: str) -> str:
    document = {
        "kind": "ExecCredential",
        "apiVersion": "client.authentication.k8s.io/v1",
        "status": status,
    }
    return f"printf %s {shlex.quote(json.dumps(document))}"


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text().split())


# -- every kind of credential, on every kind of connection


def by_certificate_files(place: Place, tmp_path: Path) -> User:
    admin = place.admin.user
    (tmp_path / "cert").write_bytes(admin.client_certificate_data or b"")
    (tmp_path / "key").write_bytes(admin.client_key_data or b"")
    return User(client_certificate=str(tmp_path / "cert"), client_key=str(tmp_path / "key"))


def by_token(place: Place, tmp_path: Path) -> User:
    return User(token=place.token)


def by_token_file(place: Place, tmp_path: Path) -> User:
    (tmp_path / "token").write_text(place.token + "\n")
    return User(token_file=str(tmp_path / "token"))


@pytest.mark.parametrize("make", [by_token, by_token_file])
def test_tokens_on_every_connection_r37(
    place: Place, tmp_path: Path, make: Callable[[Place, Path], User]
) -> None:
    """R-37."""
    use_everything(place.config(make(place, tmp_path)), place.full_name("worker"))


def test_a_certificate_on_every_connection_r37(place: Place, tmp_path: Path) -> None:
    """R-37: from data, from files, and from files that were replaced while the client lives."""
    if not place.admin.user.client_certificate_data:
        pytest.skip("the admin of this cluster has no certificate in the kubeconfig")
    with Client(place.admin) as client:
        name = who(client)["username"]
    use_everything(place.admin, name)
    config = place.config(by_certificate_files(place, tmp_path))
    use_everything(config, name)
    with Client(config) as client:
        assert who(client)["username"] == name
        (tmp_path / "key").write_text(
            "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----"
        )
        with pytest.raises(ConfigError, match="the client certificate and key cannot be used"):
            who(client)
        by_certificate_files(place, tmp_path)
        assert who(client)["username"] == name


def test_a_pair_of_which_only_one_file_is_new_is_read_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who replaces two files replaces one of them first."""
    if not place.admin.user.client_certificate_data:
        pytest.skip("the admin of this cluster has no certificate in the kubeconfig")
    other = trustme.CA().issue_cert("other.example")
    (tmp_path / "cert").write_bytes(other.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(place.admin.user.client_key_data or b"")
    config = place.config(
        User(client_certificate=str(tmp_path / "cert"), client_key=str(tmp_path / "key"))
    )
    pauses: list[float] = []
    with Client(config) as client:
        with monkeypatch.context() as patch:
            patch.setattr("kubews.access.sleep", pauses.append)
            with pytest.raises(ConfigError, match="the client certificate and key cannot be used"):
                who(client)
            assert pauses
            patch.setattr(
                "kubews.access.sleep", lambda pause: by_certificate_files(place, tmp_path)
            )
            assert client.pod("web-0").call(["true"]) == 0
        assert who(client)["username"]
    data = User(
        client_certificate_data=other.cert_chain_pems[0].bytes(),
        client_key_data=place.admin.user.client_key_data,
    )
    with Client(place.config(data)) as client, monkeypatch.context() as patch:
        patch.setattr("kubews.access.sleep", None)  # what is no file is not waited for
        with pytest.raises(ConfigError, match="the client certificate and key cannot be used"):
            who(client)


def test_a_plugin_on_every_connection_r30(
    place: Place, tmp_path: Path, plugin: Callable[[str], ExecPlugin]
) -> None:
    """R-30: it runs once for all of them."""
    user = User(exec=plugin(printing(token=place.token)))
    use_everything(place.config(user), place.full_name("worker"))
    assert runs(tmp_path) == 1


def test_a_plugins_certificate(place: Place, plugin: Callable[[str], ExecPlugin]) -> None:
    admin = place.admin.user
    if not admin.client_certificate_data:
        pytest.skip("the admin of this cluster has no certificate in the kubeconfig")
    with Client(place.admin) as client:
        name = who(client)["username"]
    pair = {
        "clientCertificateData": (admin.client_certificate_data or b"").decode(),
        "clientKeyData": (admin.client_key_data or b"").decode(),
    }
    use_everything(place.config(User(exec=plugin(printing(**pair)))), name)


def test_in_cluster_files_and_their_rotation_r30(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-30: the account's token is replaced while the client lives."""
    (tmp_path / "token").write_text(place.token)
    (tmp_path / "ca.crt").write_text(place.admin.cluster.ca_pem() or "")
    (tmp_path / "namespace").write_text(place.admin.namespace)
    monkeypatch.setattr(incluster, "ROOT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", place.admin.cluster.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(place.admin.cluster.port))
    config = Config.in_cluster()
    assert config.namespace == place.admin.namespace
    use_everything(config, place.full_name("worker"))
    with Client(config) as client:
        assert who(client)["username"] == place.full_name("worker")
        (tmp_path / "token").write_text(place.idle_token)
        assert who(client)["username"] == place.full_name("idler")
        with pytest.raises(Forbidden):
            client.pod("web-0").run(["true"])


# -- what the server refuses


@pytest.mark.parametrize("what", ["rest", "exec", "forward"])
def test_a_stale_token_is_replaced_after_one_401_r30(
    place: Place, tmp_path: Path, plugin: Callable[[str], ExecPlugin], what: str
) -> None:
    """R-30: also on the 401 of the upgrade itself, and once, not for ever."""
    good, stale = printing(token=place.token), printing(token="stale-token-of-yesterday")
    user = User(exec=plugin(f"if test $n = 1; then {stale}; else {good}; fi"))
    with Client(place.config(user)) as client:
        pod = client.pod("web-0", container="app")
        if what == "rest":
            assert who(client)["username"] == place.full_name("worker")
        elif what == "exec":
            assert pod.check_output(["echo", "hello"]) == b"hello\n"
        else:
            reach_a_port(pod)
        assert runs(tmp_path) == 2
        assert pod.call(["true"]) == 0
        assert runs(tmp_path) == 2
    with Client(place.config(User(exec=plugin(stale)))) as client:
        before = runs(tmp_path)
        with pytest.raises(Unauthorized) as caught:
            client.pod("web-0").run(["true"])
        assert runs(tmp_path) == before + 2
        assert "stale-token" not in f"{caught.value} {caught.value!r} {caught.value.__dict__}"


def test_fifty_threads_are_refused_at_once_r30(
    place: Place, tmp_path: Path, plugin: Callable[[str], ExecPlugin]
) -> None:
    """R-30: requests and commands alike; the plugin runs once for all, and once more."""
    good, stale = printing(token=place.token), printing(token="stale-token-of-yesterday")
    user = User(exec=plugin(f"if test $n = 1; then {stale}; else {good}; fi"))
    with Client(place.config(user)) as client:
        pod = client.pod("web-0", container="app")
        asking = [in_thread(who, client) for _ in range(25)]
        calling = [in_thread(pod.call, ["true"]) for _ in range(25)]
        names = {each.result(60)["username"] for each in asking}
        assert names == {place.full_name("worker")}
        assert {each.result(60) for each in calling} == {0}
    assert runs(tmp_path) == 2


def test_a_plugin_that_fails_is_no_anonymous_access_r31(
    place: Place, plugin: Callable[[str], ExecPlugin]
) -> None:
    """R-31: the server is not even asked."""
    user = User(exec=plugin("echo 'please log in' >&2; exit 9"))
    with Client(place.config(user)) as client:
        for action in (
            lambda: client.pod("web-0").run(["true"]),
            lambda: client.pod("web-0").connect(NOBODY),
            lambda: client.get("/version"),
        ):
            with pytest.raises(AuthPluginError, match="exit code 9: please log in"):
                action()


def test_missing_rights_are_named_when_asked_for_r34(place: Place) -> None:
    """R-34: the message of a 403 says what is missing here, and not what may be."""
    with Client(place.config(User(token=place.idle_token)), explain=True) as client:
        with pytest.raises(
            Forbidden, match="lacks the verbs get and create on pods/exec in namespace"
        ):
            client.pod("web-0").run(["true"])
        with pytest.raises(Forbidden, match="lacks the verbs get and create on pods/portforward"):
            client.pod("web-0").connect(NOBODY)
    with Client(place.config(User(token=place.idle_token))) as client:
        with pytest.raises(Forbidden, match="needs the verbs get and create on pods/exec"):
            client.pod("web-0").run(["true"])


def test_can_i_r34(place: Place) -> None:
    """R-34: before it is tried."""
    with Client(place.config(User(token=place.token))) as client:
        assert client.can_i("get", "pods/exec")
        assert client.can_i("create", "pods/portforward", name="web-0")
        assert not client.can_i("delete", "pods/exec")
        assert not client.can_i("get", "deployments.apps")
        assert not client.can_i("list", "nodes", namespace="")
    with Client(place.admin) as client:
        assert client.can_i("get", "deployments.apps/scale", namespace="kube-system")
        assert client.can_i("*", "*", namespace="")


# -- impersonation, and headers of one's own


def test_impersonation_on_every_connection_r36(place: Place) -> None:
    """R-36: allowed where the one who is acted as is allowed, and refused where he is not."""
    acting = Impersonation(place.full_name("worker"), groups=("some-group",))
    config = place.config(dataclasses.replace(place.admin.user, impersonate=acting))
    use_everything(config, place.full_name("worker"))
    with Client(config) as client:
        assert "some-group" in who(client)["groups"]
        with pytest.raises(Forbidden):
            client.get(f"/api/v1/namespaces/{config.namespace}/pods")
    acting = Impersonation(place.full_name("idler"))
    config = place.config(dataclasses.replace(place.admin.user, impersonate=acting))
    with Client(config) as client:
        assert who(client)["username"] == place.full_name("idler")
        for action in (client.pod("web-0").run, client.pod("web-0").popen):
            with pytest.raises(Forbidden):
                action(["true"])
        with pytest.raises(Forbidden):
            client.pod("web-0").connect(NOBODY)
    worker = User(token=place.token, impersonate=Impersonation("somebody"))
    with Client(place.config(worker)) as client:
        for action in (
            lambda: client.pod("web-0").run(["true"]),
            lambda: client.pod("web-0").connect(NOBODY),
        ):
            with pytest.raises(
                Forbidden, match=r"cannot impersonate.*own user needs the verb impersonate"
            ) as caught:
                action()
            assert "get and create" not in str(caught.value)  # it has them


def test_all_that_can_be_impersonated_arrives_r36(place: Place) -> None:
    """R-36: with characters that no header's name can have."""
    acting = Impersonation(
        "j\u00f6rg", "7", ("a", "b"), (("acme.com/some key", ("one", "two")), ("plain", ("x",)))
    )
    user = dataclasses.replace(place.admin.user, impersonate=acting)
    with Client(place.config(user)) as client:
        info = who(client)
    assert (info["username"], info["uid"]) == ("j\u00f6rg", "7")
    assert {"a", "b"} <= set(info["groups"])
    assert info["extra"]["acme.com/some key"] == ["one", "two"]
    assert info["extra"]["plain"] == ["x"]


@pytest.mark.local_only("it looks at what the server received")
def test_headers_of_ones_own_on_every_connection_r36(place: Place) -> None:
    """R-36."""
    acting = Impersonation(place.full_name("worker"), "", ("g",), (("k", ("v",)),))
    config = place.config(dataclasses.replace(place.admin.user, impersonate=acting))
    with Client(config, headers={"X-Trace": "abc", "user-agent": "mine/1"}) as client:
        who(client)
        pod = client.pod("web-0")
        assert pod.call(["true"]) == 0
        reach_a_port(pod)
    for part in (WHO, "/exec", "/portforward"):
        last = place.received(part)[-1]
        assert last["x-trace"] == "abc"
        assert last["user-agent"] == "mine/1"
        assert last["impersonate-user"] == place.full_name("worker")
        assert last["impersonate-group"] == "g"
        assert last["impersonate-extra-k"] == "v"


@pytest.mark.local_only("nothing may be sent")
def test_no_header_can_become_two(place: Place) -> None:
    bad = "s3cret-value\r\nX-Evil: 1"
    before = len(place.received("/"))
    for headers in ({"X-Mine": bad}, {"X-Mine": "s3cret-value\n"}, {"X\r\nMine": "s3cret-value"}):
        with pytest.raises(ConfigError, match=r"no HTTP header|not the name of") as caught:
            Client(place.admin, headers=headers)
        assert "s3cret" not in str(caught.value)
    for name in ("Authorization", "Impersonate-User", "host", "Sec-WebSocket-Protocol", "Upgrade"):
        with pytest.raises(ConfigError, match=f"{name} is made of the configuration"):
            Client(place.admin, headers={name: "x"})
    with Client(place.admin) as client, pytest.raises(ConfigError, match="the value of X-Mine"):
        client.request("GET", "/version", headers={"X-Mine": bad})
    for acting in (Impersonation(bad), Impersonation("bob", bad), Impersonation("bob", "", (bad,))):
        user = dataclasses.replace(place.admin.user, impersonate=acting)
        with Client(place.config(user)) as client:
            for action in (lambda: client.get("/version"), lambda: client.pod("web-0").run(["x"])):
                with pytest.raises(ConfigError, match="the value of Impersonate-"):
                    action()
    assert len(place.received("/")) == before


def test_the_tls_settings_are_those_of_every_connection_r37(place: Place) -> None:
    """R-37: a name that the certificate does not have is refused everywhere, with the same words."""
    cluster = dataclasses.replace(place.admin.cluster, tls_server_name="wrong.example.org")
    said = set()
    with Client(dataclasses.replace(place.admin, cluster=cluster)) as client:
        pod: Pod = client.pod("web-0")
        for action in (
            lambda: client.get("/version"),
            lambda: pod.run(["true"]),
            lambda: pod.connect(NOBODY),
        ):
            with pytest.raises(ConnectFailed, match=r"wrong\.example\.org") as caught:
                action()
            said.add(str(caught.value))
    assert len(said) == 1
