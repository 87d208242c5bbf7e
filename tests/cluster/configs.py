"""The configuration files of containerd, of its network plugins and of the kubelet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .commands import search_path
from .images import PAUSE
from .layout import NODE, Layout
from .packages import CNI_PLUGINS

_CONTAINERD = """\
version = 2
root = "{root}/containerd"
state = "{root}/run"

[grpc]
  address = "{socket}"

# By default in /opt and made there, whether or not anybody uses it.
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without the right to lower the score, as in most sandboxes, no pod would start at all.
  restrict_oom_score_adj = true
  # A profile would have to be loaded into the kernel, and stay there.
  disable_apparmor = true
  # Network namespaces would be in /run/netns.
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{etc}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def write_configs(layout: Layout) -> None:
    """Write all of them below ``layout.etc``."""
    text = _CONTAINERD.format(
        root=layout.root,
        socket=layout.socket,
        pause=PAUSE,
        plugins=CNI_PLUGINS,
        etc=layout.etc,
    )
    (layout.etc / "containerd.toml").write_text(text)
    (layout.etc / "cni").mkdir()
    (layout.etc / "cni" / "kubews.conflist").write_text(json.dumps(_network(layout), indent=1))
    (layout.etc / "kubelet.json").write_text(json.dumps(_kubelet(layout), indent=1))


def _network(layout: Layout) -> dict[str, Any]:
    """Pods see each other and the machine, and nothing beyond: there is no NAT."""
    return {
        "cniVersion": "0.4.0",
        "name": layout.bridge,
        "plugins": [
            {
                "type": "bridge",
                "bridge": layout.bridge,
                "isGateway": True,
                "ipMasq": False,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": layout.subnet}]]},
            },
        ],
    }


def _kubelet(layout: Layout) -> dict[str, Any]:
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": layout.kubelet_port,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": layout.kubelet_health_port,
        "tlsCertFile": str(layout.etc / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.etc / "kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(layout.etc / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        # The machine is shared with everything else that runs on it; nothing is reserved or evicted.
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        # No chains in the machine's iptables.
        "makeIPTablesUtilChains": False,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "maxPods": 250,
        # By default in /usr/libexec and made there.
        "volumePluginDir": f"{layout.root}/plugins",
    }
    if layout.minor >= 31:
        config["failCgroupV1"] = False
    return config


def etcd(layout: Layout) -> list[str]:
    """Return the command line of etcd."""
    client = f"http://127.0.0.1:{layout.etcd_port}"
    peer = f"http://127.0.0.1:{layout.etcd_peer_port}"
    return [
        "etcd",
        f"--data-dir={layout.root}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def containerd(layout: Layout, shims: Path) -> list[str]:
    """Return the command line of containerd, which looks for its shim in ``shims`` first."""
    path = f"PATH={shims}:{search_path()}"
    return ["env", path, "containerd", f"--config={layout.etc}/containerd.toml"]


def apiserver(layout: Layout, program: Path) -> list[str]:
    """Return the command line of kube-apiserver."""
    etc = layout.etc
    return [
        str(program),
        f"--etcd-servers=http://127.0.0.1:{layout.etcd_port}",
        f"--secure-port={layout.apiserver_port}",
        "--bind-address=127.0.0.1",
        # Loopback is refused as an address for others; nobody ever uses this one.
        "--advertise-address=10.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--cert-dir={layout.root}/apiserver",
        f"--client-ca-file={etc}/ca.crt",
        f"--tls-cert-file={etc}/apiserver.crt",
        f"--tls-private-key-file={etc}/apiserver.key",
        f"--kubelet-certificate-authority={etc}/ca.crt",
        f"--kubelet-client-certificate={etc}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={etc}/apiserver-to-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={etc}/accounts.key",
        f"--service-account-signing-key-file={etc}/accounts.key",
        f"--token-auth-file={etc}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        # No controller manager runs, so nothing makes the accounts that it would insist on.
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged",
    ]


def kubelet(layout: Layout, program: Path) -> list[str]:
    """Return the command line of the kubelet."""
    return [
        str(program),
        f"--config={layout.etc}/kubelet.json",
        f"--kubeconfig={layout.etc}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
    ]
