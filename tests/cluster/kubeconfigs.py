"""Copies of a kubeconfig for a namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import yaml

# What may be a path relative to the file's own directory.
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def with_namespace(path: Path, namespace: str, context: Optional[str]) -> dict[str, Any]:
    """Read a kubeconfig and set the namespace of all its contexts.

    Args:
        path: of the kubeconfig.
        namespace: for every context.
        context: the current one, by default the one that the file says.

    Returns:
        The document, with absolute paths, for a file anywhere.
    """
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    document["current-context"] = context or document.get("current-context")
    for one in document["contexts"]:
        one["context"]["namespace"] = namespace
    for one in (*document["clusters"], *document["users"]):
        for values in (one.get("cluster"), one.get("user")):
            for key in _PATHS:
                if values and values.get(key):
                    values[key] = str(path.resolve().parent / values[key])
    return document
