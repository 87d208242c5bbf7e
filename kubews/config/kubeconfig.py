"""Find, read, merge and check kubeconfig files in kubectl's way.

The first file that defines a name supplies the whole entry, and the first that has a current context
decides it; what is wrong in any of the files is fatal, as it is for kubectl.

Threads: functions without state; they block for the time of reading files.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from kubews.config import proxies
from kubews.config.cluster import Cluster, Config, StrPath, User, read_file, why
from kubews.config.entries import Entry, File, decode_file
from kubews.errors import ConfigError, CredentialsError

_MAX_DEPTH = 100  # a kubeconfig needs about ten


@dataclass(frozen=True)
class Merged:
    """What all files together say; ``looked_in`` lists them for messages."""

    current_context: str = ""
    looked_in: str = ""
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)
    contexts: dict[str, Entry] = field(default_factory=dict)


def load(
    path: Optional[StrPath] = None,
    context: Optional[str] = None,
    namespace: Optional[str] = None,
) -> Config:
    """Load the Config that ``Config.load`` describes.

    Raises:
        ConfigError: a file, an entry or a field cannot be used; the message names it.

    Threads: any; blocks for the time of reading a few files.
    """
    merged = read_all(path)
    name = context or merged.current_context
    if name:
        return _select(merged, name, namespace, explicit=bool(context))
    from kubews.config import incluster

    # Who names a file means that file: an account that happens to lie about would be a surprise.
    if path is None and incluster.possible():
        return incluster.load(namespace)
    raise ConfigError(_nothing_chosen(merged))


def read_all(path: Optional[StrPath] = None) -> Merged:
    """Find, read and merge the files that count.

    Args:
        path: the only file to read, which must exist. Without it: the list of ``KUBECONFIG``, else the
            default, where missing files are passed over.

    Raises:
        ConfigError: a file cannot be read or decoded. One is enough, even if nothing of it is used.

    Threads: any; blocks for the time of reading a few files.
    """
    paths, missing_is_error = find_files(path)
    files = []
    for name in paths:
        try:
            files.append(read(name))
        except ConfigError as exc:
            if missing_is_error or not isinstance(exc.__cause__, FileNotFoundError):
                raise
    return merge(files, paths)


def find_files(path: Optional[StrPath] = None) -> tuple[list[str], bool]:
    """List the files to read, and say whether one that is missing is an error."""
    if path is not None:
        return [os.path.expanduser(os.fspath(path))], True
    listed = os.environ.get("KUBECONFIG", "")
    if listed:
        return [name for name in dict.fromkeys(listed.split(os.pathsep)) if name], False
    return [os.path.join(os.path.expanduser("~"), ".kube", "config")], False


def read(path: str) -> File:
    """Read and decode one kubeconfig file.

    Raises:
        ConfigError: the file cannot be read or decoded; ``__cause__`` is the OSError, if it was one.

    Threads: any; blocks for the time of reading a file.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (OSError, ValueError) as exc:
        raise ConfigError(f'error loading config file "{path}": open {path}: {why(exc)}') from exc
    return decode_file(_parse(text, path), path)


def merge(files: Sequence[File], paths: Sequence[str] = ()) -> Merged:
    """Merge files: whole entries, and the first wins."""
    current = next((file.current_context for file in files if file.current_context), "")
    merged = Merged(current, ", ".join(paths))
    for file in reversed(files):
        merged.clusters.update(file.clusters)
        merged.users.update(file.users)
        merged.contexts.update(file.contexts)
    return merged


def _parse(text: bytes, path: str) -> Any:
    """Parse JSON or YAML. What is wrong is said without a word of the file: it holds credentials."""
    if text.lstrip()[:1] == b"{":
        # YAML nearly contains JSON, but forbids tabs; and the json module is much faster.
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # {a: b} is YAML
    try:
        return _parse_yaml(text)
    except Exception as exc:
        # Not only YAMLError: malformed values of tagged nodes come out as KeyError, AttributeError, ...
        problem = _yaml_problem(exc)
    # Outside the handler: PyYAML's own exceptions quote the file, and would be our __context__.
    raise ConfigError(f'error loading config file "{path}": {problem}')


def _parse_yaml(text: bytes) -> Any:
    """Construct the first document, the only one that counts for kubectl."""
    _check_depth(text)
    loader = _loader_class()(text)
    try:
        return loader.get_data() if loader.check_data() else None
    finally:
        loader.dispose()


def _check_depth(text: bytes) -> None:
    """Refuse a document that is nested too deeply.

    PyYAML's C loader composes nodes recursively without looking at the stack: a hundred thousand
    opening brackets end the interpreter with a segmentation fault. Reading events does not recurse.
    """
    from yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentEndEvent

    loader = _loader_class()(text)
    depth = 0
    try:
        while loader.check_event() and depth <= _MAX_DEPTH:
            event = loader.get_event()
            if isinstance(event, DocumentEndEvent):
                return
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
    finally:
        loader.dispose()
    if depth > _MAX_DEPTH:
        raise RecursionError


def _yaml_problem(exc: Exception) -> str:
    mark = getattr(exc, "problem_mark", None)
    # After the first quotation mark comes text of the file.
    problem = re.split(r"['\"`]", getattr(exc, "problem", None) or "")[0].strip(" ,")
    if isinstance(exc, RecursionError) or "nesting depth" in problem:  # newer libyaml's own limit
        return "yaml: nested too deeply"
    line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"yaml: {line}{problem or 'not readable as YAML or JSON'}"


@functools.cache
def _loader_class() -> Any:
    """Make the YAML loader; here, because importing yaml costs more than the rest of this package."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    timestamp = "tag:yaml.org,2002:timestamp"

    class Loader(base):  # type: ignore[misc]
        # A namespace or token that looks like a date is a string, as it is for Go.
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != timestamp]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

    return Loader


def _nothing_chosen(merged: Merged) -> str:
    if merged.contexts:
        return (
            f"invalid configuration: no current-context in {merged.looked_in}; "
            f"choose one with context=: {', '.join(sorted(merged.contexts))}"
        )
    return (
        f"invalid configuration: no configuration has been provided: nothing in {merged.looked_in}; "
        "name a kubeconfig with path= or the environment variable KUBECONFIG"
    )


def _select(merged: Merged, name: str, namespace: Optional[str], *, explicit: bool) -> Config:
    """Make a Config of one context."""
    context = merged.contexts.get(name)
    if context is None:
        known = f" (known: {', '.join(sorted(merged.contexts)) or 'none'})"
        if explicit:
            raise ConfigError(f'context "{name}" does not exist{known}')
        raise ConfigError(
            f"invalid configuration: context was not found for specified context: {name}{known}"
        )
    cluster_entry = _referred(context, "cluster", merged.clusters)
    cluster = _cluster(cluster_entry)
    if cluster.scheme == "http" and not context.get("user"):
        user = User()  # kubectl proxy and the like: credentials would not be sent anyway
    else:
        user = _user(_referred(context, "user", merged.users))
    chosen = namespace or context.get("namespace") or _pod_namespace()
    return Config(cluster, user, chosen, name)


def _pod_namespace() -> str:
    """In a pod, a context without a namespace means the pod's own, as for kubectl."""
    from kubews.config import incluster

    return incluster.namespace() if incluster.possible() else "default"


def _referred(context: Entry, kind: str, entries: dict[str, Entry]) -> Entry:
    name = context.get(kind)
    if name is None:
        problem = f'{kind} was not specified for context "{context.name}"'
    elif name not in entries:
        problem = f'{kind} "{name}" was not found for context "{context.name}"'
    else:
        return entries[name]
    raise ConfigError(f"invalid configuration: {problem} (in {context.file})")


def _check(entry: Entry, problems: Sequence[str], error: type[ConfigError]) -> None:
    if problems:
        text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise error(f"invalid configuration: {text} (in {entry.file})")


def _cluster(entry: Entry) -> Cluster:
    name = entry.name
    problems = []
    if not entry.get("server"):
        problems.append(f'no server found for cluster "{name}"')
    problems += proxies.problems(entry.get("proxy-url"), name)
    if entry.get("certificate-authority") and entry.get("certificate-authority-data"):
        problems.append(
            f"certificate-authority-data and certificate-authority are both specified for {name}. "
            "certificate-authority-data will override. Remove one of them"
        )
    elif entry.get("certificate-authority"):
        problems += _unreadable(entry, "certificate-authority", "certificate-authority")
    _check(entry, problems, ConfigError)
    try:
        return Cluster(
            server=entry.get("server"),
            certificate_authority=entry.get("certificate-authority"),
            certificate_authority_data=entry.get("certificate-authority-data"),
            insecure_skip_tls_verify=bool(entry.get("insecure-skip-tls-verify")),
            tls_server_name=entry.get("tls-server-name"),
            proxy_url=entry.get("proxy-url"),
            name=name,
        )
    except ConfigError as exc:
        raise ConfigError(f"invalid configuration: {exc} (in {entry.file})") from exc


def _user(entry: Entry) -> User:
    problems = [*_unsupported(entry), *_certificate_problems(entry)]
    methods = []
    if entry.get("token"):
        methods.append("token")
    elif entry.get("tokenFile"):
        methods.append("tokenFile")
    if entry.get("username") or entry.get("password"):
        methods.append("basicAuth")
    if len(methods) > 1:  # a client certificate may go with either
        problems.append(
            f"more than one authentication method found for {entry.name}; "
            f"found [{' '.join(methods)}], only one is allowed"
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
        name=entry.name,
    )


def _unsupported(entry: Entry) -> list[str]:
    """Refuse what would change who is asking: going on without it would be another user."""
    fields = ("exec", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra")
    return [
        f'{key} of user "{entry.name}" is not supported by kubews yet'
        for key in fields
        if entry.get(key)
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
