"""What cannot be is refused where it is given, by name and with the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rawclient import RawClient

from kubews.testing import Faults, LocalCluster


@pytest.mark.parametrize("process", [False, True])
def test_names_lead_to_no_directory_but_the_pods_own(tmp_path: Path, process: bool) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years of work")
    with LocalCluster(process=process) as cluster:
        other = cluster.add_pod("other")
        up = "../" * 20
        for name in (str(precious), f"{up}{precious}", "..", ".", "a/b", "", "A", "-a", "a" * 254):
            with pytest.raises(ValueError, match=r'the name of a pod .* such as "web-0"'):
                cluster.add_pod(name)
            with pytest.raises(ValueError, match=r'the name of a container .* such as "app"'):
                cluster.add_pod("p", {name: None})
            with pytest.raises(ValueError, match="namespace"):
                cluster.add_pod("p", namespace=name)
        assert other.directory.exists()
        assert cluster.add_pod("a.b-c." + "d" * 200).directory.exists()
    assert (precious / "thesis").read_text() == "years of work"


def test_a_pod_that_cannot_start_leaves_nothing(cluster: LocalCluster) -> None:
    pods = Path(cluster.kubeconfig).parent / "pods"
    before = set(pods.iterdir())
    with pytest.raises(OSError):
        cluster.add_pod("bad", {"good": ["sleep", "1000"], "app": ["/nope"]})
    assert set(pods.iterdir()) == before
    assert cluster.add_pod("bad").directory.exists()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"containers": {"app": "sleep 1000"}}, TypeError, r"'app'.*\[\"sleep\", \"1000\"\]"),
        ({"containers": {"app": ["sleep", 1000]}}, TypeError, "'app'.*1000"),
        ({"containers": {"app": {"sleep"}}}, TypeError, "'app'.*list"),
        ({"containers": {"app": b"true"}}, TypeError, "'app'"),
        ({"containers": ["app"]}, TypeError, "containers.*mapping"),
        ({"containers": {}}, ValueError, "at least one container"),
        ({"state": "Running"}, ValueError, "state.*'running'.*'Running'"),
        ({"init_containers": "init"}, TypeError, "init_containers.*collection"),
        ({"init_containers": ["app"]}, ValueError, "'app' is the name of two containers"),
        ({"ephemeral_containers": {"app": None}}, ValueError, "'app' is the name of two"),
        ({"ephemeral_containers": {"x": "sh"}}, TypeError, "'x'"),
        ({"env": {"A": 1}}, TypeError, "env.*1"),
        ({"env": {"A=B": "1"}}, ValueError, "env.*'A=B'"),
        ({"env": ["A"]}, TypeError, "env.*mapping"),
        ({"labels": {"a": 1}}, TypeError, "labels"),
        ({"annotations": {1: "a"}}, TypeError, "annotations"),
        ({"ports": [8080]}, TypeError, "ports.*mapping"),
        ({"ports": {"http": "8080"}}, ValueError, "'http'.*'8080'"),
        ({"ports": {"http": 65536}}, ValueError, "'http'.*65536"),
        ({"namespace": None}, TypeError, "namespace.*None"),
        ({"name": 1}, TypeError, "name of a pod.*1"),
    ],
)
def test_pods_that_cannot_be(
    cluster: LocalCluster, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster.add_pod(**{"name": "p", **arguments})
    assert cluster.add_pod("p").name == "p"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"verbs": "get"}, TypeError, "verbs.*collection.*'get'"),
        ({"verbs": {"pods/exec": "get"}}, TypeError, "verbs.*collection.*'get'"),
        ({"verbs": {"pods/exec": [1]}}, TypeError, "verbs.*1"),
        ({"verbs": 1}, TypeError, "verbs"),
        ({"groups": "system:masters"}, TypeError, "groups.*collection"),
        ({"name": "kubernetes-admin"}, ValueError, "is the admin"),
        ({"name": ""}, ValueError, "empty"),
        ({"name": None}, TypeError, "name of a user"),
        ({"token": ""}, ValueError, "visible ASCII"),
        ({"token": "a b"}, ValueError, "visible ASCII"),
        ({"token": b"x"}, TypeError, "token must be a str"),
        ({"token": "eves-token"}, ValueError, "'eve' has the same token"),
    ],
)
def test_users_that_cannot_be(
    cluster: LocalCluster, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    cluster.add_user("eve", token="eves-token", verbs={"pods": ["list"]})
    with pytest.raises(error, match=words):
        cluster.add_user(**{"name": "mallory", **arguments})
    assert "mallory" not in cluster.kubeconfig_text()
    with RawClient(cluster) as client:  # the admin is who it was
        assert client.request("/api/v1/namespaces/default/pods").status == 200


def test_a_user_may_be_replaced_and_keep_the_token(cluster: LocalCluster) -> None:
    cluster.add_user("eve", token="t")
    assert cluster.add_user("eve", token="t", verbs={"pods": {"list"}}) == "t"
    with RawClient(cluster, cert=False) as client:
        header = [("Authorization", "Bearer t")]
        assert client.request("/api/v1/namespaces/default/pods", header).status == 200


def test_a_context_that_does_not_exist(cluster: LocalCluster) -> None:
    with pytest.raises(ValueError, match=r"no user 'nobody'.*kubernetes-admin"):
        cluster.kubeconfig_text("nobody")


@pytest.mark.parametrize("process", [False, True])
def test_versions_that_cannot_be(process: bool) -> None:
    with pytest.raises(TypeError, match=r'version must be a str, such as "1\.36", not 1\.36'):
        LocalCluster(1.36, process=process)  # type: ignore[arg-type]
    for version in ("1.2", "2", "1", "1.x", "1.²", ""):
        with pytest.raises(ValueError, match=r"1\.27"):
            LocalCluster(version, process=process)


def test_faults_that_cannot_be(cluster: LocalCluster) -> None:
    with pytest.raises(TypeError, match=r"Faults.*'nonsense'"):
        cluster.faults = "nonsense"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Faults"):
        cluster.next_faults(Faults(), None)  # type: ignore[arg-type]
    assert cluster.faults == Faults()
    with pytest.raises(ValueError, match=r"drop.*'reset'.*'rst'"):
        Faults(drop="rst")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"body.*'chunked'"):
        Faults(body="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"match.*b'/exec'"):
        Faults(match=b"/exec")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="before any request"):
        Faults(match="/exec", accept_delay=1)
