"""The configuration of a program that runs in a pod: its service account."""

from __future__ import annotations

import os
from typing import Optional

from kubews.config.cluster import Cluster, Config, why
from kubews.config.user import User
from kubews.errors import ConfigError, CredentialsError

ROOT = "/var/run/secrets/kubernetes.io/serviceaccount"


def possible(root: Optional[str] = None) -> bool:
    """Say whether this process seems to run in a pod with a service account.

    Threads: any; blocks for the time of looking at a file.
    """
    return all(_address()) and os.path.isfile(os.path.join(root or ROOT, "token"))


def load(namespace: Optional[str] = None, root: Optional[str] = None) -> Config:
    """Make the Config that ``Config.in_cluster`` describes.

    Without a readable certificate authority those of the system are used, as by client-go: verifying
    with them fails rather than letting a stranger in. The logger ``kubews`` tells.

    Args:
        namespace: the namespace to use instead of the pod's own.
        root: directory of the service account, for tests.

    Raises:
        ConfigError: this process does not run in a pod.
        CredentialsError: it does, but the account's token cannot be read.

    Threads: any; blocks for the time of reading a few files.
    """
    host, port = _address()
    if not host or not port:
        raise ConfigError(
            "unable to load in-cluster configuration, "
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        )
    root = root or ROOT
    token_file = os.path.join(root, "token")
    try:
        with open(token_file, "rb"):
            pass  # read for every connection, not here: it is replaced every hour
    except OSError as exc:
        problem = f"unable to load in-cluster configuration: open {token_file}: {why(exc)}"
        raise CredentialsError(problem) from exc
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = Cluster(server, _authority(server, os.path.join(root, "ca.crt")))
    return Config(cluster, User(token_file=token_file), namespace or _namespace(root))


def namespace(root: Optional[str] = None) -> str:
    """Give the namespace of the pod that this process runs in.

    Threads: any; blocks for the time of reading a file.
    """
    return _namespace(root or ROOT)


def _namespace(root: str) -> str:
    given = os.environ.get("POD_NAMESPACE", "")
    if given:
        return given
    try:
        with open(os.path.join(root, "namespace"), encoding="utf-8", errors="replace") as file:
            return file.read().strip() or "default"
    except OSError:
        return "default"


def _address() -> tuple[str, str]:
    variables = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    host, port = (os.environ.get(name, "") for name in variables)
    return host, port


def _authority(server: str, path: str) -> Optional[str]:
    """Give the path of the authority's file if it can be used."""
    try:
        Cluster(server, path, name="in-cluster").ca_pem()
    except ConfigError as exc:
        import logging

        logging.getLogger("kubews").info("expected to load root CA config from %s: %s", path, exc)
        return None
    return path
