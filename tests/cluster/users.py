"""The users of the kubeconfig, their tokens, and the roles that they are bound to."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from kubews import Client

from .certificates import write_secret
from .layout import NODE, Layout

_STREAMS = ["pods/exec", "pods/attach", "pods/portforward"]

#: The rules of the users with a token; ``nobody`` has none.
RULES: dict[str, list[dict[str, Any]]] = {
    "token": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    "getonly": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": _STREAMS, "verbs": ["get"]},
    ],
    "createonly": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": _STREAMS, "verbs": ["create"]},
    ],
}
_TOKEN_USERS = (*RULES, "nobody")
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def write_users(layout: Layout) -> None:
    """Write the API server's token file, the users' kubeconfig, and the kubelet's."""
    tokens = {name: secrets.token_hex(16) for name in _TOKEN_USERS}
    lines = [f"{token},kubews-{name},kubews-{name}\n" for name, token in tokens.items()]
    write_secret(layout.etc / "tokens.csv", "".join(lines).encode())
    users: dict[str, dict[str, str]] = {name: {"token": token} for name, token in tokens.items()}
    admin = _kubeconfig(layout, {"admin": _certificate(layout, "admin"), **users})
    write_secret(layout.kubeconfig, admin)
    node = _kubeconfig(layout, {NODE: _certificate(layout, "node")})
    write_secret(layout.etc / "kubelet.kubeconfig", node)


def _certificate(layout: Layout, name: str) -> dict[str, str]:
    # In the file itself, so that a copy of the kubeconfig is all that anybody needs.
    return {
        "client-certificate-data": _base64(layout, f"{name}.crt"),
        "client-key-data": _base64(layout, f"{name}.key"),
    }


def _base64(layout: Layout, name: str) -> str:
    return base64.b64encode((layout.etc / name).read_bytes()).decode()


def _kubeconfig(layout: Layout, users: dict[str, dict[str, str]]) -> bytes:
    cluster = f"kubews-{layout.version}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": next(iter(users)),
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": f"https://127.0.0.1:{layout.apiserver_port}",
                    "certificate-authority-data": _base64(layout, "ca.crt"),
                },
            }
        ],
        "users": [{"name": name, "user": user} for name, user in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": cluster, "user": name, "namespace": "default"}}
            for name in users
        ],
    }
    return json.dumps(document, indent=1).encode()  # JSON is YAML


def create_roles(client: Client) -> None:
    """Create a cluster role for each user with rules, and bind them in ``default``."""
    for name, rules in RULES.items():
        role = {"metadata": {"name": f"kubews-{name}"}, "rules": rules}
        client.request("POST", f"{_RBAC}/clusterroles", body=_body("ClusterRole", role))
    bind_users(client, "default")


def bind_users(client: Client, namespace: str) -> None:
    """Give the users with a token their rights in a namespace."""
    for name in RULES:
        binding = {
            "metadata": {"name": f"kubews-{name}"},
            "subjects": [{"kind": "User", "name": f"kubews-{name}"}],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"kubews-{name}",
            },
        }
        path = f"{_RBAC}/namespaces/{namespace}/rolebindings"
        client.request("POST", path, body=_body("RoleBinding", binding))


def _body(kind: str, value: dict[str, Any]) -> bytes:
    whole = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, **value}
    return json.dumps(whole).encode()
