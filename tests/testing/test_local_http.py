"""The HTTP side: discovery, reading, refusing, authenticating, and what is not HTTP at all."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from rawclient import V5, RawClient

from kubews.testing import LocalCluster

PODS = "/api/v1/namespaces/default/pods"


def get(cluster: LocalCluster, target: str, *headers: tuple[str, str], cert: bool = True) -> Any:
    with RawClient(cluster, cert=cert) as client:
        answer = client.request(target, headers)
    return answer.status, json.loads(answer.body)


def test_discovery_and_health(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:  # all on one connection
        answers = {
            path: client.request(path)
            for path in ("/version", "/api", "/apis", "/api/v1", "/healthz", "/readyz", "/livez")
        }
        assert client.request("/openapi/v2").status == 404
        assert client.request("/api/v1/secrets").status == 404
    assert {answer.status for answer in answers.values()} == {200}
    assert json.loads(answers["/version"].body)["minor"] == "36"
    names = [each["name"] for each in json.loads(answers["/api/v1"].body)["resources"]]
    pods = [f"pods/{each}" for each in ("attach", "exec", "log", "portforward")]
    assert names[:6] == ["namespaces", "pods", *pods]
    assert answers["/healthz"].body == b"ok"


def test_a_pod_as_json(cluster: LocalCluster) -> None:
    cluster.add_pod(
        "web-0",
        {"app": ["sleep", "1000"], "side": None},
        namespace="shop",
        ports={"http": 8080},
        labels={"app": "web"},
        annotations={"kubectl.kubernetes.io/default-container": "side"},
    )
    status, pod = get(cluster, "/api/v1/namespaces/shop/pods/web-0")
    assert status == 200
    assert pod["metadata"]["annotations"] == {"kubectl.kubernetes.io/default-container": "side"}
    assert pod["metadata"]["labels"] == {"app": "web"}
    assert [each["name"] for each in pod["spec"]["containers"]] == ["app", "side"]
    assert pod["spec"]["containers"][0]["ports"][0]["containerPort"] == 8080
    assert pod["status"]["phase"] == "Running"
    assert all("running" in each["state"] for each in pod["status"]["containerStatuses"])
    created = pod["metadata"]["creationTimestamp"]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": created}
    assert ready in pod["status"]["conditions"]


@pytest.mark.parametrize(
    ("state", "phase", "container"),
    [
        ("unscheduled", "Pending", None),
        ("waiting", "Pending", "waiting"),
        ("completed", "Succeeded", "terminated"),
    ],
)
def test_states(cluster: LocalCluster, state: Any, phase: str, container: str) -> None:
    cluster.add_pod("p", state=state)
    _, pod = get(cluster, f"{PODS}/p")
    assert pod["status"]["phase"] == phase
    assert ("nodeName" in pod["spec"]) == (state != "unscheduled")
    states = [list(each["state"]) for each in pod["status"].get("containerStatuses", [])]
    assert states == ([[container]] if container else [])


def test_a_command_that_ends_terminates_its_container(cluster: LocalCluster) -> None:
    cluster.add_pod("fails", {"app": ["sh", "-c", "exit 3"]})
    for _ in range(500):
        _, pod = get(cluster, f"{PODS}/fails")
        if pod["status"]["phase"] != "Running":
            break
    assert pod["status"]["phase"] == "Failed"
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (3, "Error")


def test_lists_and_selectors(cluster: LocalCluster) -> None:
    cluster.add_pod("a", labels={"app": "x", "tier": "1"})
    cluster.add_pod("b", labels={"app": "y"}, namespace="other")

    def names(target: str) -> list[str]:
        status, body = get(cluster, target)
        assert (status, body["kind"]) == (200, "PodList")
        return [item["metadata"]["name"] for item in body["items"]]

    # In the order of their names, and those of the namespaces before them.
    assert names(PODS) == ["a", "box"]
    assert names("/api/v1/pods") == ["a", "box", "b"]
    assert names("/api/v1/pods?labelSelector=app%3Dx") == ["a"]
    assert names("/api/v1/pods?labelSelector=app%21%3Dx") == ["box", "b"]
    assert names("/api/v1/pods?labelSelector=app,%21tier") == ["b"]
    assert names("/api/v1/pods?fieldSelector=metadata.name%3Da") == ["a"]
    assert names("/api/v1/pods?labelSelector=app+in+(x)") == ["a"]
    assert get(cluster, "/api/v1/pods?labelSelector=app+gt+(x)")[0] == 400
    assert get(cluster, "/api/v1/pods?watch=1")[0] == 405
    _, body = get(cluster, "/api/v1/namespaces")
    assert [item["metadata"]["name"] for item in body["items"]] == ["default", "other"]
    assert get(cluster, "/api/v1/namespaces/other")[0] == 200
    assert get(cluster, "/api/v1/namespaces/none")[1]["message"] == 'namespaces "none" not found'


def test_delete(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        assert client.request(f"{PODS}/box", method="DELETE").status == 200
        assert client.request(f"{PODS}/box").status == 404
        assert client.request(f"{PODS}/box", method="DELETE").status == 404
        assert client.request(PODS, method="POST").status == 405
    with pytest.raises(KeyError):
        cluster.delete_pod("box")


def test_arguments_that_cannot_be(cluster: LocalCluster) -> None:
    with pytest.raises(ValueError, match="exists already"):
        cluster.add_pod("box")
    with pytest.raises(ValueError, match="at least one container"):
        cluster.add_pod("none", {})
    with pytest.raises(TypeError, match="collection"):
        cluster.add_user("u", verbs="get")
    with pytest.raises(OSError):
        cluster.add_pod("bad", {"app": ["/nope"]})
    with pytest.raises(ValueError, match=r"1\.27"):
        LocalCluster("1.2")
    assert [pod["metadata"]["name"] for pod in get(cluster, PODS)[1]["items"]] == ["box"]


def test_who_is_asking(cluster: LocalCluster) -> None:
    token = cluster.add_user("eve", verbs={"pods": ["list"]})
    bearer = ("Authorization", f"Bearer {token}")
    assert get(cluster, PODS, bearer, cert=False)[0] == 200
    status, body = get(cluster, f"{PODS}/box", bearer, cert=False)
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'pods "box" is forbidden: User "eve" cannot get resource "pods" in API group "" '
        'in the namespace "default"'
    )
    status, body = get(cluster, "/api/v1/namespaces", bearer, cert=False)
    assert body["message"].endswith('resource "namespaces" in API group "" at the cluster scope')
    # A valid certificate wins over a token.
    assert get(cluster, f"{PODS}/box", ("Authorization", "Bearer nonsense"))[0] == 200
    for value in ("Bearer nonsense", "Basic eDp5", "Bearer", ""):
        assert get(cluster, PODS, ("Authorization", value), cert=False)[0] == 401
    assert get(cluster, "/version", cert=False)[0] == 200
    assert get(cluster, "/api", cert=False)[0] == 403


def test_impersonation(cluster: LocalCluster) -> None:
    token = cluster.add_user("eve", verbs={"pods": ["list"]})
    as_eve = ("Impersonate-User", "eve")
    assert get(cluster, PODS, as_eve)[0] == 200
    assert get(cluster, f"{PODS}/box", as_eve)[0] == 403
    assert get(cluster, f"{PODS}/box", as_eve, ("Impersonate-Group", "system:masters"))[0] == 200
    assert get(cluster, PODS, ("Impersonate-User", "nobody"))[0] == 403
    assert get(cluster, PODS, ("Impersonate-Group", "system:masters"))[0] == 400
    bearer = ("Authorization", f"Bearer {token}")
    for name, mode in (
        ("x", "user-info"),
        ("system:serviceaccount:a:b", "serviceaccount"),
        ("system:node:n", "arbitrary-node"),
    ):
        acting = ("Impersonate-User", name)
        verb = f'User "eve" cannot impersonate-on:{mode}'
        status, body = get(cluster, PODS, bearer, acting, cert=False)
        assert (status, f'{verb}:list resource "pods"' in body["message"]) == (403, True)
        status, body = get(cluster, "/version", bearer, acting, cert=False)
        assert (status, body["message"]) == (403, f'forbidden: {verb}:get path "/version"')
    status, body = get(cluster, PODS, bearer, acting, ("Impersonate-Group", "g"), cert=False)
    assert status == 403
    assert 'cannot impersonate resource "users"' in body["message"]


def test_impersonation_before_it_was_constrained() -> None:
    with LocalCluster(version="1.31") as cluster:
        bearer = ("Authorization", f"Bearer {cluster.add_user('eve')}")
        status, body = get(cluster, PODS, bearer, ("Impersonate-User", "x"), cert=False)
        assert status == 403
        assert 'cannot impersonate resource "users"' in body["message"]


@pytest.mark.parametrize(
    ("protocols", "code"),
    [
        (["base64url.bearer.authorization.k8s.io.{t}", V5], 101),
        ([V5, "base64url.bearer.authorization.k8s.io.{t}"], 101),
        (["base64url.bearer.authorization.k8s.io.{t}"], 401),
        (["base64url.bearer.authorization.k8s.io.{t}"] * 2 + [V5], 401),
        (["base64url.bearer.authorization.k8s.io.bm9uZQ", V5], 401),
        (["base64url.bearer.authorization.k8s.io.!", V5], 401),
    ],
)
def test_a_token_as_subprotocol(cluster: LocalCluster, protocols: list[str], code: int) -> None:
    token = cluster.add_user("eve", verbs={"get", "create"})
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    with RawClient(cluster, cert=False) as client:
        answer = client.exec("true", protocols=[name.format(t=encoded) for name in protocols])
        assert answer.status == code
        if code == 101:
            assert answer.headers["sec-websocket-protocol"] == V5
            client.run_out()
    assert encoded not in repr(cluster.requests)


def test_no_secret_is_shown(cluster: LocalCluster) -> None:
    token = cluster.add_user("eve")
    with RawClient(cluster, cert=False) as client:
        client.request("/version?x=y", [("Authorization", f"Bearer {token}")])
    (request,) = cluster.requests
    assert (request.method, request.target) == ("GET", "/version?x=y")
    assert (request.path, request.query) == ("/version", [("x", "y")])
    assert request.header("Authorization") == "Bearer <redacted>"
    assert request.header("Accept") is None
    users = cluster._host._users.all()  # type: ignore[union-attr]
    for text in (repr(cluster), repr(request), repr(users), repr(cluster._host.facts())):
        assert token not in text
        assert "PRIVATE KEY" not in text


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", "SECRET", "<redacted>"),
        ("Authorization", "SECRET SECRET", "<redacted>"),
        ("Authorization", "Bearer", "<redacted>"),
        ("Authorization", "bearer SECRET SECRET", "bearer <redacted>"),
        ("Proxy-Authorization", "Basic SECRET", "Basic <redacted>"),
        ("Cookie", "session=SECRET; other=SECRET", "<redacted>"),
        ("Cookie", "Bearer SECRET", "<redacted>"),
        (
            "Sec-WebSocket-Protocol",
            "Base64URL.bearer.authorization.k8s.io.SECRET,v5",
            "base64url.bearer.authorization.k8s.io.<redacted>, v5",
        ),
    ],
)
def test_credentials_of_every_form_are_hidden(
    cluster: LocalCluster, name: str, value: str, shown: str
) -> None:
    with RawClient(cluster) as client:
        client.request("/version", [(name, value)])
    (request,) = cluster.requests
    assert request.header(name) == shown
    assert "SECRET" not in repr(request)


def test_the_second_subprotocol_line_is_ignored(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        headers = [("Sec-WebSocket-Protocol", "v9.x"), ("Sec-WebSocket-Protocol", V5)]
        assert client.exec("true", protocols=[], headers=headers).status == 403


def test_the_status_of_a_pod_is_the_pod(cluster: LocalCluster) -> None:
    assert get(cluster, f"{PODS}/box/status") == get(cluster, f"{PODS}/box")
    token = cluster.add_user("eve", verbs={"pods": ["get"]})
    bearer = ("Authorization", f"Bearer {token}")
    status, body = get(cluster, f"{PODS}/box/status", bearer, cert=False)
    assert status == 403
    assert 'cannot get resource "pods/status"' in body["message"]


@pytest.mark.parametrize("name", ["ephemeralcontainers"])
def test_what_is_not_there_yet_says_so(cluster: LocalCluster, name: str) -> None:
    resource = f"pods/{name.partition('/')[0]}"
    status, body = get(cluster, f"{PODS}/box/{name}")
    assert (status, body["message"]) == (501, f"LocalCluster has no {resource} yet")
    status, body = get(cluster, f"{PODS}/nope/{name}")
    assert (status, body["message"]) == (404, 'pods "nope" not found')
    bearer = ("Authorization", f"Bearer {cluster.add_user('eve')}")
    status, body = get(cluster, f"{PODS}/box/{name}", bearer, cert=False)
    assert status == 403
    assert f'cannot get resource "{resource}"' in body["message"]


def test_one_pod_as_a_table(cluster: LocalCluster) -> None:
    accept = ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    for target in (f"{PODS}/box", PODS):
        _, body = get(cluster, target, accept)
        assert body["kind"] == "Table"
        assert [row["cells"][:3] for row in body["rows"]] == [["box", "2/2", "Running"]]


def test_a_request_with_a_body_and_pipelining(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        one = b"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        client.sock.sendall(one + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.sock.recv(65536):
            data += piece
    assert data.count(b"HTTP/1.1 200 OK") == 2
    assert data.endswith(b"ok")
