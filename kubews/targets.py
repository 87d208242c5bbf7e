"""Which pod and which container a command or a connection is for.

A name such as ``deploy/web`` stands for whichever of its pods is the best when something is opened, by
the order of kubectl; see ``choice``. What the choice is made of comes from the API server each time: a
handle that lives for hours keeps no pod that has died.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, TypeVar

from kubews import choice, documents, ports, refusals
from kubews.client import Client
from kubews.documents import Json, entries
from kubews.errors import (
    ApiError,
    BadRequest,
    ConnectTimeout,
    Forbidden,
    KubewsError,
    NotFound,
    NotReady,
    ServerError,
)
from kubews.protocol.requests import object_path, pod_path, pods_path
from kubews.transport.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_POLL = 0.2
_HINT_TIMEOUT = 5.0


class Resolved(NamedTuple):
    """The pod that a target stands for at one moment.

    Args:
        pod_name: the pod's name.
        document: the pod's object; empty if the pod itself was named, because then nothing is asked.
        owner: the object that was named; empty if it was the pod.

    Threads: a value.
    """

    pod_name: str
    document: Json = {}  # never changed
    owner: Json = {}

    def __repr__(self) -> str:
        return f"Resolved(pod_name={self.pod_name!r})"


class Target:
    """A pod, or what stands for one of several, and the container in it if one was named.

    Args:
        client: how to reach the cluster.
        name: ``web-0``, ``pod/web-0``, or ``deploy/web``, ``rs/``, ``sts/``, ``ds/``, ``rc/``, ``job/``
            or ``svc/``, also in the long forms that kubectl knows (``deployments.apps/web``).
        namespace: by default the one of the client's context.
        container: by default the server's choice if there is only one, else kubectl's.

    Raises:
        ConfigError: the name cannot be one of these.

    Threads: any.
    """

    #: What waits for a container that does not run yet, for messages.
    waits = "wait_ready=SECONDS waits for it"

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        namespace: Optional[str] = None,
        container: Optional[str] = None,
    ) -> None:
        self._kind, self.name = choice.parse(name)
        self.client = client
        self.namespace = namespace or client.config.namespace
        self.container = container
        self._chosen_for = ""  # "deploy/web", if this is the pod that was chosen for it

    def __repr__(self) -> str:
        container = f" container={self.container!r}" if self.container else ""
        kind = "" if self._kind is choice.POD else f"{self._kind.short}/"
        name = f"{self.namespace}/{kind}{self.name}"
        if self._chosen_for:
            name = f"{self._chosen_for} -> pod {name}"
        return f"<kubews.{type(self).__name__} {name}{container}>"

    @property
    def kind(self) -> str:
        """What was named: ``pod``, ``deployment``, ``service`` and so on."""
        return self._kind.singular

    @property
    def where(self) -> str:
        """The target in words, for messages."""
        kind = "pod" if self._kind is choice.POD else self._kind.short
        origin = f"{self._chosen_for} -> " if self._chosen_for else ""
        container = f", container {self.container}" if self.container else ""
        return f"{origin}{kind} {self.namespace}/{self.name}{container}"

    def get(self, timeout: Optional[float] = None) -> Json:
        """Read the object of the pod, or of the one that would be chosen now.

        Raises:
            NotFound: there is no such pod, or nothing of the name that should select one.
            NotReady: none of the pods that are selected runs.

        Threads: blocks.
        """
        if self._kind is not choice.POD:
            return self.resolve(Deadline(timeout)).document
        return self._read(pod_path(self.namespace, self.name), Deadline(timeout))

    # Which pod.

    def resolve(self, deadline: Deadline, *, running: bool = True) -> Resolved:
        """Find the pod that this stands for now. For a pod that is named itself nothing is asked.

        Args:
            deadline: for the questions; the client's ``connect_timeout`` holds too.
            running: as for ``pin``.

        Raises:
            NotFound: there is nothing of that name.
            NotReady: no pod is selected, or none runs; the message says what they do instead.
            ConfigError: it is a Service without a selector.
            Forbidden: the message names the verb and the resource that are missing.
            ConnectFailed: the server could not be asked.

        Threads: blocks.
        """
        if self._kind is choice.POD:
            return Resolved(self.name)
        self.client.authenticate(deadline)
        owner, selector, pods = self._candidates(deadline.at_most(self.client.connect_timeout))
        if pods and (not running or self._can_be_opened(pods[0])):
            return Resolved(documents.name_of(pods[0]), pods[0], owner)
        raise NotReady(refusals.candidates(self.where, selector, pods))

    def resolve_port(self, port: ports.Port, deadline: Deadline) -> tuple[str, int]:
        """Find the pod, and the number of its port, as ``kubectl port-forward`` does.

        A number for a pod that is named itself costs no question: a role with ``pods/portforward``
        alone will do.

        Args:
            port: a number, or the name of a container's port; for a Service number or name of one of
                its own ports.
            deadline: as for ``resolve``.

        Returns:
            The pod's name and the number.

        Raises:
            TypeError: the port is neither a number nor a str.
            ConfigError: there is no such port, or it is one of UDP; with kubectl's words.
            KubewsError: as for ``resolve``.

        Threads: blocks.
        """
        wanted = ports.parse(port)
        if self._kind is choice.POD:
            if isinstance(wanted, int):
                return self.name, wanted
            self.client.authenticate(deadline)
            remaining = deadline.at_most(self.client.connect_timeout).remaining()
            return self.name, ports.of_pod(self.get(remaining), wanted)
        resolved = self.resolve(deadline)
        if self._kind is choice.SERVICE:
            number = ports.of_service(resolved.owner, resolved.document, wanted)
        else:
            number = ports.of_pod(resolved.document, wanted)
        return resolved.pod_name, number

    def pin(self, deadline: Deadline = NEVER, *, running: bool = True) -> Self:
        """Return a handle of the one pod that this stands for now: itself, if a pod was named.

        Its container is chosen, too, because the pod's object has been read anyway.

        Args:
            deadline: as for ``resolve``.
            running: whether it must run; else one will do that has ended, or not begun.

        Raises:
            KubewsError: as for ``resolve``.

        Threads: blocks, unless a pod was named.
        """
        if self._kind is choice.POD:
            return self
        try:
            return self._pinned(self.resolve(deadline, running=running).document)
        except NotReady as exc:
            raise NotReady(f"{exc}; wait_ready=SECONDS waits for one") from None

    def pods(self, deadline: Deadline) -> list[tuple[Self, Json]]:
        """Return a handle and the object of each pod that this stands for now, the best first.

        Args:
            deadline: as for ``resolve``.

        Raises:
            NotReady: there is none.
            KubewsError: as for ``resolve``.

        Threads: blocks.
        """
        if self._kind is choice.POD:
            return [(self, self._read(pod_path(self.namespace, self.name), deadline))]
        _, selector, found = self._candidates(deadline)
        if not found:
            raise NotReady(refusals.candidates(self.where, selector, found))
        return [(self._selected(each, self.container), each) for each in found]

    def in_container(self, container: str) -> Self:
        """Return a handle of the same with another container."""
        return self._copy(self._kind, self.name, container, self._chosen_for)

    def _copy(
        self, kind: choice.Kind, name: str, container: Optional[str], chosen_for: str
    ) -> Self:
        copy = type(self)(self.client, name, namespace=self.namespace, container=container)
        copy._kind = kind
        copy._chosen_for = chosen_for
        return copy

    def _pinned(self, pod: Json) -> Self:
        return self._selected(pod, self.container or self.choose_container(pod))

    def _selected(self, pod: Json, container: Optional[str]) -> Self:
        name = documents.name_of(pod)
        return self._copy(choice.POD, name, container, f"{self._kind.short}/{self.name}")

    def _candidates(self, deadline: Deadline) -> tuple[Json, str, list[Json]]:
        """Return what was named, its selector, and its pods, the best first."""
        kind, namespace = self._kind, self.namespace
        path = object_path(namespace, kind.plural, self.name, group=kind.group)
        try:
            owner = self._read(path, deadline)
        except Forbidden as exc:
            why = "to see which pods it selects"
            hint = refusals.of_choice("get", kind.resource, namespace, why)
            raise refusals.with_hint(exc, hint) from None
        selector = choice.selector_of(kind, owner)
        try:
            found = self._read(pods_path(namespace, selector), deadline)
        except Forbidden as exc:
            hint = refusals.of_choice("list", "pods", namespace, "to choose one")
            raise refusals.with_hint(exc, hint) from None
        # What is in a list does not say what it is.
        pods = [{"kind": "Pod", "apiVersion": "v1", **pod} for pod in entries(found, "items")]
        return owner, selector, choice.best_first(pods)

    def _read(self, path: str, deadline: Deadline) -> Json:
        found = self.client.get(path, timeout=deadline.remaining())
        return found if isinstance(found, dict) else {}

    def _can_be_opened(self, pod: Json) -> bool:
        # kubectl opens what is Running, ready or not: who looks for the reason must get in. While an
        # init container runs the phase is Pending.
        if documents.is_over(pod):
            return False
        return documents.at(pod, "status", "phase") == "Running" or self._runs(pod)

    def _runs(self, pod: Json) -> bool:
        return documents.runs(pod, self.container or documents.default_container(pod))

    # When.

    def wait_ready(self, timeout: Optional[float]) -> Self:
        """Wait until the container runs; neither pod nor what selects it need exist yet.

        Args:
            timeout: seconds, None for ever.

        Returns:
            A handle of the pod in which it runs, as of ``pin``.

        Raises:
            NotReady: it does not run in time, or has ended; the message says what it does instead.

        Threads: blocks.
        """
        deadline = Deadline(timeout)
        state = f"{self.where} may or may not be there: the server has not told"
        while True:
            remaining = deadline.remaining()
            try:
                pods, state = self._look(Deadline(_POLL) if remaining == 0 else deadline)
            except NotFound:
                state = f"{self.where} does not exist"
            except ConnectTimeout:
                if not deadline.expired():
                    raise
            else:
                if pods and self._runs(pods[0]):
                    return self if self._kind is choice.POD else self._pinned(pods[0])
                # Another pod may come for one that was selected.
                if self._kind is choice.POD and documents.is_over(pods[0]):
                    raise NotReady(state)
            if deadline.expired():
                raise NotReady(f"{state}, after {timeout} s")
            remaining = deadline.remaining()
            time.sleep(_POLL if remaining is None else min(_POLL, remaining))

    def _look(self, deadline: Deadline) -> tuple[list[Json], str]:
        """Return the pods, the best first, and in words what they do."""
        if self._kind is not choice.POD:
            _, selector, pods = self._candidates(deadline)
            return pods, refusals.candidates(self.where, selector, pods)
        pod = self.get(deadline.remaining())
        return [pod], f"{self.where} {documents.state(pod)}"

    # Which container, and what a refusal means.

    def with_container(
        self, action: Callable[[], T], deadline: Deadline, *, resource: str = "pods/exec"
    ) -> T:
        """Run an action; if the server asks for a container, choose kubectl's and run it once more.

        The choice is remembered here. There is no question beforehand, so one round trip is enough
        for most pods, and a role that may do no more than exec works.

        Args:
            action: opens something in the container that is named by then.
            deadline: for the questions that are asked here; the action has its own.
            resource: what a right is needed for.

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
            explained = self.explain(exc, deadline, resource=resource)
            if explained is exc:
                raise
            raise explained from None  # it has everything that the first one had

    def _default_container(self, asked: BadRequest, deadline: Deadline) -> str:
        try:
            pod = self.get(timeout=deadline.remaining())
        except ApiError:
            raise asked from None  # it lists the containers, which is all one needs to know
        return self.choose_container(pod)

    def choose_container(self, pod: Json) -> str:
        """Choose a container where none was named; a subclass may choose in another way, or say it.

        Args:
            pod: its object.

        Threads: any; called where something is opened, before it is.
        """
        return documents.default_container(pod)

    def explain(
        self, exc: ApiError, deadline: Deadline, *, resource: str = "pods/exec"
    ) -> ApiError:
        """Return a refusal with what a person can do about it in the message, if anything is known.

        Args:
            exc: the refusal.
            deadline: for a look at the pod.
            resource: what was asked for.

        Threads: blocks.
        """
        hint = ""
        if isinstance(exc, Forbidden):
            end = deadline.at_most(_HINT_TIMEOUT)
            missing = refusals.missing_verbs(self.client, resource, self.namespace, end)
            hint = refusals.of_stream(exc, resource, self.namespace, missing)
        elif isinstance(exc, (BadRequest, ServerError, NotFound)):
            hint = self.hint(str(exc), deadline, resource=resource)
        return refusals.with_hint(exc, hint) if hint else exc

    def hint(self, refusal: str, deadline: Deadline, *, resource: str = "pods/exec") -> str:
        """Look for the reason of a refusal in the pod's object.

        Args:
            refusal: its text.
            deadline: for the look; an explanation is worth a few seconds, not more.
            resource: what was asked for.

        Returns:
            A sentence, or nothing.

        Threads: blocks.
        """
        try:
            pod = self.get(timeout=deadline.at_most(_HINT_TIMEOUT).remaining())
        except KubewsError:
            return ""  # may be what the refusal says, or no right to look: the refusal stands alone
        return refusals.in_pod(refusal, pod, self.container, resource, self.waits)


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
        return pod.in_container(container)
    if not isinstance(pod, str):
        raise TypeError(f"pod must be the name of a pod or a Pod, not {type(pod).__name__}")
    return Target(client or Client(), pod, namespace=namespace, container=container)
