"""Who am I, may I, and as whom: the reviews of LocalCluster, and its impersonation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rawclient import SCALE, RawClient

from kubews.testing import LocalCluster

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
MAY = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture(scope="module")
def busy() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        rules = {
            "pods/exec": ["get"],
            "deployments.apps": ["*"],
            "users": ["impersonate"],
            "groups": ["impersonate"],
            "userextras/scopes.authentication.k8s.io": ["impersonate"],
        }
        cluster.add_user("eve", token="token-of-eve", verbs=rules, groups=["devs"])
        yield cluster


def post(
    cluster: LocalCluster, path: str, body: Any, *headers: tuple[str, str], method: str = "POST"
) -> tuple[int, Any]:
    with RawClient(cluster, cert=False) as client:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = client.request(path, headers, method=method, body=data)
        return answer.status, json.loads(answer.body)


EVE = ("Authorization", "Bearer token-of-eve")


def test_who_am_i(busy: LocalCluster) -> None:
    code, body = post(busy, WHO, {}, EVE)
    assert code == 201
    assert body == {
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {},
        "status": {"userInfo": {"username": "eve", "groups": ["devs", "system:authenticated"]}},
    }
    code, body = post(busy, WHO, {})
    assert (code, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'selfsubjectreviews.authentication.k8s.io is forbidden: User "system:anonymous" cannot create '
        'resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope'
    )


def test_as_whom(busy: LocalCluster) -> None:
    """Rights go by the name; the groups are those that are asked for, and no others."""
    code, body = post(
        busy, WHO, {}, EVE,
        ("Impersonate-User", "b\xc3\xb6b"),
        ("Impersonate-Group", "a"), ("Impersonate-Group", "b"),
        ("Impersonate-Extra-Scopes", "one"), ("Impersonate-Extra-scope%73", "two"),
    )  # fmt: skip
    assert code == 201
    assert body["status"]["userInfo"] == {
        "username": "böb",
        "groups": ["a", "b", "system:authenticated"],
        "extra": {"scopes": ["one", "two"]},
    }
    for header, said in (
        (("Impersonate-Uid", "7"), '"uids" in API group "authentication.k8s.io"'),
        (("Impersonate-Extra-Other", "x"), '"userextras/other" in API group'),
    ):
        code, body = post(busy, WHO, {}, EVE, ("Impersonate-User", "bob"), header)
        assert code == 403
        assert f"cannot impersonate resource {said}" in body["message"]
        assert post(busy, WHO, {}, EVE, header)[0] == 400


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"verb": "get", "resource": "pods", "subresource": "exec"}, True),
        ({"verb": "create", "resource": "pods", "subresource": "exec"}, False),
        ({"verb": "get", "resource": "pods"}, False),
        ({"verb": "watch", "resource": "deployments", "group": "apps"}, True),
        ({"verb": "watch", "resource": "deployments"}, False),
    ],
)
def test_may_i(busy: LocalCluster, attributes: dict[str, str], allowed: bool) -> None:
    spec = {"resourceAttributes": attributes}
    code, body = post(busy, MAY, {"spec": spec}, EVE)
    assert (code, body["spec"], body["status"]) == (201, spec, {"allowed": allowed})


def test_what_is_no_review(busy: LocalCluster) -> None:
    for body in (b"", b"{", b"[]", b'{"spec": 1}'):
        assert post(busy, MAY, body, EVE)[0] == 400
    protobuf = ("Content-Type", "application/vnd.kubernetes.protobuf")
    for body in (b"", b"k8s\0\xff", b"k8s\0\x12\x7f", b"k8s\0\x0d"):
        assert post(busy, MAY, body, EVE, protobuf)[0] == 400
    assert post(busy, MAY, b"", EVE, ("Content-Type", "application/cbor"))[0] == 415
    assert post(busy, WHO, b"", EVE, method="GET")[0] == 405
    with LocalCluster(version="1.27") as old:
        token = old.add_user("eve")
        with RawClient(old, cert=False) as client:
            bearer = ("Authorization", f"Bearer {token}")
            assert client.request(WHO, [bearer], method="POST").status == 404


def test_kubectl_may_i(busy: LocalCluster, tmp_path: Path) -> None:
    """kubectl asks in protobuf, and no other way."""
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or "kubectl"

    def can_i(*words: str) -> str:
        done = subprocess.run(
            [program, "--context", "eve", "auth", "can-i", *words],
            env={"KUBECONFIG": busy.kubeconfig, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30 * SCALE,
        )
        return done.stdout.strip()

    assert can_i("get", "pods", "--subresource=exec") == "yes"
    assert can_i("create", "pods", "--subresource=exec") == "no"
    assert can_i("delete", "deployments.apps") == "yes"
    assert can_i("get", "pods/web-0") == "no"
