"""Which pod and which container a command is for, and why a server may refuse it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from kubews.client import Client
from kubews.errors import (
    ApiError,
    BadRequest,
    ConfigError,
    ConnectTimeout,
    Forbidden,
    KubewsError,
    NotFound,
    NotReady,
    ServerError,
)
from kubews.protocol.requests import pod_path
from kubews.transport.deadline import Deadline

T = TypeVar("T")

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

_POLL = 0.2

# The phases of a pod that will run nothing any more.
_OVER = ("Succeeded", "Failed")

_HINT_TIMEOUT = 5.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Target:
    """A pod, and the container in it if one was named.

    Args:
        client: how to reach the cluster.
        name: ``web-0`` or ``pod/web-0``.
        namespace: by default the one of the client's context.
        container: by default the server's choice if there is only one, else kubectl's.

    Raises:
        ConfigError: the name cannot be the name of a pod.

    Threads: any.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        namespace: Optional[str] = None,
        container: Optional[str] = None,
    ) -> None:
        kind, _, rest = name.rpartition("/")
        if kind not in ("", "pod", "pods", "po"):
            raise ConfigError(f"{name!r}: only pods can be named so far, as web-0 or pod/web-0")
        if not _NAME.fullmatch(rest):
            raise ConfigError(f"{name!r} cannot be the name of a pod")
        self.client = client
        self.name = rest
        self.namespace = namespace or client.config.namespace
        self.container = container

    def __repr__(self) -> str:
        container = f" container={self.container!r}" if self.container else ""
        return f"<kubews.{type(self).__name__} {self.namespace}/{self.name}{container}>"

    @property
    def where(self) -> str:
        """The target in words, for messages."""
        container = f", container {self.container}" if self.container else ""
        return f"pod {self.namespace}/{self.name}{container}"

    def get(self, timeout: Optional[float] = None) -> dict[str, Any]:
        """Read the pod's object from the API server.

        Raises:
            NotFound: there is no such pod.

        Threads: blocks.
        """
        found = self.client.get(pod_path(self.namespace, self.name), timeout=timeout)
        return found if isinstance(found, dict) else {}

    def wait_ready(self, timeout: Optional[float]) -> None:
        """Wait until the container runs; the pod need not exist yet.

        Args:
            timeout: seconds, None for ever.

        Raises:
            NotReady: it does not run in time, or has ended; the message says what it does instead.

        Threads: blocks.
        """
        deadline = Deadline(timeout)
        state = "may or may not be there: the server has not told"
        while True:
            try:
                pod = self.get(timeout=deadline.remaining() or _POLL)
            except NotFound:
                state = "does not exist"
            except ConnectTimeout:
                if not deadline.expired():
                    raise
            else:
                if self._runs(pod):
                    return
                state = self._state(pod)
                if _at(pod, "status", "phase") in _OVER:
                    raise NotReady(f"{self.where} {state}")
            if deadline.expired():
                raise NotReady(f"{self.where} {state}, after {timeout} s")
            remaining = deadline.remaining()
            time.sleep(_POLL if remaining is None else min(_POLL, remaining))

    def with_container(self, action: Callable[[], T], deadline: Deadline) -> T:
        """Run an action; if the server asks for a container, choose kubectl's and run it once more.

        The choice is remembered here. There is no question beforehand, so one round trip is enough
        for most pods, and a role that may do no more than exec works.

        Args:
            action: opens something in the container that is named by then.
            deadline: for the questions that are asked here; the action has its own.

        Raises:
            ApiError: with what a person can do about it in the message.

        Threads: blocks.
        """
        try:
            chosen = self.container  # by now; another thread may choose while this one asks
            try:
                return action()
            except BadRequest as exc:
                if chosen or "choose one of" not in str(exc):
                    raise
                self.container = self.container or self._default_container(exc, deadline)
            return action()
        except ApiError as exc:
            explained = self._explain(exc, deadline)
            if explained is exc:
                raise
            raise explained from None  # it has everything that the first one had

    def _default_container(self, asked: BadRequest, deadline: Deadline) -> str:
        try:
            pod = self.get(timeout=deadline.remaining())
        except ApiError:
            raise asked from None  # it lists the containers, which is all one needs to know
        named = _at(pod, "metadata", "annotations", DEFAULT_CONTAINER)
        return str(named or _names(_at(pod, "spec", "containers"))[0])

    def _explain(self, exc: ApiError, deadline: Deadline) -> ApiError:
        hint = ""
        if isinstance(exc, Forbidden) and exc.body:
            hint = (
                f"The user needs the verbs get and create on pods/exec in namespace {self.namespace} "
                "(servers before 1.35 ask for get only)"
            )
        elif isinstance(exc, Forbidden):
            hint = "kubews speaks v5.channel.k8s.io and v4.channel.k8s.io"
        elif isinstance(exc, (BadRequest, ServerError, NotFound)):
            hint = self.hint(str(exc), deadline)
        if not hint:
            return exc
        return type(exc)(
            f"{exc}. {hint}",
            code=exc.code,
            reason=exc.reason,
            status=exc.status,
            body=exc.body,
            retry_after=exc.retry_after,
        )

    def hint(self, refusal: str, deadline: Deadline) -> str:
        """Look for the reason of a refusal in the pod's object.

        Args:
            refusal: its text.
            deadline: for the look; an explanation is worth a few seconds, not more.

        Returns:
            A sentence, or nothing.

        Threads: blocks.
        """
        try:
            pod = self.get(timeout=deadline.at_most(_HINT_TIMEOUT).remaining())
        except KubewsError:
            return ""  # may be what the refusal says, or no right to look: the refusal stands alone
        state = self._state(pod)
        containers = _names(_at(pod, "spec", "containers"))
        if self.container and "not valid" in refusal:
            return f"The pod has the containers {', '.join(containers)}"
        if not state:
            return ""
        over = _at(pod, "status", "phase") in _OVER
        return f"The pod {state}" + ("" if over else "; wait_ready=SECONDS waits for it")

    def _runs(self, pod: dict[str, Any]) -> bool:
        statuses = _container_statuses(pod)
        wanted = self.container or _at(pod, "metadata", "annotations", DEFAULT_CONTAINER)
        if wanted is None:
            wanted = next(iter(_names(_at(pod, "spec", "containers"))), None)
        return any(
            status.get("name") == wanted and _at(status, "state", "running") is not None
            for status in statuses
        )

    def _state(self, pod: dict[str, Any]) -> str:
        """Say in words why a container may not be there to run a command in."""
        phase = _at(pod, "status", "phase") or "Unknown"
        if phase in _OVER:
            return f"has ended (phase {phase}), so nothing can be run in it"
        parts = [
            f"{status.get('name')} is {_container_state(status)}"
            for status in _container_statuses(pod)
            if _at(status, "state", "running") is None
        ]
        if not parts and phase == "Running":
            return ""
        if not parts and _at(pod, "spec", "nodeName") is None:
            parts = ["no node has been chosen for it"]
        return f"is {phase}" + (f": {', '.join(parts)}" if parts else "")


def target_of(
    pod: Any, namespace: Optional[str], container: Optional[str], client: Optional[Client]
) -> Target:
    """Turn the ``pod=`` of the module-level functions into a target.

    Args:
        pod: a name, or a Pod.
        namespace: of the pod.
        container: in the pod.
        client: by default a new one.

    Raises:
        TypeError: a Pod was given together with what it already knows.
    """
    if isinstance(pod, Target):
        if namespace is not None or client is not None:
            raise TypeError("namespace= and client= go with the name of a pod, not with a Pod")
        if container is None or container == pod.container:
            return pod
        return type(pod)(pod.client, pod.name, namespace=pod.namespace, container=container)
    if not isinstance(pod, str):
        raise TypeError(f"pod must be the name of a pod or a Pod, not {type(pod).__name__}")
    return Target(client or Client(), pod, namespace=namespace, container=container)


def _at(document: Any, *path: str) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _names(entries: Any) -> list[str]:
    return [str(_at(entry, "name")) for entry in entries or []]


def _container_statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return [status for kind in kinds for status in _at(pod, "status", kind) or []]


def _container_state(status: dict[str, Any]) -> str:
    for state in ("waiting", "terminated"):
        detail = _at(status, "state", state)
        if detail is not None:
            reason = _at(detail, "reason") or "no reason given"
            code = _at(detail, "exitCode")
            return f"{state} ({reason}{'' if code is None else f', exit code {code}'})"
    return "not started"
