"""What a pod's document says: its containers, what they do, and whether anything can run there.

Threads: pure functions.
"""

from __future__ import annotations

from typing import Any, Optional

Json = dict[str, Any]

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

# The phases of a pod that will run nothing any more.
_OVER = ("Succeeded", "Failed")


def at(document: Any, *path: str) -> Any:
    """Return what lies at a path of keys, or None where a key is missing."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def entries(document: Any, *path: str) -> list[Json]:
    """Return the objects of the list at a path of keys; nothing where there is none."""
    found = at(document, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def name_of(document: Any) -> str:
    """Return the name of an object of the API."""
    return str(at(document, "metadata", "name"))


def containers(pod: Json) -> list[str]:
    """Return the names of the regular containers, in order."""
    return [str(each.get("name")) for each in entries(pod, "spec", "containers")]


def default_container(pod: Json) -> str:
    """Return the container that kubectl takes (``cmd/util/podcmd/podcmd.go``): the annotation's, else the first."""
    named = at(pod, "metadata", "annotations", DEFAULT_CONTAINER)
    return str(named or next(iter(containers(pod)), ""))


def names_default(pod: Json) -> bool:
    """Tell whether the pod's annotation names its default container."""
    return bool(at(pod, "metadata", "annotations", DEFAULT_CONTAINER))


def all_containers(pod: Json) -> list[str]:
    """Return the names of the containers of every kind, as kubectl lists them (``podcmd.go``)."""
    kinds = {"containers": "", "ephemeralContainers": " (ephem)", "initContainers": " (init)"}
    return [
        f"{each.get('name')}{note}"
        for kind, note in kinds.items()
        for each in entries(pod, "spec", kind)
    ]


def in_order(pod: Json) -> list[str]:
    """Return the names of the containers of every kind, as they begin: init, regular, ephemeral."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [str(each.get("name")) for kind in kinds for each in entries(pod, "spec", kind)]


def container_spec(pod: Json, container: str) -> Json:
    """Return what the spec says of a container, of any kind; nothing if there is none of that name."""
    kinds = ("containers", "initContainers", "ephemeralContainers")
    found = (each for kind in kinds for each in entries(pod, "spec", kind))
    return next((each for each in found if each.get("name") == container), {})


def container_status(pod: Json, container: str) -> Json:
    """Return the status of a container, of any kind; nothing if there is none."""
    return next((each for each in _statuses(pod) if each.get("name") == container), {})


def end_of(pod: Json, container: str, container_id: str, state: str) -> Optional[Json]:
    """Return what a status says of the end of one run of a container; None if it says nothing of it.

    Args:
        pod: the document.
        container: its name.
        container_id: that of the run: each has its own; empty for one that a node has lost.
        state: ``state``, or ``lastState`` for the run before the present one.
    """
    ended = at(container_status(pod, container), state, "terminated")
    return ended if ended and (ended.get("containerID") or "") == container_id else None


def is_over(pod: Json) -> bool:
    """Tell whether nothing will run in this pod any more."""
    return at(pod, "status", "phase") in _OVER


def runs(pod: Json, container: str) -> bool:
    """Tell whether a container, of any kind, runs."""
    return any(
        status.get("name") == container and at(status, "state", "running") is not None
        for status in _statuses(pod)
    )


def state(pod: Json) -> str:
    """Say in words why a container may not be there to run a command in; nothing if all is well."""
    phase = at(pod, "status", "phase") or "Unknown"
    if is_over(pod):
        return f"has ended (phase {phase}), so nothing can be run in it"
    parts = [
        f"{status.get('name')} is {_container_state(status)}"
        for status in _statuses(pod)
        if at(status, "state", "running") is None
    ]
    if not parts and phase == "Running":
        return ""
    if not parts and at(pod, "spec", "nodeName") is None:
        parts = ["no node has been chosen for it"]
    return f"is {phase}" + (f": {', '.join(parts)}" if parts else "")


def _statuses(pod: Json) -> list[Json]:
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [status for kind in kinds for status in entries(pod, "status", kind)]


def _container_state(status: Json) -> str:
    for each in ("waiting", "terminated"):
        detail = at(status, "state", each)
        if detail is not None:
            reason = at(detail, "reason") or "no reason given"
            code = at(detail, "exitCode")
            return f"{each} ({reason}{'' if code is None else f', exit code {code}'})"
    return "not started"
