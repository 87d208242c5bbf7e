"""Where everything of one cluster is: directories, ports, names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError

HERE = Path(__file__).resolve().parent
GO = HERE / "go"

#: What lives as long as a cluster. One directory for all versions, one below it for each.
STATE = Path("/var/lib/kubews-cluster")

DEFAULT_VERSION = "1.36"

#: The only node. A node whose name is an address is at that address, even if it is loopback; one
#: with any other name is looked for in DNS, and then thought to be where the default route is.
NODE = "127.0.0.1"

#: In the environment of every daemon, and so of what a daemon starts: whose processes they are.
MARK = "KUBEWS_CLUSTER"


def versions() -> list[str]:
    """Return the versions that there is a Go module for, the newest first."""
    names = [path.name for path in GO.iterdir() if re.fullmatch(r"1\.\d+", path.name)]
    return sorted(names, key=lambda name: int(name[2:]), reverse=True)


def cache() -> Path:
    """Return the directory of what is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "kubews-tests"


@dataclass(frozen=True)
class Layout:
    """The places of one version's cluster.

    Args:
        version: such as ``1.36``.

    Raises:
        ClusterError: there is no Go module for it.
    """

    version: str

    def __post_init__(self) -> None:
        if self.version not in versions():
            raise ClusterError(f"no version {self.version}; there are {', '.join(versions())}")

    @property
    def minor(self) -> int:
        return int(self.version[2:])

    @property
    def module(self) -> Path:
        """The directory of the Go module that its programs are built from."""
        return GO / self.version

    @property
    def release(self) -> str:
        """The release that the Go module asks for, such as ``1.36.3``."""
        text = (self.module / "go.mod").read_text()
        found = re.search(r"k8s\.io/kubernetes v(\S+)", text)
        assert found, f"{self.module}/go.mod does not ask for k8s.io/kubernetes"
        return found[1]

    # Directories. Paths of sockets must stay short: 107 bytes at most.

    @property
    def root(self) -> Path:
        return STATE / self.version

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def etc(self) -> Path:
        """Certificates, kubeconfigs and the daemons' configuration."""
        return self.root / "etc"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def overlay(self) -> Path:
        """What the daemons see in place of the directories that they cannot be talked out of."""
        return self.root / "overlay"

    @property
    def kubeconfig(self) -> Path:
        return self.etc / "kubeconfig"

    @property
    def socket(self) -> Path:
        """containerd's socket."""
        return self.root / "containerd.sock"

    # Names and numbers, all different from those of another version and from the customary ones.

    @property
    def cgroup(self) -> str:
        return f"kubews-{self.version}"

    @property
    def bridge(self) -> str:
        return f"kubews{self.minor}"

    @property
    def subnet(self) -> str:
        return f"10.244.{self.minor}.0/24"

    @property
    def etcd_port(self) -> int:
        return self._port(79)

    @property
    def etcd_peer_port(self) -> int:
        return self._port(80)

    @property
    def apiserver_port(self) -> int:
        return self._port(43)

    @property
    def kubelet_port(self) -> int:
        return self._port(50)

    @property
    def kubelet_health_port(self) -> int:
        return self._port(48)

    def ports(self) -> list[int]:
        """Return every port that a daemon listens on."""
        return [
            self.etcd_port,
            self.etcd_peer_port,
            self.apiserver_port,
            self.kubelet_port,
            self.kubelet_health_port,
        ]

    def _port(self, number: int) -> int:
        # Below the ephemeral ports (32768 and up), so that no client's socket is ever in the way.
        return 20000 + self.minor * 100 + number
