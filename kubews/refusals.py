"""Why a server refused, and what a person can do about it.

Threads: pure functions, but for the one that asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from kubews import documents
from kubews.client import Client
from kubews.documents import Json
from kubews.errors import ApiError, Forbidden, KubewsError
from kubews.transport.deadline import Deadline

# Servers since 1.36 say what was to be done as well: ``cannot impersonate-on:user-info:get``.
_ACTING = "cannot impersonate"

#: What a kubelet says of the log of a container that has not begun (kubernetes
#: ``pkg/kubelet/kubelet_pods.go: validateContainerLogStatus``).
NOT_YET = re.compile("is waiting to start|is not available")


def with_hint(exc: ApiError, hint: str) -> ApiError:
    """Return the same refusal with a sentence behind its message."""
    return type(exc)(
        f"{exc}. {hint}",
        code=exc.code,
        reason=exc.reason,
        status=exc.status,
        body=exc.body,
        retry_after=exc.retry_after,
    )


def missing_verbs(client: Client, resource: str, namespace: str, deadline: Deadline) -> list[str]:
    """Ask which of the verbs that a stream needs are not allowed, if the client is to explain.

    Returns:
        Nothing if nothing is known.

    Threads: blocks.
    """
    if not client.explains:
        return []
    try:
        return [
            verb
            for verb in _verbs(resource)
            if not client.can_i(verb, resource, namespace=namespace, timeout=deadline.remaining())
        ]
    except KubewsError:
        return []  # the refusal that is to be explained says more


def of_stream(exc: Forbidden, resource: str, namespace: str, missing: Sequence[str] = ()) -> str:
    """Return what to do about a 403 instead of a stream.

    Args:
        exc: the refusal.
        resource: such as ``pods/exec``.
        namespace: of the pod.
        missing: the verbs that the server says are not allowed, if it was asked.
    """
    if not exc.body:  # not of the authorization filter, but of the negotiation
        return "kubews speaks v5.channel.k8s.io and v4.channel.k8s.io"
    if _ACTING in str(exc):
        return (
            "The configuration acts as another user: its own user needs the verb impersonate on the users "
            "(or serviceaccounts), groups, uids and userextras that it names"
        )
    if missing:
        verbs = f"verb{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        return f"The user lacks the {verbs} on {resource} in namespace {namespace}"
    if len(_verbs(resource)) == 1:
        return f"The user needs the verb get on {resource} in namespace {namespace}"
    return (
        f"The user needs the verbs get and create on {resource} in namespace {namespace} "
        "(servers before 1.35 ask for get only)"
    )


def _verbs(resource: str) -> tuple[str, ...]:
    return ("get",) if resource == "pods/log" else ("get", "create")


def of_choice(verb: str, resource: str, namespace: str, why: str) -> str:
    """Return what to do about a 403 when a pod was to be chosen."""
    return (
        f"The user needs the verb {verb} on {resource} in namespace {namespace}, {why}; "
        "for a pod that is named itself (pod/NAME) this is not needed"
    )


def in_pod(refusal: str, pod: Json, container: Optional[str], resource: str, waits: str) -> str:
    """Look for the reason of a refusal in the pod's document.

    Args:
        refusal: its text.
        pod: the document.
        container: the one that was asked for.
        resource: what was asked for; a log is there of what has ended, and no other refusal of one than that it
            has not begun is the pod's doing.
        waits: what waits for the container, in words; may be empty.

    Returns:
        A sentence, or nothing.
    """
    if container and "not valid" in refusal:
        return f"The pod has the containers {', '.join(documents.all_containers(pod))}"
    state, over = documents.state(pod), documents.is_over(pod)
    if not state or (resource == "pods/log" and (over or not NOT_YET.search(refusal))):
        return ""
    return f"The pod {state}" + ("" if over or not waits else f"; {waits}")


def candidates(what: str, selector: str, pods: list[Json], *, most: int = 5) -> str:
    """Say of pods of which none runs what they do instead.

    Args:
        what: the object that they belong to.
        selector: that of the object.
        pods: the best first.
        most: how many to speak of.
    """
    if not pods:
        return f"{what} has no pod: there is none with {selector}"
    told = [
        f"{documents.name_of(pod)} {documents.state(pod) or 'runs another container'}"
        for pod in pods[:most]
    ]
    if len(pods) > most:
        told.append(f"and {len(pods) - most} more")
    return f"{what} has no pod that runs: {'; '.join(told)}"
