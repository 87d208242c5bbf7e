"""Asking the API server what this user may do: ``SelfSubjectAccessReview``.

Source: ``k8s.io/api/authorization/v1``.
"""

from __future__ import annotations

from typing import Any

#: Where such a question is posted.
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def access_review(verb: str, resource: str, namespace: str, name: str = "") -> dict[str, Any]:
    """Return the question whether this user may do something.

    Args:
        verb: such as ``get``.
        resource: ``pods``, ``pods/exec``, ``deployments.apps``, ``deployments.apps/scale``.
        namespace: empty for all of them, and for what is in none.
        name: of one object; empty for any.
    """
    whole, _, subresource = resource.partition("/")
    plural, _, group = whole.partition(".")
    asked = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "name": name,
    }
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
    }
