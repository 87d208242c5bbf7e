"""Entries of a kubeconfig checked and made into values, with client-go's messages.

Source: ``client-go: tools/clientcmd/validation.go``. All that is wrong with an entry is said at once, with
the file. No message shows a value that may be a credential; a URL may hold one.

Threads: functions without state; they block for the time of looking at the files that an entry names.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from kubews.config import proxies
from kubews.config.cluster import Cluster, read_file
from kubews.config.entries import Entry
from kubews.config.user import ExecPlugin, Impersonation, Oidc, User
from kubews.errors import ConfigError, CredentialsError

_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_MODES = ("Never", "IfAvailable", "Always")
_REMOVED = {
    "gcp": "the credential plugin gke-gcloud-auth-plugin",
    "azure": "the credential plugin kubelogin (https://github.com/Azure/kubelogin)",
}


def make_cluster(entry: Entry, server: Optional[str] = None) -> Cluster:
    """Make a Cluster of an entry.

    Args:
        entry: of a cluster.
        server: goes before the entry's own. As with kubectl's flag, its tls-server-name then falls away.

    Raises:
        ConfigError: the entry cannot be used.
    """
    # kubectl's default for what has no server, from the days before kubeconfigs.
    url = server or entry.get("server") or os.environ.get("KUBERNETES_MASTER")
    problems = [] if url else [f'no server found for cluster "{entry.name}"']
    problems += proxies.problems(entry.get("proxy-url"), entry.name)
    if entry.get("certificate-authority") and entry.get("certificate-authority-data"):
        problems.append(
            f"certificate-authority-data and certificate-authority are both specified for {entry.name}. "
            "certificate-authority-data will override. Remove one of them"
        )
    elif entry.get("certificate-authority"):
        problems += _unreadable(entry, "certificate-authority", "certificate-authority")
    _check(entry, problems, ConfigError)
    try:
        return Cluster(
            server=url or "",
            certificate_authority=entry.get("certificate-authority"),
            certificate_authority_data=entry.get("certificate-authority-data"),
            insecure_skip_tls_verify=bool(entry.get("insecure-skip-tls-verify")),
            tls_server_name=None if server else entry.get("tls-server-name"),
            proxy_url=entry.get("proxy-url"),
            disable_compression=bool(entry.get("disable-compression")),
            exec_extension=entry.get("extensions"),
            name=entry.name,
        )
    except ConfigError as exc:
        raise ConfigError(f"invalid configuration: {exc} (in {entry.file})") from exc


def make_user(entry: Entry) -> User:
    """Make a User of an entry.

    Raises:
        CredentialsError: the entry cannot be used.
    """
    provider = entry.get("auth-provider")
    problems = [
        *_certificate_problems(entry),
        *_method_problems(entry),
        *_exec_problems(entry),
        *_provider_problems(entry, provider),
    ]
    if not entry.get("as") and any(map(entry.get, ("as-uid", "as-groups", "as-user-extra"))):
        problems.append(
            f"requesting uid, groups or user-extra for {entry.name} without impersonating a user"
        )
    _check(entry, problems, CredentialsError)
    return User(
        token=entry.get("token"),
        token_file=entry.get("tokenFile"),
        client_certificate=entry.get("client-certificate"),
        client_certificate_data=entry.get("client-certificate-data"),
        client_key=entry.get("client-key"),
        client_key_data=entry.get("client-key-data"),
        username=entry.get("username"),
        password=entry.get("password"),
        exec=_exec(entry.get("exec")),
        oidc=make_oidc(entry),
        impersonate=_impersonation(entry),
        name=entry.name,
    )


def make_oidc(entry: Entry) -> Optional[Oidc]:
    """Make the value of an entry's ``auth-provider``, or None if it has none."""
    provider = entry.get("auth-provider")
    if provider is None:
        return None
    config = provider["config"]
    return Oidc(
        issuer=config.get("idp-issuer-url", ""),
        client_id=config.get("client-id", ""),
        client_secret=config.get("client-secret", ""),
        certificate_authority=config.get("idp-certificate-authority") or None,
        certificate_authority_data=_decoded(config.get("idp-certificate-authority-data", "")),
        id_token=config.get("id-token", ""),
        refresh_token=config.get("refresh-token", ""),
        file=entry.file or None,
        entry=entry.name,
    )


def _check(entry: Entry, problems: Sequence[str], error: type[ConfigError]) -> None:
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        where = f" (in {entry.file})" if entry.file else ""
        raise error(f"invalid configuration: {text}{where}")


def _method_problems(entry: Entry) -> list[str]:
    methods = []
    if entry.get("token"):
        methods.append("token")
    elif entry.get("tokenFile"):
        methods.append("tokenFile")
    if entry.get("username") or entry.get("password"):
        methods.append("basicAuth")
    if len(methods) < 2:  # a client certificate may go with either
        return []
    return [
        (
            f"more than one authentication method found for {entry.name}; "
            f"found [{' '.join(methods)}], only one is allowed"
        )
    ]


def _certificate_problems(entry: Entry) -> list[str]:
    name = entry.name
    problems: list[str] = []
    if not (entry.get("client-certificate") or entry.get("client-certificate-data")):
        return problems  # a key alone proves nothing and is ignored, as by kubectl
    if entry.get("client-certificate") and entry.get("client-certificate-data"):
        problems.append(
            f"client-cert-data and client-cert are both specified for {name}. "
            "client-cert-data will override. Remove one of them"
        )
    elif entry.get("client-certificate"):
        problems += _unreadable(entry, "client-certificate", "client-cert")
    if entry.get("client-key") and entry.get("client-key-data"):
        problems.append(
            f"client-key-data and client-key are both specified for {name}; "
            "client-key-data will override. Remove one of them"
        )
    elif entry.get("client-key"):
        problems += _unreadable(entry, "client-key", "client-key")
    elif not entry.get("client-key-data"):
        problems.append(
            f"client-key-data or client-key must be specified for {name} "
            "to use the clientCert authentication method."
        )
    return problems


def _unreadable(entry: Entry, key: str, word: str) -> list[str]:
    try:
        read_file(entry.get(key), word, entry.name)
    except ConfigError as exc:
        return [str(exc)]
    return []


def _exec_problems(entry: Entry) -> list[str]:
    plugin = entry.get("exec")
    if plugin is None:
        return []
    name, problems = entry.name, []
    if entry.get("auth-provider"):
        problems.append(
            f"authProvider cannot be provided in combination with an exec plugin for {name}"
        )
    missing = [key for key in ("command", "apiVersion", "interactiveMode") if not plugin[key]]
    if any(not variable["name"] for variable in plugin["env"]):
        missing.append("env variable name")
    problems += [
        f"{what} must be specified for {name} to use exec authentication plugin" for what in missing
    ]
    if plugin["apiVersion"] and plugin["apiVersion"] not in _API_VERSIONS:
        problems.append(
            f'exec plugin: invalid apiVersion "{plugin["apiVersion"]}" for {name}; '
            f"it must be {' or '.join(_API_VERSIONS)}"
        )
    if plugin["interactiveMode"] and plugin["interactiveMode"] not in _MODES:
        mode = plugin["interactiveMode"]
        problems.append(f'invalid interactiveMode for {name}: "{mode}" is none of {_MODES}')
    return problems


def _exec(plugin: Optional[Mapping[str, Any]]) -> Optional[ExecPlugin]:
    if plugin is None:
        return None
    return ExecPlugin(
        command=plugin["command"],
        args=tuple(plugin["args"]),
        env=tuple((variable["name"], variable["value"]) for variable in plugin["env"]),
        api_version=plugin["apiVersion"],
        install_hint=plugin["installHint"],
        provide_cluster_info=plugin["provideClusterInfo"],
        interactive_mode=plugin["interactiveMode"],
    )


def _provider_problems(entry: Entry, provider: Optional[Mapping[str, Any]]) -> list[str]:
    if provider is None:
        return []
    kind = provider["name"]
    if kind in _REMOVED:
        return [
            (
                f"The {kind} auth plugin has been removed (user {entry.name}). "
                f"Please use {_REMOVED[kind]} instead"
            )
        ]
    if kind != "oidc":
        return [f'no Auth Provider found for name "{kind}" (user {entry.name}); there is only oidc']
    config = provider["config"]
    missing = [key for key in ("idp-issuer-url", "client-id") if not config.get(key)]
    problems = [f"Must provide {key} in auth-provider of user {entry.name}" for key in missing]
    if _decoded(config.get("idp-certificate-authority-data", "")) == b"":
        problems.append(
            f"idp-certificate-authority-data in auth-provider of user {entry.name} is not valid base64"
        )
    return problems


def _decoded(text: str) -> Optional[bytes]:
    """Decode base64: None if there is nothing, nothing if it is none."""
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _impersonation(entry: Entry) -> Optional[Impersonation]:
    if not entry.get("as"):
        return None
    extra = entry.get("as-user-extra") or {}
    return Impersonation(
        user=entry.get("as"),
        uid=entry.get("as-uid") or "",
        groups=tuple(entry.get("as-groups") or ()),
        extra=tuple((key, tuple(values)) for key, values in extra.items()),
    )
