"""LocalCluster: a Kubernetes API server on 127.0.0.1 whose pods are local processes.

Threads: a ``LocalCluster`` may be used by any thread.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews.testing.arguments import (
    PodChange,
    PodSpec,
    PodState,
    ServicePort,
    ServicePorts,
    ServiceSpec,
    Verbs,
    WorkloadSpec,
    minor_of,
    new_user,
)
from kubews.testing.connection import Request
from kubews.testing.controls import Controls
from kubews.testing.faults import NO_FAULTS, Faults
from kubews.testing.host import Exec, Host, LocalPod
from kubews.testing.interactive import Interactive
from kubews.testing.remote import RemoteHost

if TYPE_CHECKING:
    from typing_extensions import Self

    from kubews import Client

__all__ = ["Exec", "Faults", "LocalCluster", "LocalPod", "Request", "ServicePort"]

_DEFAULT_POD: Mapping[str, Optional[Sequence[str]]] = {"app": None}


class LocalCluster(Controls):
    """Serve the part of the Kubernetes API that kubews needs, answering as a real cluster does.

    It listens on a port of 127.0.0.1 that the kernel picks, speaks https with a CA of its own, and
    starts a container's command, and every command executed in it, as a real process.

    **It is no sandbox.** Processes run as the user that started it, with the files, ports and
    network of this machine; a container is a directory to start in, not to be locked in. Absolute
    paths are those of the host. Execute nothing in it that you would not execute in a terminal.
    What leaves its session *and* its environment (``env -i setsid sleep 1000``) is no longer
    known, and survives its pod and the cluster.

    kubectl needs a version of 1.30 or later, of 1.31 for port-forward: for older ones it speaks SPDY
    without a WebSocket around it, which this does not.

    Args:
        version: the Kubernetes version to be, ``"1.27"`` or later. It picks the generation: v5,
            which can end stdin, from 1.30; the check of ``create`` besides ``get`` from 1.35;
            failures before the upgrade rather than after it (for v5) from 1.36.
        process: serve in a process of its own, which ends with this one, whatever ends it.
        status_metadata: whether the container runtime writes ``"metadata":{}`` into the Status of
            v4. The ones built with the libraries of 1.36 do not; and they reset the streams of a
            forwarded connection that has failed, after the text that says why.

    Raises:
        TypeError: the version is no str (as a number 1.30 would be 1.3).
        ValueError: for a version that is none.

    Threads: safe.
    """

    def __init__(
        self, version: str = "1.36", *, process: bool = False, status_metadata: bool = True
    ) -> None:
        minor_of(version)
        options = {"version": version, "status_metadata": status_metadata}
        self._host: Union[Host, RemoteHost] = (
            RemoteHost(**options) if process else Host(**options)  # type: ignore[arg-type]
        )
        facts = self._host.facts()
        self.version = version
        self.server = facts.server
        self.kubeconfig = facts.kubeconfig
        self.ca_pem = facts.ca_pem
        self.admin_cert_pem = facts.admin_cert_pem
        self.admin_key_pem = facts.admin_key_pem
        self._faults = NO_FAULTS

    def __repr__(self) -> str:
        return f"<LocalCluster {self.version} at {self.server}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process, end every connection, join every thread, remove every file.

        Idempotent; of several threads all wait until it is done. In a fork it does nothing.

        Threads: any; blocks for about ten seconds at most.
        """
        self._host.close()

    # What is there.

    def add_pod(
        self,
        name: str,
        containers: Mapping[str, Optional[Sequence[str]]] = _DEFAULT_POD,
        *,
        namespace: str = "default",
        ports: Optional[Mapping[str, int]] = None,
        listens: Optional[Mapping[int, Optional[int]]] = None,
        labels: Optional[Mapping[str, str]] = None,
        annotations: Optional[Mapping[str, str]] = None,
        env: Optional[Mapping[str, str]] = None,
        state: PodState = "running",
        init_containers: Sequence[str] = (),
        ephemeral_containers: Optional[Mapping[str, Optional[Sequence[str]]]] = None,
        stdin: bool = False,
        stdin_once: bool = False,
        tty: bool = False,
    ) -> LocalPod:
        """Add a pod and start its containers.

        Args:
            name: the pod's name.
            containers: command by container name; None for one without, which runs until deleted.
            namespace: its namespace, which exists as long as it has pods (``default`` always does).
            ports: port number by name, for the first container's spec.
            listens: where the pod's ports really are: port of this machine (127.0.0.1, then ::1) by
                port of the pod, ``{80: 34567}``; None for one that nothing listens on. A port that
                is not mentioned is the one of the same number.
            labels: its labels.
            annotations: its annotations, such as ``kubectl.kubernetes.io/default-container``.
            env: variables for its processes, besides this process's own and HOSTNAME.
            state: ``"running"``; ``"waiting"`` (ContainerCreating), ``"unscheduled"`` (no node) or
                ``"completed"`` for a pod that has no process.
            init_containers: names of containers that have completed.
            ephemeral_containers: like ``containers``.
            stdin: whether the first container's command has an input, for attach.
            stdin_once: whether the end of an attachment is that of this input.
            tty: whether that command has a terminal.

        Returns:
            Its names and its scratch directory; a container's processes start in the sub-directory
            of its name.

        Raises:
            TypeError: an argument is of another type.
            ValueError: there is one of that name, an argument cannot be, or the cluster is closed.
            OSError: a command could not be started.

        Threads: safe.
        """
        spec = PodSpec(
            name, namespace, containers, init_containers,
            {} if ephemeral_containers is None else ephemeral_containers, state,
            ports={} if ports is None else ports, listens={} if listens is None else listens,
            labels={} if labels is None else labels, env={} if env is None else env,
            annotations={} if annotations is None else annotations,
            interactive=Interactive(stdin, stdin_once, tty),
        )  # fmt: skip
        return self._host.add_pod(spec)

    def delete_pod(self, name: str, namespace: str = "default") -> None:
        """Kill a pod's processes (exit code 137) and forget it.

        Raises:
            KeyError: there is none.

        Threads: safe; blocks until its processes are killed.
        """
        self._host.delete_pod(name, namespace)

    def change_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        phase: Optional[str] = None,
        ready: Optional[bool] = None,
        ready_since: Optional[str] = None,
        restarts: Optional[int] = None,
        created: Optional[str] = None,
        deleting: Optional[str] = None,
    ) -> None:
        """Change what the API says of a pod, by which clients choose one of several.

        Its processes go on. What is None stays. Times are as ``"2026-01-31T12:00:00Z"``.

        Args:
            name: the pod's name, and
            namespace: its namespace.
            phase: such as ``Pending``.
            ready: whether it is ready, as a probe would tell, and
            ready_since: since when.
            restarts: of its first container.
            created: when it was made.
            deleting: when it will be gone, of a pod that ends.

        Raises:
            TypeError, ValueError: an argument cannot be.
            KeyError: there is no such pod.

        Threads: safe.
        """
        self._host.change_pod(
            name, namespace, PodChange(phase, ready, ready_since, restarts, created, deleting)
        )

    def add_service(
        self,
        name: str,
        *,
        selector: Optional[Mapping[str, str]] = None,
        ports: ServicePorts = (),
        namespace: str = "default",
        headless: bool = False,
        external_name: str = "",
    ) -> None:
        """Add a Service, for ``svc/NAME``. It is an object to be read: nothing listens at its address.

        Args:
            name: the Service's.
            selector: the labels of its pods; none for one that selects no pods.
            ports: ``{80: "http", 443: 8443}``: the pod's port, by name or number, by the Service's own;
                or a ``ServicePort`` each, which can have a name and another protocol.
            namespace: its namespace.
            headless: whether it has no address of its own.
            external_name: makes it one of type ExternalName.

        Raises:
            TypeError, ValueError: an argument cannot be, or there is one of that name.

        Threads: safe.
        """
        self._host.add_service(
            ServiceSpec(name, namespace, selector or {}, ports, headless, external_name)
        )

    def add_workload(
        self,
        target: str,
        *,
        selector: Optional[Mapping[str, str]] = None,
        expressions: Iterable[Mapping[str, Any]] = (),
        namespace: str = "default",
    ) -> None:
        """Add a Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or ReplicationController.

        It is an object to be read, which selects pods that were added: it makes none, ends none and
        replaces none.

        Args:
            target: kind and name, ``deploy/web``; ``rs/``, ``sts/``, ``ds/``, ``job/``, ``rc/``.
            selector: the labels of its pods.
            expressions: ``matchExpressions`` besides, as
                ``[{"key": "tier", "operator": "In", "values": ["web"]}]``.
            namespace: its namespace.

        Raises:
            TypeError, ValueError: an argument cannot be, or there is one of that kind and name.

        Threads: safe.
        """
        self._host.add_workload(WorkloadSpec(target, namespace, selector or {}, expressions))

    def add_user(
        self,
        name: str,
        *,
        token: Optional[str] = None,
        verbs: Verbs = (),
        groups: Iterable[str] = (),
    ) -> str:
        """Add a user with a bearer token and a context of its name in the kubeconfig.

        Args:
            name: the user's name, also for ``Impersonate-User`` by the admin.
            token: its bearer token; random by default.
            verbs: what it may do: ``{"pods/exec": ["get", "create"], "deployments.apps": ["get"]}``,
                with ``"*"`` for any; bare verbs (``{"get"}``) are meant for ``pods/exec``.
                Default: nothing.
            groups: its groups; ``system:masters`` may do everything.

        Returns:
            The token.

        Raises:
            TypeError: an argument is of another type; a str is no collection of verbs or groups.
            ValueError: the name is the admin's, another user has the token, it cannot stand in a
                header, or the cluster is closed.

        Threads: safe.
        """
        token = secrets.token_urlsafe(24) if token is None else token
        self._host.add_user(new_user(name, token, verbs, groups))
        return token

    def kubeconfig_text(self, user: Optional[str] = None, namespace: str = "default") -> str:
        """Return the kubeconfig with another current context or namespace. It holds credentials.

        Raises:
            ValueError: there is no such user.

        Threads: safe.
        """
        return self._host.kubeconfig_text(user, namespace)

    def client(self, context: Optional[str] = None) -> Client:
        """Return a ``kubews.Client`` for this cluster, as the admin or as the user named.

        Threads: safe.
        """
        import kubews

        config = kubews.Config.load(self.kubeconfig, context=context)
        return kubews.Client(config)

    # What goes wrong.

    @property
    def faults(self) -> Faults:
        """The faults of every connection accepted from now on."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._host.set_faults(_checked(faults))
        self._faults = faults

    def next_faults(self, *faults: Faults) -> None:
        """Set the faults of the next connections, one each; ``faults`` applies again after them.

        One without ``match`` is used up by the next connection that is accepted, whatever it asks
        for; one with ``match`` by the first connection with a request that it matches.

        Raises:
            TypeError: an argument is no ``Faults``.

        Threads: safe.
        """
        self._host.next_faults(*map(_checked, faults))

    def break_forwards(self) -> None:
        """End every port-forward where a real cluster's container runtime carries it, as its restart does.

        Of a legacy connection the client sees the end, without a Close frame. Of a tunnel it does not:
        the API server that has lost what is behind it goes on answering WebSocket pings, and closes only
        when the client sends something (the releases from 1.30 on). What is asked for later is served.

        Threads: safe.
        """
        self._host.break_forwards()

    # What happened.

    @property
    def requests(self) -> list[Request]:
        """The requests received, oldest first (the last ten thousand)."""
        return self._host.requests()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._host.connections()

    @property
    def execs(self) -> list[Exec]:
        """The commands that run in containers now, whether or not a client is connected."""
        return self._host.execs()

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Wait until no connection is open.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: some still are.

        Threads: any; blocks.
        """
        end = time.monotonic() + timeout
        while (open_now := self.connections) > 0:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{open_now} connections are still open after {timeout} s; running: {self.execs}"
                )
            time.sleep(0.005)


def _checked(faults: Faults) -> Faults:
    if not isinstance(faults, Faults):
        raise TypeError(f"faults must be a Faults(), not {faults!r}")
    return faults
