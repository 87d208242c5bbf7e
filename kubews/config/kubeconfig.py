"""Find, read, merge and check kubeconfig files in kubectl's way.

The first file that defines a name supplies the whole entry, and the first that has a current context
decides it; what is wrong in any of the files is fatal, as it is for kubectl.

Threads: functions without state; they block for the time of reading files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from kubews.config.checks import make_cluster, make_user
from kubews.config.cluster import Cluster, Config, StrPath, why
from kubews.config.entries import Entry, File, decode_file
from kubews.config.parsing import parse
from kubews.config.user import ANONYMOUS, User
from kubews.errors import ConfigError


@dataclass(frozen=True)
class Merged:
    """What all files together say; ``looked_in`` lists them for messages."""

    current_context: str = ""
    looked_in: str = ""
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)
    contexts: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Overrides:
    """What to use instead of what the files say; None for what they say."""

    context: Optional[str] = None
    cluster: Optional[str] = None
    user: Optional[str] = None
    namespace: Optional[str] = None
    server: Optional[str] = None


def load(path: Optional[StrPath] = None, overrides: Overrides = Overrides()) -> Config:
    """Load the Config that ``Config.load`` describes.

    Raises:
        ConfigError: a file, an entry or a field cannot be used; the message names it.

    Threads: any; blocks for the time of reading a few files.
    """
    merged = read_all(path)
    chosen = choose(merged, overrides)
    if chosen is not None:
        return chosen
    from kubews.config import incluster

    # Who names a file means that file: an account that happens to lie about would be a surprise.
    if path is None and incluster.possible():
        return incluster.load(overrides.namespace)
    raise ConfigError(_nothing_chosen(merged))


def from_dict(document: Mapping[str, Any], overrides: Overrides = Overrides()) -> Config:
    """Make the Config that ``Config.from_dict`` describes.

    Raises:
        ConfigError: an entry or a field cannot be used; the message names it.

    Threads: any; blocks for the time of reading the files that it names.
    """
    merged = merge([decode_file(document, "")], ["the given document"])
    chosen = choose(merged, overrides)
    if chosen is None:
        raise ConfigError(_nothing_chosen(merged))
    return chosen


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
    return merge(files, paths or ["KUBECONFIG, which lists no file"])


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
    return decode_file(parse(text, f'error loading config file "{path}"'), path)


def merge(files: Sequence[File], paths: Sequence[str] = ()) -> Merged:
    """Merge files: whole entries, and the first wins."""
    current = next((file.current_context for file in files if file.current_context), "")
    merged = Merged(current, ", ".join(paths))
    for file in reversed(files):
        merged.clusters.update(file.clusters)
        merged.users.update(file.users)
        merged.contexts.update(file.contexts)
    return merged


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


def choose(merged: Merged, overrides: Overrides) -> Optional[Config]:
    """Make a Config of the context that is asked for, else of the current one.

    Returns:
        None if nothing is chosen: no context, no cluster, no server.

    Raises:
        ConfigError: what is chosen does not exist, or cannot be used.
    """
    context = _context(merged, overrides)
    # The variable is kubectl's, from the days before kubeconfigs.
    server = overrides.server or os.environ.get("KUBERNETES_MASTER")
    if context is None and not (overrides.cluster or server):
        return None
    cluster = _cluster(merged, context, overrides)
    user = _user(merged, context, overrides, secure=cluster.scheme == "https")
    namespace = overrides.namespace or (context and context.get("namespace")) or _pod_namespace()
    return Config(cluster, user, namespace, context.name if context else None)


def _context(merged: Merged, overrides: Overrides) -> Optional[Entry]:
    name = overrides.context or merged.current_context
    if not name:
        return None
    context = merged.contexts.get(name)
    if context is not None:
        return context
    if overrides.context:
        raise ConfigError(_unknown("context", name, merged.contexts))
    raise ConfigError(
        f"invalid configuration: context was not found for specified context: {name} "
        f"({_known(merged.contexts)})"
    )


def _cluster(merged: Merged, context: Optional[Entry], overrides: Overrides) -> Cluster:
    if overrides.cluster:
        if overrides.cluster not in merged.clusters:
            raise ConfigError(_unknown("cluster", overrides.cluster, merged.clusters))
        entry = merged.clusters[overrides.cluster]
    elif context is not None and (context.get("cluster") or not overrides.server):
        entry = _referred(context, "cluster", merged.clusters)
    else:
        entry = Entry("clusters", "", "", {})  # a server that was given, and nothing else
    return make_cluster(entry, overrides.server)


def _user(merged: Merged, context: Optional[Entry], overrides: Overrides, *, secure: bool) -> User:
    if overrides.user:
        if overrides.user not in merged.users:
            # kubectl's word for a user is "auth info", which its flag does not have.
            raise ConfigError(_unknown("user", overrides.user, merged.users))
        return make_user(merged.users[overrides.user])
    if context is None:
        return ANONYMOUS  # a cluster or a server was chosen, and nobody
    if not secure and not context.get("user"):
        return ANONYMOUS  # kubectl proxy and the like: credentials would not be sent anyway
    return make_user(_referred(context, "user", merged.users))


def _unknown(kind: str, name: str, entries: Mapping[str, Entry]) -> str:
    return f'{kind} "{name}" does not exist ({_known(entries)})'


def _known(entries: Mapping[str, Entry]) -> str:
    return f"known: {', '.join(sorted(entries)) or 'none'}"


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
    where = f" (in {context.file})" if context.file else ""
    raise ConfigError(f"invalid configuration: {problem}{where}")
