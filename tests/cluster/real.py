"""A namespace of one's own in any real cluster, with the methods of LocalCluster that tests use."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from kubews import Client, Config, Forbidden, NotFound
from kubews.testing import owners
from kubews.testing.arguments import ServiceSpec, WorkloadSpec

from . import accounts, users
from .errors import ClusterError
from .images import BUSYBOX
from .kubeconfigs import with_namespace
from .manifests import PodSpec

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_NAMESPACES = "/api/v1/namespaces"


class RealCluster:
    """Pods and users in a namespace that is made here and removed by ``close``.

    ``kubeconfig`` is a file of its own whose contexts have the namespace set, so that it does for
    kubectl and for programs that take a context. ``namespace``, ``version`` (such as ``1.36``) and
    ``context`` say where one is.

    Args:
        kubeconfig: a kubeconfig.
        context: one of its contexts, whose user may make namespaces, pods, roles and accounts.
        node: the node that pods go to, if no scheduler runs there (in a cluster of ours
            ``layout.NODE``); then images are never fetched and removed namespaces are finalised.
        image: of containers, with ``sh``, ``cat``, ``sleep`` and the like.

    Threads: one at a time; everything blocks.
    """

    def __init__(
        self,
        kubeconfig: str | Path,
        context: Optional[str] = None,
        *,
        node: Optional[str] = None,
        image: str = BUSYBOX,
    ) -> None:
        self.namespace = f"kubews-{secrets.token_hex(4)}"
        self.node, self.image = node, image
        self._document = with_namespace(Path(kubeconfig), self.namespace, context)
        self.context: str = self._document["current-context"]
        # What has been made so far is removed when something fails, here or in the removing itself.
        with contextlib.ExitStack() as made:
            folder = made.enter_context(tempfile.TemporaryDirectory(prefix="kubews-real-"))
            self.kubeconfig = str(Path(folder, "kubeconfig"))
            self._write()
            self._admin = made.enter_context(self.client())
            answer = self._admin.get("/version")
            self.version = f"{answer['major']}.{answer['minor'].rstrip('+')}"
            self._send("POST", _NAMESPACES, {"metadata": {"name": self.namespace}})
            self._remove_later(made)
            if node is not None:
                users.bind_users(self._admin, self.namespace)
                self._publish_authority()
            self._made = made.pop_all()

    def __repr__(self) -> str:
        return f"<RealCluster {self.version} {self.context}, namespace {self.namespace}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the namespace with all that is in it; do not wait for the pods' processes."""
        self._made.close()

    def _remove_later(self, made: contextlib.ExitStack) -> None:
        """Have the namespace removed; what is said first is done last."""
        path = self._path
        if self.node is not None:
            # The controller that does this does not run in a cluster of ours.
            body = {"metadata": {"name": self.namespace}, "spec": {"finalizers": []}}
            made.callback(self._send, "PUT", f"{path}/finalize", body)
        made.callback(self._send, "DELETE", path)
        made.callback(self._send, "DELETE", f"{path}/pods?gracePeriodSeconds=0")

    def _publish_authority(self) -> None:
        """Make what a pod with an account mounts; its controller does not run in a cluster of ours."""
        authority = Config.load(self.kubeconfig).cluster.ca_pem()
        document = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority}}
        self._send("POST", f"{self._path}/configmaps", document)

    def client(self, context: Optional[str] = None) -> Client:
        """Return a client in the namespace, as the admin or as a user of ``add_user``."""
        return Client(Config.load(self.kubeconfig, context=context))

    # Pods.

    def add_pod(
        self,
        name: str,
        containers: Mapping[str, Optional[Sequence[str]]],
        *,
        image: Optional[str] = None,
        ephemeral_containers: Optional[Mapping[str, Optional[Sequence[str]]]] = None,
        timeout: float = 60.0,
        **options: Any,
    ) -> None:
        """Add a pod and wait until it is as it shall be.

        Args:
            name: the pod's name.
            containers: command by container name; None for one that idles.
            image: instead of the cluster's.
            ephemeral_containers: like ``containers``, added to it when it runs.
            timeout: seconds to wait; 0 does not wait.
            options: the other fields of ``PodSpec``: ``state``, ``ports``, ``labels``,
                ``annotations``, ``env``, ``images``, ``stdin``, ``stdin_once``, ``tty``, ``restart_policy``,
                ``init_containers``, ``account``.

        Raises:
            ApiError: the server refused it.
            ClusterError: it did not come to that in time.
        """
        spec = PodSpec(name, containers, image or self.image, node=self.node, **options)
        self.create(spec.document())
        if timeout:
            self.wait(name, spec.state, timeout)
        if ephemeral_containers:
            added = [spec.container(key, value) for key, value in ephemeral_containers.items()]
            self._send(
                "PATCH",
                f"{self._path}/pods/{name}/ephemeralcontainers",
                {"spec": {"ephemeralContainers": added}},
            )
            self.wait(name, spec.state, timeout)

    def create(self, document: dict[str, Any], *, timeout: float = 10.0) -> None:
        """Create an object of any description in the namespace.

        Raises:
            ApiError: the server refused it.
        """
        group = document["apiVersion"].rpartition("/")[0]
        path = f"/apis/{group}/v1{self._path[len('/api/v1') :]}" if group else self._path
        path += f"/{document['kind'].lower()}s"
        end = time.monotonic() + timeout
        while True:
            try:
                self._send("POST", path, document)
                if document["kind"] != "Pod":  # they go together, and by force
                    gone = f"{path}/{document['metadata']['name']}?propagationPolicy=Background"
                    self._made.callback(self._send, "DELETE", gone)
                return
            except Forbidden as exc:
                # The account `default` comes a moment after its namespace.
                if "serviceaccount" not in str(exc) or time.monotonic() > end:
                    raise
            time.sleep(0.1)

    # What selects pods, with the arguments of LocalCluster.

    def add_service(self, name: str, **options: Any) -> None:
        """Add a Service; see ``LocalCluster.add_service``.

        Raises:
            ApiError: the server refused it.
        """
        self.create(self._here(owners.service(ServiceSpec(name, **options))))

    def add_workload(self, target: str, **options: Any) -> None:
        """Add a workload that asks for no pod; see ``LocalCluster.add_workload``.

        Raises:
            ApiError: the server refused it.
            ClusterError: its controller would take the pods that it selects, and end them.
        """
        spec = WorkloadSpec(target, **options)
        if self.node is None and spec.kind.kind not in ("Deployment", "StatefulSet"):
            raise ClusterError(f"the controller of {target} would end the pods that it selects")
        self.create(self._here(owners.workload(spec)))

    def _here(self, document: dict[str, Any]) -> dict[str, Any]:
        document["metadata"]["namespace"] = self.namespace
        return document

    def get_pod(self, name: str) -> dict[str, Any]:
        """Return a pod's document.

        Raises:
            NotFound: there is none.
        """
        document: dict[str, Any] = self._admin.get(f"{self._path}/pods/{name}")
        return document

    def wait(self, name: str, state: str = "running", timeout: float = 60.0) -> dict[str, Any]:
        """Wait until a pod is ``running``, ``waiting``, ``unscheduled`` or ``completed``.

        Returns:
            Its document.

        Raises:
            ClusterError: it did not come to that in time.
        """
        end = time.monotonic() + timeout
        while True:
            pod = self.get_pod(name)
            if _state(pod) == state:
                return pod
            if time.monotonic() > end:
                raise ClusterError(
                    f"pod {name} is not {state} after {timeout:.0f} s: {json.dumps(pod['status'])}"
                )
            time.sleep(0.05)

    def delete_pod(self, name: str, *, grace: int = 0) -> None:
        """Delete a pod; by force, as ``kubectl delete --force`` does, unless it is given time.

        Its name is free when this returns if ``grace`` is 0; its processes end a little later.

        Raises:
            NotFound: there is none.
        """
        self._send("DELETE", f"{self._path}/pods/{name}?gracePeriodSeconds={grace}")

    def wait_gone(self, name: str, timeout: float = 60.0) -> None:
        """Wait until a pod is not there any more.

        Raises:
            ClusterError: it still is.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                self.get_pod(name)
            except NotFound:
                return
            if time.monotonic() > end:
                raise ClusterError(f"pod {name} is still there after {timeout:.0f} s")
            time.sleep(0.05)

    # Users.

    def add_user(self, name: str, *, verbs: Mapping[str, Sequence[str]] = {}) -> str:
        """Add a user with a token and a context of its name in the kubeconfig.

        Args:
            name: the user's name: that of a service account in the namespace.
            verbs: what it may do there: ``{"pods/exec": ["get", "create"], "pods": ["get"]}``.

        Returns:
            The token, good for an hour at least.

        Raises:
            ValueError: the kubeconfig has a user or a context of that name.
        """
        if any(
            one["name"] == name for kind in ("users", "contexts") for one in self._document[kind]
        ):
            raise ValueError(f"there is a user or a context {name!r} already")
        token = accounts.create(self._admin, self.namespace, name, verbs)
        chosen = next(
            each["context"] for each in self._document["contexts"] if each["name"] == self.context
        )
        context = {"cluster": chosen["cluster"], "user": name, "namespace": self.namespace}
        self._document["users"].append({"name": name, "user": {"token": token}})
        self._document["contexts"].append({"name": name, "context": context})
        self._write()
        return token

    @property
    def _path(self) -> str:
        return f"{_NAMESPACES}/{self.namespace}"

    def _write(self) -> None:
        Path(self.kubeconfig).write_text(json.dumps(self._document))

    def _send(self, method: str, path: str, body: Optional[dict[str, Any]] = None) -> None:
        send(self._admin, method, path, body)


def send(client: Client, method: str, path: str, body: Optional[dict[str, Any]] = None) -> Any:
    """Send a document; return the answer's.

    Raises:
        ApiError: the server refused.
    """
    kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
    data = None if body is None else json.dumps(body).encode()
    return client.request(method, path, body=data, headers={"Content-Type": kind}).json()


def _state(pod: dict[str, Any]) -> str:
    status = pod["status"]
    if status["phase"] == "Succeeded":
        return "completed"
    everything = [
        *status.get("containerStatuses", []),
        *status.get("ephemeralContainerStatuses", []),
    ]
    asked = [*pod["spec"]["containers"], *pod["spec"].get("ephemeralContainers", [])]
    if len(everything) == len(asked) and all("running" in one["state"] for one in everything):
        return "running"
    if any("waiting" in one["state"] for one in everything):
        return "waiting"
    return "unscheduled" if not pod["spec"].get("nodeName") else status["phase"]
