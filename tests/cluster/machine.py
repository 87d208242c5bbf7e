"""One version's cluster on this machine: bring it up, take it down, break it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kubews import Client, Config

from . import binaries, certificates, configs, host, images, packages, users
from .commands import run
from .daemons import Daemon, kill_all, marked
from .errors import ClusterError, say
from .layout import DEFAULT_VERSION, NODE, STATE, Layout, cache
from .locking import locked

_NODE_PATH = f"/api/v1/nodes/{NODE}"


class Cluster:
    """A cluster of ours: an etcd, kube-apiserver, containerd and kubelet each.

    ``apiserver``, ``kubelet``, ``containerd`` and ``etcd`` are daemons with ``kill()``, ``stop()``,
    ``start()`` (which waits until it is of use again), ``pid`` and ``log``.

    Args:
        version: such as ``1.36``.

    Threads: one at a time.
    """

    def __init__(self, version: str = DEFAULT_VERSION) -> None:
        self.layout = layout = Layout(version)
        self.version = version
        self.kubeconfig = layout.kubeconfig
        self.logs = layout.logs
        self._mounts = Daemon(layout, "mounts", _mounts(layout), self._mounted)
        self.etcd = Daemon(layout, "etcd", configs.etcd(layout), self._etcd_answers)
        self.containerd = self._daemon(
            "containerd", configs.containerd(layout, binaries.shims_home()), self._connects
        )
        programs = binaries.home(layout)
        argv = configs.apiserver(layout, programs / "kube-apiserver")
        self.apiserver = Daemon(layout, "kube-apiserver", argv, self._apiserver_answers)
        self.kubelet = self._daemon(
            "kubelet", configs.kubelet(layout, programs / "kubelet"), self._node_ready
        )

    def _daemon(self, name: str, argv: list[str], ready: Callable[[], bool]) -> Daemon:
        return Daemon(self.layout, name, argv, ready, inside=self._inside)

    def __repr__(self) -> str:
        return f"<Cluster {self.version}: {self.state()}>"

    def client(self, context: str = "admin", namespace: str = "default") -> Client:
        """Return a client as one of the users: admin, token, nobody, getonly, createonly."""
        return Client(Config.load(self.kubeconfig, context, namespace))

    def state(self) -> str:
        """Return ``up``, ``down``, or what of it does not run."""
        if not self.layout.root.exists():
            return "down"
        missing = [daemon.name for daemon in self.daemons() if daemon.pid is None]
        if not missing and (self.layout.root / "ready").exists():
            return "up"
        return f"broken: {', '.join(missing) or 'its start'} did not finish or ended"

    def daemons(self) -> list[Daemon]:
        """Return all of them, in the order of their start."""
        return [self._mounts, self.etcd, self.containerd, self.apiserver, self.kubelet]

    # Up and down. The caller holds the lock.

    def start(self) -> None:
        """Start everything from nothing."""
        archives = images.archives()
        binaries.shims()
        self._check_ports()
        STATE.mkdir(exist_ok=True)
        host.remember()
        for folder in (self.layout.logs, self.layout.etc, self.layout.pids):
            folder.mkdir(parents=True)
        self.layout.etc.chmod(0o700)
        certificates.make_certificates(self.layout.etc)
        users.write_users(self.layout)
        configs.write_configs(self.layout)
        host.make_cgroups(self.layout)
        self._mounts.start()
        self.etcd.start()
        self.apiserver.launch()
        with ThreadPoolExecutor(1) as pool:
            # While the API server starts, which takes the longest.
            importing = pool.submit(self._import, archives)
            self.apiserver.wait_ready()
            with self.client() as client:
                users.create_roles(client)
            importing.result()
        self.kubelet.start()
        self._try_a_pod()
        (self.layout.root / "ready").touch()

    def stop(self) -> None:
        """Stop everything and leave nothing; also what a start or a crash has left half done."""
        layout = self.layout
        if layout.root.exists():
            say(f"stopping the cluster {self.version}")
            layout.pids.mkdir(exist_ok=True)
            # Killed, not asked to end: nothing of what they would put in order is kept.
            self.kubelet.kill()
            host.kill_containers(layout)
            for daemon in (self.containerd, self.apiserver, self.etcd):
                daemon.kill()
        # The shims of containerd, and the process that holds the mounts.
        kill_all(lambda: marked(layout), "processes of the cluster")
        host.remove_cgroups(layout)
        host.remove_bridge(layout)
        if layout.root.exists():
            host.remove_tree(layout)
        host.restore()

    def _check_ports(self) -> None:
        for port in self.layout.ports():
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError as exc:
                    raise ClusterError(f"port {port} is taken: {exc.strerror}") from exc

    def _import(self, archives: list[Path]) -> None:
        self.containerd.start()
        ctr = ["ctr", f"--address={self.layout.socket}", "-n", "k8s.io"]
        for archive in archives:
            run(
                f"importing {archive.name}",
                [*ctr, "images", "import", str(archive)],
                self.layout.logs / "images.log",
                timeout=120,
            )

    def _try_a_pod(self) -> None:
        from .real import RealCluster

        with RealCluster(self.kubeconfig, "admin", node=NODE) as cluster:
            cluster.add_pod("first", {"main": None}, timeout=60)

    # How each tells that it is ready.

    def _inside(self) -> int:
        pid = self._mounts.pid or self.containerd.pid or self.kubelet.pid
        if pid is None:
            raise ClusterError(f"the cluster {self.version} is not up")
        return pid

    def _mounted(self) -> bool:
        return (self.layout.root / "mounted").exists()

    def _etcd_answers(self) -> bool:
        return b"true" in _get(f"http://127.0.0.1:{self.layout.etcd_port}/health")

    def _connects(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2)
            sock.connect(str(self.layout.socket))
        if self.kubelet.pid is not None:
            # The part that the kubelet talks with is ready later, and so only known to it.
            self._ask_kubelet("/runningpods/")
        return True

    def _apiserver_answers(self) -> bool:
        with self.client() as client:
            return client.request("GET", "/readyz", timeout=5).code == 200

    def _node_ready(self) -> bool:
        _get(f"http://127.0.0.1:{self.layout.kubelet_health_port}/healthz")
        with self.client() as client:
            status = client.get(_NODE_PATH, timeout=5)["status"]
            states = {item["type"]: item["status"] for item in status["conditions"]}
            return states.get("Ready") == "True" and self._knows_its_pods(client)

    def _knows_its_pods(self, client: Client) -> bool:
        # After a restart the kubelet refuses execs in pods that it has not heard of yet.
        bound = client.get(f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}", timeout=5)
        known = json.loads(self._ask_kubelet("/pods"))
        return len(known["items"] or []) >= len(bound["items"])

    def _ask_kubelet(self, path: str) -> bytes:
        # Directly: the API server forwards no request to a node on loopback, only streams.
        etc = self.layout.etc
        context = ssl.create_default_context(cafile=str(etc / "ca.crt"))
        context.load_cert_chain(etc / "admin.crt", etc / "admin.key")
        return _get(f"https://127.0.0.1:{self.layout.kubelet_port}{path}", context)


def _get(url: str, context: ssl.SSLContext | None = None) -> bytes:
    # Never by a proxy of the environment.
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    with urllib.request.build_opener(*handlers).open(url, timeout=2) as answer:
        return bytes(answer.read())


def _mounts(layout: Layout) -> list[str]:
    """Return the command of the process that holds the cluster's mount namespace.

    Every mount that a container needs is made in there, so all of them end with the processes.
    """
    script = ["set -e"]
    for name in host.SHADOWED:
        instead = f"{layout.overlay}{name}"
        script += [f"mkdir -p {instead}", f"mount --bind {instead} {name}"]
    script += [f"touch {layout.root}/mounted", "exec sleep infinity"]
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(script)]


def up(version: str = DEFAULT_VERSION) -> Cluster:
    """Bring a cluster up, or find that it is.

    Args:
        version: one of ``layout.versions()``.

    Raises:
        ClusterError: it cannot be had; what was started is stopped again, the logs are kept in the
            cache.

    Threads: blocks: seconds, or minutes as long as programs and images are not in the cache.
    """
    cluster = Cluster(version)
    _need_root()
    with locked():
        if cluster.state() == "up":
            return cluster
        if cluster.state() != "down":
            cluster.stop()
        packages.install()
        binaries.kubernetes(cluster.layout)
        _guarded(cluster, cluster.start)
    return cluster


def down(version: str = DEFAULT_VERSION) -> None:
    """Take a cluster down and leave nothing of it but the cache.

    Raises:
        ClusterError: something does not end.

    Threads: blocks for some seconds.
    """
    _need_root()
    with locked():
        Cluster(version).stop()


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("a cluster of one's own needs root; any other one needs --kubeconfig")


def _guarded(cluster: Cluster, start: Callable[[], None]) -> None:
    try:
        start()
    except BaseException as exc:
        kept = cache() / "logs" / f"failed-{cluster.version}"
        _keep_logs(cluster.layout.logs, kept)
        cluster.stop()
        if isinstance(exc, ClusterError):
            raise ClusterError(str(exc).replace(str(cluster.layout.logs), str(kept))) from exc
        raise


def _keep_logs(logs: Path, kept: Path) -> None:
    if logs.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(logs, kept)
