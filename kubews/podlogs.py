"""Opening the logs of a pod, or of all pods with some labels: of one container, or of several as one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional, TypeVar

from kubews import documents, redirection, refusals
from kubews.client import Client
from kubews.errors import BadRequest, KubewsError, NotFound, NotReady
from kubews.logs import ContainerLogs
from kubews.logsource import LogQuery, Since, checked, since_of
from kubews.logstream import Logs
from kubews.mergedlogs import Failed, MergedLogs
from kubews.options import LogOptions
from kubews.protocol.requests import pods_path
from kubews.targets import Target
from kubews.transport.deadline import Deadline

#: Seconds to try to go on with a log that was cut.
PATIENCE = 60.0

#: How long not to wait.
AT_ONCE = Deadline(0)

# Seconds between two looks.
_POLL = 0.2

T = TypeVar("T")


def of_pod(
    pod: Target,
    *,
    container: Optional[str] = None,
    all_containers: bool = False,
    prefix: bool = False,
    ignore_errors: bool = False,
    **options: Any,
) -> Logs[Any]:
    """Open the logs of a pod; see ``Pod.logs``.

    Threads: blocks.
    """
    options = _checked(container, all_containers, **options)
    target = pod.in_container(container) if container else pod
    if not (all_containers or prefix or ignore_errors):
        return of_container(target, **options)

    def containers() -> list[Target]:
        deadline = Deadline(options.get("connect_timeout"))
        pinned = target.pin(deadline, running=False)
        pod.client.authenticate(deadline)
        document = pinned.get(deadline.at_most(pod.client.connect_timeout).remaining())
        return containers_of(pinned, document, all_of_them=all_containers)

    return _merged(containers, prefix=prefix, ignore_errors=ignore_errors, **options)


def of_selector(
    client: Client,
    selector: str,
    *,
    namespace: Optional[str] = None,
    container: Optional[str] = None,
    all_containers: bool = False,
    prefix: bool = True,
    ignore_errors: bool = False,
    **options: Any,
) -> Logs[Any]:
    """Open the logs of all pods with some labels; see ``Client.logs``.

    Threads: blocks.
    """
    options = _checked(container, all_containers, **options)
    where = namespace or client.config.namespace
    timeout = options.get("connect_timeout")

    def containers() -> list[Target]:
        found = selected(
            client, selector, where, container, all_of_them=all_containers, timeout=timeout
        )
        if not found:
            raise NotReady(f"there is no pod with {selector} in namespace {where}")
        return found

    return _merged(containers, prefix=prefix, ignore_errors=ignore_errors, **options)


def selected(
    client: Client,
    selector: str,
    namespace: str,
    container: Optional[str],
    *,
    all_of_them: bool,
    kind: type[Target] = Target,
    timeout: Optional[float] = None,
) -> list[Target]:
    """Return the containers of the pods with some labels; see ``containers_of``.

    Raises:
        ApiError: the server refused.

    Threads: blocks.
    """
    found = client.get(pods_path(namespace, selector), timeout=timeout)
    containers = []
    for document in documents.entries(found, "items"):
        name = f"pod/{documents.name_of(document)}"
        pod = kind(client, name, namespace=namespace, container=container)
        containers += containers_of(pod, document, all_of_them=all_of_them)
    return containers


def containers_of(pod: Target, document: documents.Json, *, all_of_them: bool) -> list[Target]:
    """Return a handle of each container of a pod, or of the one that is meant.

    Args:
        pod: one pod; if it names no container, it chooses one.
        document: its object.
        all_of_them: whether all are meant, of every kind.
    """
    if not all_of_them:
        return [pod.in_container(pod.container or pod.choose_container(document))]
    return [pod.in_container(name) for name in documents.in_order(document)]


def _checked(
    container: Optional[str],
    all_containers: bool,
    *,
    text: Optional[bool] = None,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    wait_ready: Optional[float] = None,
    **options: Any,
) -> dict[str, Any]:
    """Return what ``of_container`` and ``_merged`` take for what people give."""
    for name in options:
        if name not in LogOptions.__optional_keys__:
            raise TypeError(f"logs() got an unexpected keyword argument {name!r}")
    redirection.check_text(encoding, errors)
    if container is not None and all_containers:
        raise ValueError(f"all_containers=True is every container, and not {container!r} alone")
    encoding = encoding or ("utf-8" if text or errors else None)
    wait = AT_ONCE if wait_ready is None else Deadline(wait_ready)
    return {**options, "encoding": encoding, "errors": errors, "wait_ready": wait}


def _merged(
    containers: Callable[[], list[Target]],
    *,
    prefix: bool,
    ignore_errors: bool,
    wait_ready: Deadline,
    **options: Any,
) -> Logs[Any]:
    """Merge the logs of containers as soon as they are known."""
    ignored: list[Exception] = []
    found = _begun(wait_ready, containers)
    failed = ignored.append if ignore_errors else None
    log = merge(found, prefix=prefix, wait_ready=wait_ready, failed=failed, **options)
    log.ignored = ignored
    return log


def merge(
    containers: Sequence[Target],
    *,
    prefix: bool,
    follow: bool = False,
    timestamps: bool = False,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    failed: Optional[Failed] = None,
    **options: Any,
) -> MergedLogs[Any]:
    """Open the logs of several containers, to be read as one; see ``Pod.logs``.

    Args:
        containers: pods, each with its container named.
        prefix: whether to begin each line with ``[pod/web-0/app]``, as kubectl does.
        failed: called with the error of one that cannot be opened or is lost, from any thread; the others go
            on. By default such an error is raised.
        **options: as for ``of_container``.

    Threads: blocks.
    """
    opened: list[tuple[ContainerLogs[Any], bytes]] = []
    try:
        for each in containers:
            try:
                log = of_container(
                    each, follow=follow, timestamps=timestamps, merged=True, **options
                )
            except KubewsError as exc:
                if failed is None:
                    raise
                failed(exc)
                continue
            words = f"[pod/{each.name}/{each.container}] " if prefix else ""
            opened.append((log, words.encode()))
        return MergedLogs(
            opened,
            follow=follow,
            timestamps=timestamps,
            encoding=encoding,
            errors=errors,
            failed=failed,
        )
    except BaseException:
        for log, _ in opened:
            log.close()
        raise


def of_container(
    target: Target, *, wait_ready: Deadline = AT_ONCE, **options: Any
) -> ContainerLogs[Any]:
    """Open the log of one container; see ``Pod.logs``.

    Args:
        target: one pod, or what stands for one.
        wait_ready: how long to wait for a container that has not begun.
        **options: as for ``Pod.logs``, and ``merged``, as for ``ContainerLogs``.

    Threads: blocks.
    """
    return _begun(wait_ready, lambda: _open(target, **options))


def _begun(wait: Deadline, attempt: Callable[[], T]) -> T:
    """Try until there is a container that has begun, whatever has become of it."""
    while True:
        try:
            return attempt()
        except (NotFound, NotReady, BadRequest) as exc:
            hopeless = isinstance(exc, BadRequest) and not refusals.NOT_YET.search(str(exc))
            remaining = wait.remaining()
            if hopeless or remaining == 0:
                raise
        time.sleep(_POLL if remaining is None else min(_POLL, remaining))


def _open(
    target: Target,
    *,
    follow: bool = False,
    previous: bool = False,
    timestamps: bool = False,
    tail: Optional[int] = None,
    since: Since = None,
    limit_bytes: Optional[int] = None,
    insecure_skip_tls_verify_backend: bool = False,
    patience: float = PATIENCE,
    connect_timeout: Optional[float] = None,
    merged: bool = False,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
) -> ContainerLogs[Any]:
    deadline = Deadline(connect_timeout)
    pod = target.pin(deadline, running=False)
    query = LogQuery(
        follow=follow,
        previous=previous,
        stamps=timestamps or follow or merged,
        tail=checked("tail", tail, 0),
        limit=checked("limit_bytes", limit_bytes, 1),
        unverified=insecure_skip_tls_verify_backend,
        **since_of(since),
    )
    # The server would count stamps that are not given out, and what is sent again.
    if follow or (query.stamps and not timestamps):
        query = dataclasses.replace(query, limit=None)
    return ContainerLogs(
        pod,
        query,
        timestamps=timestamps,
        merged=merged,
        limit=limit_bytes,
        encoding=encoding,
        errors=errors,
        patience=patience,
        deadline=deadline,
    )
