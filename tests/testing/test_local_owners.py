"""Services and workloads of LocalCluster, and selectors, as a real server shows and takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rawclient import RawClient

from kubews.testing import LocalCluster, ServicePort
from kubews.testing.access import Refused
from kubews.testing.selectors import selected

CORE = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
KINDS = {
    "deploy": ("Deployment", "apps", "deployments"),
    "rs": ("ReplicaSet", "apps", "replicasets"),
    "sts": ("StatefulSet", "apps", "statefulsets"),
    "ds": ("DaemonSet", "apps", "daemonsets"),
    "job": ("Job", "batch", "jobs"),
    "rc": ("ReplicationController", "", "replicationcontrollers"),
}


def get(cluster: LocalCluster, path: str, token: str = "") -> tuple[int, Any]:
    headers = [("Authorization", f"Bearer {token}")] if token else []
    with RawClient(cluster, cert=not token) as client:
        answer = client.request(path, headers)
    return answer.status, json.loads(answer.body)


def test_every_kind_is_read_in_its_group(cluster: LocalCluster) -> None:
    for word, (kind, group, plural) in KINDS.items():
        cluster.add_workload(f"{word}/web", selector={"app": "web"})
        for other in (kind.lower(), plural):
            with pytest.raises(ValueError, match=f"{word}/web exists already"):
                cluster.add_workload(f"{other}/web", selector={"app": "x"})
        root = f"/apis/{group}/v1" if group else "/api/v1"
        status, found = get(cluster, f"{root}/namespaces/default/{plural}/web")
        assert (status, found["kind"]) == (200, kind)
        assert found["apiVersion"] == (f"{group}/v1" if group else "v1")
        labels = found["spec"]["selector"]
        assert (labels if word == "rc" else labels["matchLabels"]) == {"app": "web"}
        assert found["spec"]["template"]["metadata"]["labels"] == {"app": "web"}
        status, found = get(cluster, f"{root}/namespaces/default/{plural}/nope")
        dotted = f"{plural}.{group}" if group else plural
        assert (status, found["message"]) == (404, f'{dotted} "nope" not found')
        assert found["details"].get("group", "") == group
        status, found = get(cluster, f"{root}/{plural}")
        assert found["kind"] == f"{kind}List"
        assert [each["metadata"]["name"] for each in found["items"]] == ["web"]
        assert "kind" not in found["items"][0]
        assert get(cluster, f"{root}/namespaces/elsewhere/{plural}")[1]["items"] == []
        assert get(cluster, f"{root}/{plural}?watch=true")[0] == 405
        with RawClient(cluster) as client:
            for method in ("POST", "PUT", "DELETE"):
                target = f"{root}/namespaces/default/{plural}" + (
                    "/web" if method != "POST" else ""
                )
                assert client.request(target, method=method).status == 405
            assert client.request(f"{root}/namespaces/default/{plural}/web/scale").status == 404


def test_discovery_leads_to_every_kind(cluster: LocalCluster) -> None:
    groups = {each["name"]: each for each in get(cluster, "/apis")[1]["groups"]}
    reviews = ["authentication.k8s.io", "authorization.k8s.io"]
    assert sorted(groups) == ["apps", *reviews, "batch"]
    for name, group in groups.items():
        assert get(cluster, f"/apis/{name}")[1]["preferredVersion"] == group["preferredVersion"]
        assert group["preferredVersion"]["groupVersion"] == f"{name}/v1"
    found = {}
    for path in ("/api/v1", "/apis/apps/v1", "/apis/batch/v1"):
        for each in get(cluster, path)[1]["resources"]:
            found[each["name"]] = each
    for word, (kind, _, plural) in {**KINDS, "svc": ("Service", "", "services")}.items():
        assert found[plural]["kind"] == kind
        assert found[plural]["singularName"] == kind.lower()
        assert found[plural].get("shortNames", ["job"]) == [word]
        assert found[plural]["namespaced"] is True
    with RawClient(cluster) as client:
        for path in ("/apis/nope", "/apis/apps/v2", "/apis/nope/v1/things", "/apis/apps/v1/jobs"):
            assert client.request(path).status == 404


def test_services(cluster: LocalCluster) -> None:
    ports = [ServicePort(80, "http", "web"), ServicePort(53, name="dns", protocol="UDP")]
    cluster.add_service("web", selector={"app": "web"}, ports=ports)
    spec = get(cluster, f"{CORE}/services/web")[1]["spec"]
    assert spec["ports"] == [
        {"name": "web", "protocol": "TCP", "port": 80, "targetPort": "http"},
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
    ]
    assert (spec["type"], spec["selector"]) == ("ClusterIP", {"app": "web"})
    assert spec["clusterIPs"] == [spec["clusterIP"]] != ["None"]
    cluster.add_service("one", selector={"app": "web"}, ports={80: 8080})
    assert get(cluster, f"{CORE}/services/one")[1]["spec"]["ports"] == [
        {"protocol": "TCP", "port": 80, "targetPort": 8080}
    ]
    cluster.add_service("two", ports={80: 8080, 443: "tls"}, headless=True)
    spec = get(cluster, f"{CORE}/services/two")[1]["spec"]
    assert [each["name"] for each in spec["ports"]] == ["port-80", "port-443"]
    assert spec["clusterIP"] == "None"
    assert "selector" not in spec
    cluster.add_service("far", external_name="db.example.com")
    spec = get(cluster, f"{CORE}/services/far")[1]["spec"]
    assert spec == {"type": "ExternalName", "externalName": "db.example.com"}
    with pytest.raises(ValueError, match="svc/far exists already"):
        cluster.add_service("far")
    cluster.add_service("far", namespace="elsewhere")
    names = [each["metadata"]["name"] for each in get(cluster, "/api/v1/namespaces")[1]["items"]]
    assert names == ["default", "elsewhere"]


def test_rights_name_the_group(cluster: LocalCluster) -> None:
    cluster.add_workload("deploy/web", selector={"app": "web"})
    cluster.add_service("web", selector={"app": "web"})
    verbs = {"deployments.apps": ["get"], "services": ["list"], "jobs": ["get"]}
    token = cluster.add_user("eve", verbs=verbs)
    assert get(cluster, f"{APPS}/deployments/web", token)[0] == 200
    assert get(cluster, f"{CORE}/services", token)[0] == 200
    for path, message in (
        (
            f"{APPS}/deployments",
            'deployments.apps is forbidden: User "eve" cannot list resource "deployments" '
            'in API group "apps" in the namespace "default"',
        ),
        (
            f"{APPS}/replicasets/web",
            'replicasets.apps "web" is forbidden: User "eve" cannot get resource "replicasets" '
            'in API group "apps" in the namespace "default"',
        ),
        (
            f"{CORE}/services/web",
            'services "web" is forbidden: User "eve" cannot get resource "services" '
            'in API group "" in the namespace "default"',
        ),
        (  # a rule without a group is one of the core group
            "/apis/batch/v1/namespaces/default/jobs/web",
            'jobs.batch "web" is forbidden: User "eve" cannot get resource "jobs" '
            'in API group "batch" in the namespace "default"',
        ),
    ):
        status, found = get(cluster, path, token)
        assert (status, found["message"]) == (403, message)


LABELS = {"app": "web", "tier": "front", "example.com/team": "a-b_c.d"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("absent!=x", True),
        ("absent=x", False),
        ("app", True),
        ("!app", False),
        ("absent", False),
        ("!absent", True),
        ("app in (web,db)", True),
        ("app in ( db , web )", True),
        ("app in (db)", False),
        ("absent in (web)", False),
        ("app notin (db,cache)", True),
        ("app notin (web)", False),
        ("absent notin (web)", True),
        ("app in (web,db),tier=front,!absent,tier notin (back)", True),
        ("app in (web,db),tier=back", False),
        ("tier=front,app in (x,y)", False),
        ("example.com/team=a-b_c.d", True),
        ("app=", False),
    ],
)
def test_selectors(selector: str, expected: bool) -> None:
    assert selected(selector, LABELS) is expected


@pytest.mark.parametrize(
    "selector",
    [
        "app in",
        "app in web",
        "app in (a",
        "app gt (1)",
        "a b",
        "=x",
        "in (x)",
        "app)",
        "a=b=c",
        "a(",
    ],
)
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(Refused) as caught:
        selected(selector, LABELS)
    assert caught.value.body["code"] == 400


def test_what_a_pod_is_said_to_be(cluster: LocalCluster) -> None:
    made = cluster.add_pod("p", {"a": None, "b": None})
    cluster.change_pod("p", ready=False, restarts=3)
    cluster.change_pod(  # what was said before stays
        "p",
        ready_since="2026-01-02T00:00:00Z",
        created="2026-01-01T00:00:00Z",
        deleting="2026-01-03T00:00:00Z",
        phase="Unknown",
    )
    _, pod = get(cluster, f"{CORE}/pods/p")
    assert pod["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert pod["metadata"]["deletionTimestamp"] == "2026-01-03T00:00:00Z"
    assert pod["metadata"]["uid"] == made.uid
    assert pod["status"]["phase"] == "Unknown"
    conditions = {each["type"]: each for each in pod["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["lastTransitionTime"] == "2026-01-02T00:00:00Z"
    assert conditions["PodScheduled"]["status"] == "True"
    statuses = pod["status"]["containerStatuses"]
    assert [each["restartCount"] for each in statuses] == [3, 0]
    assert not any(each["ready"] for each in statuses)
    cluster.change_pod("p", ready=True)
    _, pod = get(cluster, f"{CORE}/pods/p")
    assert all(each["ready"] for each in pod["status"]["containerStatuses"])
    cluster.add_pod("q", state="unscheduled")
    cluster.change_pod("q", restarts=1, ready=True)
    assert "containerStatuses" not in get(cluster, f"{CORE}/pods/q")[1]["status"]
    with pytest.raises(KeyError, match="no pod default/nope"):
        cluster.change_pod("nope", ready=False)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"phase": "running"}, ValueError, "no phase 'running'"),
        ({"created": "yesterday"}, ValueError, "created must be like .2026"),
        ({"deleting": 5}, TypeError, "deleting must be a str"),
        ({"ready": "yes"}, TypeError, "ready must be a bool"),
        ({"restarts": -1}, ValueError, "restarts"),
    ],
)
def test_changes_that_cannot_be(
    cluster: LocalCluster, arguments: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster.change_pod("box", **arguments)


EXPRESSION = {"key": "a", "operator": "In", "values": ["b"]}


@pytest.mark.parametrize(
    ("target", "arguments", "error", "words"),
    [
        ("web", {"selector": {"a": "b"}}, ValueError, 'named as "deploy/web", not .web'),
        ("svc/web", {"selector": {"a": "b"}}, ValueError, "deploy, rs, sts, ds, job, rc"),
        ("deploy/UP", {"selector": {"a": "b"}}, ValueError, "the name of a workload"),
        ("deploy/a/b", {"selector": {"a": "b"}}, ValueError, "the name of a workload"),
        ("deploy/web", {}, ValueError, "selector="),
        ("deploy/web", {"selector": ["a"]}, TypeError, "selector.*mapping"),
        ("deploy/web", {"expressions": ["a"]}, TypeError, "an expression must be a mapping"),
        ("deploy/web", {"expressions": [{**EXPRESSION, "operator": "Gt"}]}, ValueError, "'Gt'"),
        ("deploy/web", {"expressions": [{**EXPRESSION, "values": []}]}, ValueError, "values"),
        (
            "deploy/web",
            {"expressions": [{**EXPRESSION, "operator": "Exists"}]},
            ValueError,
            "values",
        ),
        ("rc/web", {"expressions": [EXPRESSION]}, ValueError, "labels alone"),
        ("deploy/web", {"selector": {"a": "b"}, "namespace": "a/b"}, ValueError, "namespace"),
    ],
)
def test_workloads_that_cannot_be(
    cluster: LocalCluster, target: str, arguments: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster.add_workload(target, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"ports": [80]}, TypeError, "ServicePort"),
        ({"ports": {0: 80}}, ValueError, "65535, not 0"),
        ({"ports": {80: 0}}, ValueError, "65535, not 0"),
        ({"ports": {"http": 80}}, ValueError, "not 'http'"),
        ({"ports": {80: "a b"}}, ValueError, "targetPort"),
        ({"selector": "app"}, TypeError, "selector"),
        ({"external_name": 5}, TypeError, "external_name"),
        ({"name": "a.b"}, ValueError, "the name of a Service"),
    ],
)
def test_services_that_cannot_be(
    cluster: LocalCluster, arguments: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cluster.add_service(**{"name": "web", **arguments})


def test_ports_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="protocol"):
        ServicePort(80, protocol="udp")
    with pytest.raises(ValueError, match="the name of a port"):
        ServicePort(80, name="a b")
    with LocalCluster() as cluster, pytest.raises(ValueError, match="each needs a name"):
        cluster.add_service("web", ports=[ServicePort(80), ServicePort(81, name="b")])


def test_they_live_in_a_process_of_their_own_too() -> None:
    with LocalCluster(process=True) as cluster:
        cluster.add_pod("web-0", labels={"app": "web"})
        cluster.add_service("web", selector={"app": "web"}, ports={80: "http"})
        cluster.add_workload("deploy/web", selector={"app": "web"}, expressions=[EXPRESSION])
        cluster.change_pod("web-0", restarts=7)
        selector = get(cluster, f"{APPS}/deployments/web")[1]["spec"]["selector"]
        assert selector == {"matchLabels": {"app": "web"}, "matchExpressions": [EXPRESSION]}
        statuses = get(cluster, f"{CORE}/pods/web-0")[1]["status"]["containerStatuses"]
        assert statuses[0]["restartCount"] == 7
        with pytest.raises(ValueError, match="exists already"):
            cluster.add_service("web")
