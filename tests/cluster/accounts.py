"""Users with a token and certain rights in any cluster: service accounts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kubews import Client

_RBAC = "rbac.authorization.k8s.io"


def create(client: Client, namespace: str, name: str, verbs: Mapping[str, Sequence[str]]) -> str:
    """Create a service account, its role, and a token for it.

    Args:
        client: who may do that.
        namespace: where.
        name: of the account, its role and the binding.
        verbs: by resource, with its group if it is another than the core one, such as
            ``{"pods/exec": ["get", "create"], "deployments.apps": ["get"]}``.

    Returns:
        The token.

    Threads: blocks.
    """
    core = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    _post(client, core, {"metadata": {"name": name}})
    if verbs:
        _grant(client, namespace, name, verbs)
    asked = {"spec": {"expirationSeconds": 7200}}
    token: str = _post(client, f"{core}/{name}/token", asked)["status"]["token"]
    return token


def _grant(client: Client, namespace: str, name: str, verbs: Mapping[str, Sequence[str]]) -> None:
    path = f"/apis/{_RBAC}/v1/namespaces/{namespace}"
    rules = []
    for dotted, allowed in verbs.items():
        resource, _, group = dotted.partition(".")
        rules.append({"apiGroups": [group], "resources": [resource], "verbs": list(allowed)})
    _post(client, f"{path}/roles", {"metadata": {"name": name}, "rules": rules})
    binding = {
        "metadata": {"name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
    }
    _post(client, f"{path}/rolebindings", binding)


def _post(client: Client, path: str, document: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    body = json.dumps(document).encode()
    return client.request("POST", path, body=body, headers=headers).json()
