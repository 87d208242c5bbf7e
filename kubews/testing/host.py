"""What a LocalCluster consists of in the process that serves: CA, users, pods, server, files.

Threads: a ``Host`` may be used by any thread.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import ssl
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Optional

import trustme

from kubews.testing import owners
from kubews.testing.access import ADMIN, User, Users
from kubews.testing.apiserver import ApiServer
from kubews.testing.arguments import PodChange, PodSpec, ServiceSpec, WorkloadSpec, minor_of
from kubews.testing.connection import Request
from kubews.testing.faults import Faults
from kubews.testing.forks import check_owner
from kubews.testing.guard import MARK, Guard
from kubews.testing.pods import Pod, Pods


@dataclasses.dataclass(frozen=True)
class LocalPod:
    """A pod that was added: its names and its scratch directory (one sub-directory a container)."""

    name: str
    namespace: str
    uid: str
    directory: Path


@dataclasses.dataclass(frozen=True)
class Exec:
    """A command that runs in a container now."""

    namespace: str
    pod: str
    container: str
    command: tuple[str, ...]
    pid: int


@dataclasses.dataclass(frozen=True)
class Facts:
    """What does not change while a cluster is up. Keys stay out of the repr."""

    server: str
    kubeconfig: str
    ca_pem: bytes = dataclasses.field(repr=False)
    admin_cert_pem: bytes = dataclasses.field(repr=False)
    admin_key_pem: bytes = dataclasses.field(repr=False)


class Host:
    """Serve a cluster in this process. The methods are those of ``LocalCluster``.

    Threads: safe.
    """

    def __init__(self, *, version: str, status_metadata: bool) -> None:
        minor = minor_of(version)
        self._directory = Path(tempfile.mkdtemp(prefix=f"kubews-{os.getpid()}-"))  # mode 0700
        try:
            authority = trustme.CA(organization_name="kubews LocalCluster")
            server = authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default")
            admin = authority.issue_cert(
                f"{ADMIN}.localhost", common_name=ADMIN, organization_name="system:masters"
            )
            self._users = Users()
            self._users.add(User(ADMIN, frozenset({"system:masters"})))
            self._pods = Pods()
            self._server = ApiServer(
                server_context(authority, server),
                minor=minor,
                users=self._users,
                pods=self._pods,
                status_metadata=status_metadata,
            )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        # Also when nobody calls close(): processes would live on, and the directory holds a key.
        self._guard = Guard(self._directory)
        self._owner = os.getpid()
        self._dispose = weakref.finalize(
            self, _dispose, self._server, self._guard, self._directory, self._owner
        )
        self._lock = threading.RLock()  # guards the kubeconfig, the flag, and changes of pods
        self._closed = False
        self._closing = threading.RLock()
        self._facts = Facts(
            server=f"https://127.0.0.1:{self._server.port}",
            kubeconfig=str(self._directory / "kubeconfig"),
            ca_pem=authority.cert_pem.bytes(),
            admin_cert_pem=admin.cert_chain_pems[0].bytes(),
            admin_key_pem=admin.private_key_pem.bytes(),
        )
        self._write_kubeconfig()
        self._server.start()

    def facts(self) -> Facts:
        """Return address, kubeconfig and certificates."""
        return self._facts

    def _write_kubeconfig(self) -> None:
        """Replace the file in one step. The caller holds the lock, if there can be others."""
        path = Path(self._facts.kubeconfig)
        draft = path.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.kubeconfig_text())
        draft.replace(path)

    def kubeconfig_text(self, user: Optional[str] = None, namespace: str = "default") -> str:
        """Return a kubeconfig (JSON, which is YAML) whose current context is that of ``user``."""
        users = [each for each in self._users.all() if each.token or each.name == ADMIN]
        names = [each.name for each in users]
        if user is not None and user not in names:
            raise ValueError(f"there is no user {user!r}, only {names}; add_user() adds one")
        contexts = [
            {
                "name": each.name,
                "context": {"cluster": "local", "user": each.name, "namespace": namespace},
            }
            for each in users
        ]
        cluster = {
            "server": self._facts.server,
            "certificate-authority-data": _base64(self._facts.ca_pem),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": each.name, "user": self._credentials(each)} for each in users],
            "contexts": contexts,
            "current-context": user or ADMIN,
        }
        return json.dumps(config, indent=2) + "\n"

    def _credentials(self, user: User) -> dict[str, str]:
        if user.token is not None:
            return {"token": user.token}
        return {
            "client-certificate-data": _base64(self._facts.admin_cert_pem),
            "client-key-data": _base64(self._facts.admin_key_pem),
        }

    def add_user(self, user: User) -> None:
        """Add a user and write the kubeconfig anew."""
        check_owner(self._owner)
        with self._lock:
            if self._closed:
                raise ValueError("the cluster is closed")
            self._users.add(user)
            self._write_kubeconfig()

    def add_pod(self, spec: PodSpec) -> LocalPod:
        """Add a pod and start it."""
        check_owner(self._owner)
        pod = Pod(spec, self._directory / "pods", {MARK: self._guard.value})
        self._pods.add(pod)
        return LocalPod(pod.name, pod.namespace, pod.uid, pod.directory)

    def delete_pod(self, name: str, namespace: str) -> None:
        """Kill a pod and forget it."""
        check_owner(self._owner)
        if self._pods.remove(namespace, name) is None:
            raise KeyError(f"no pod {namespace}/{name}")

    def break_forwards(self) -> None:
        """End every port-forward as the end of the container runtime does."""
        self._server.break_forwards()

    def change_pod(self, name: str, namespace: str, change: PodChange) -> None:
        """Change what the API says of a pod."""
        pod = self._pod(name, namespace)
        with self._lock:
            pod.change = pod.change.then(change)

    def write_log(
        self, name: str, namespace: str, container: Optional[str], stream: str, data: bytes
    ) -> None:
        """Write into a container's log."""
        self._pod(name, namespace).choose(container).log.write(stream, data)

    def rotate_log(self, name: str, namespace: str, container: Optional[str]) -> None:
        """Rotate a container's log."""
        self._pod(name, namespace).choose(container).log.rotate()

    def restart_container(self, name: str, namespace: str, container: Optional[str]) -> None:
        """Start a container's command again."""
        self._pod(name, namespace).restart(container)

    def _pod(self, name: str, namespace: str) -> Pod:
        check_owner(self._owner)
        pod = self._pods.get(namespace, name)
        if pod is None:
            raise KeyError(f"no pod {namespace}/{name}")
        return pod

    def add_service(self, spec: ServiceSpec) -> None:
        """Add a Service."""
        check_owner(self._owner)
        self._server.owners.add(spec.kind, owners.service(spec))

    def add_workload(self, spec: WorkloadSpec) -> None:
        """Add a Deployment, Job and so on."""
        check_owner(self._owner)
        self._server.owners.add(spec.kind, owners.workload(spec))

    def set_faults(self, faults: Faults) -> None:
        """Set the faults of every connection from now on."""
        self._server.faults = faults

    def next_faults(self, *faults: Faults) -> None:
        """Queue faults, one a connection."""
        self._server.queue_faults(*faults)

    def requests(self) -> list[Request]:
        """Return the requests received."""
        return self._server.requests

    def connections(self) -> int:
        """Return the number of open connections."""
        return self._server.connections

    def execs(self) -> list[Exec]:
        """Return the commands that run."""
        return [
            Exec(pod.namespace, pod.name, container.name, process.argv, process.pid)
            for pod in self._pods.all()
            for container in pod.all_containers
            for process in container.execs
        ]

    def close(self) -> None:
        """Stop everything and remove the files. Idempotent; whoever comes later waits, too."""
        if os.getpid() != self._owner:
            return  # a fork: nothing here is its own, and a lock may be held for ever
        with self._lock:
            self._closed = True  # nobody writes a file after this
        with self._closing:
            self._dispose()


def _dispose(server: ApiServer, guard: Guard, directory: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)
    guard.release()


def server_context(authority: trustme.CA, certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return a TLS context that asks for a client certificate but does not insist.

    A certificate of another CA fails in the handshake, not with a 401 as on a real server: OpenSSL
    under Python cannot take one without checking it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    # HTTP/2 cannot carry the upgrade; a client that offers only h2 gets no agreement.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode("ascii")
