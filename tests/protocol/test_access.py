"""The question what this user may do, as authorization.k8s.io/v1 asks it."""

from __future__ import annotations

import pytest

from kubews.protocol.access import access_review


@pytest.mark.parametrize(
    ("resource", "asked"),
    [
        ("pods", {"resource": "pods"}),
        ("pods/exec", {"resource": "pods", "subresource": "exec"}),
        ("deployments.apps", {"resource": "deployments", "group": "apps"}),
        (
            "deployments.apps/scale",
            {"resource": "deployments", "group": "apps", "subresource": "scale"},
        ),
        ("certs.cert-manager.io", {"resource": "certs", "group": "cert-manager.io"}),
    ],
)
def test_what_is_asked_of_a_resource(resource: str, asked: dict[str, str]) -> None:
    review = access_review("get", resource, "shop", "web-0")
    assert review == {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {
            "resourceAttributes": {"verb": "get", "namespace": "shop", "name": "web-0", **asked}
        },
    }


def test_what_is_empty_is_left_out() -> None:
    assert access_review("list", "nodes", "")["spec"] == {
        "resourceAttributes": {"verb": "list", "resource": "nodes"}
    }
