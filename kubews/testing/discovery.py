"""Discovery: which groups and resources there are, as kubectl asks before it knows ``deploy/web``.

Threads: pure functions.
"""

from __future__ import annotations

from typing import Optional

from kubews.testing import objects, reviews
from kubews.testing.arguments import SERVICE, WORKLOADS, OwnerKind
from kubews.testing.objects import Json

_OWNERS = (SERVICE, *WORKLOADS)
_GROUPS = sorted({kind.group for kind in WORKLOADS if kind.group})


def bodies(minor: int) -> dict[str, Json]:
    """Return the documents of discovery by path.

    Args:
        minor: the minor version of Kubernetes to be.
    """
    core = objects.API_RESOURCES
    groups = sorted({*_GROUPS, *(group for group, _ in reviews.KINDS if _reviews(group, minor))})
    found: dict[str, Json] = {
        "/version": objects.version(minor),
        "/api": objects.API_VERSIONS,
        "/api/v1": {**core, "resources": [*core["resources"], *_resources("")]},
        "/apis": {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(name) for name in groups],
        },
    }
    for name in groups:
        found[f"/apis/{name}"] = {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}
        found[f"/apis/{name}/v1"] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{name}/v1",
            "resources": _resources(name) + _reviews(name, minor),
        }
    return found


def owner_kind(group: str, plural: str) -> Optional[OwnerKind]:
    """Return the kind of that resource, or None."""
    return next((k for k in _OWNERS if (k.group, k.plural) == (group, plural)), None)


def _group(name: str) -> Json:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _reviews(group: str, minor: int) -> list[Json]:
    return [
        {**objects.resource(resource, kind, ["create"]), "namespaced": False}
        for (of, resource), kind in reviews.KINDS.items()
        if of == group and reviews.kind_of(of, resource, minor)
    ]


def _resources(group: str) -> list[Json]:
    return [
        objects.resource(
            kind.plural,
            kind.kind,
            ["get", "list"],
            categories=["all"],
            **({} if kind.word == kind.singular else {"shortNames": [kind.word]}),
        )
        for kind in _OWNERS
        if kind.group == group
    ]
