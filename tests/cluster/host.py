"""What a cluster changes on its machine outside its own directory, and how that is put back."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from .commands import succeeds
from .daemons import kill_all
from .errors import ClusterError
from .layout import STATE, Layout

#: Directories that containerd, its shims, CNI and the kubelet use whatever they are told. In the
#: mount namespace of the cluster other directories are mounted over them, so that neither a
#: containerd or kubelet of the machine nor another version's is in the way.
SHADOWED = (
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)

# What the kubelet and the bridge plugin set.
_SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_BEFORE = STATE / "before.json"


def remember() -> None:
    """Write down how the machine is before the first cluster, and make the directories to shadow."""
    if _BEFORE.exists():
        return
    values = {}
    for name in _SYSCTLS:
        with suppress(OSError):
            values[name] = Path("/proc/sys", name).read_text().strip()
    made = [name for name in SHADOWED if not Path(name).is_dir()]
    _BEFORE.write_text(json.dumps({"sysctls": values, "made": made}))
    for name in made:
        Path(name).mkdir(parents=True)


def restore() -> None:
    """Put back what ``remember`` wrote down, unless another version's cluster still is there."""
    if any(path.is_dir() for path in STATE.glob("*")):
        return
    if _BEFORE.exists():
        before = json.loads(_BEFORE.read_text())
        for name, value in before["sysctls"].items():
            path = Path("/proc/sys", name)
            if path.read_text().strip() != value:
                path.write_text(value)
        for name in before["made"]:
            with suppress(OSError):  # somebody has put something into it
                os.rmdir(name)
        _BEFORE.unlink()
    with suppress(FileNotFoundError):
        STATE.rmdir()


def cgroup_roots() -> list[Path]:
    """Return the directory of every hierarchy of control groups: one for v2, many for v1."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(head.split()[4]))
    return found


def make_cgroups(layout: Layout) -> None:
    """Make the control group that all pods are below, in every hierarchy."""
    for root in cgroup_roots():
        (root / layout.cgroup).mkdir(exist_ok=True)


def kill_containers(layout: Layout) -> None:
    """Kill every process of every pod.

    Raises:
        ClusterError: some do not end.

    Threads: blocks.
    """
    folders = [root / layout.cgroup for root in cgroup_roots()]

    def left() -> list[int]:
        pids: set[int] = set()
        for folder in folders:
            for group, _, _ in os.walk(folder):  # which passes over what goes away meanwhile
                with suppress(OSError):  # the group went away
                    pids.update(map(int, Path(group, "cgroup.procs").read_text().split()))
        return sorted(pids - {0})

    kill_all(left, "processes of pods")


def remove_cgroups(layout: Layout) -> None:
    """Remove the control groups, the deepest first."""
    for root in cgroup_roots():
        _remove_cgroup(root / layout.cgroup)


def _remove_cgroup(folder: Path) -> None:
    if not folder.is_dir():
        return
    for path, _, _ in os.walk(folder, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(path)
                break
            except FileNotFoundError:
                break
            except OSError:  # the kernel still buries its last process
                time.sleep(0.02)


def remove_bridge(layout: Layout) -> None:
    """Remove the pods' bridge and what is still plugged into it.

    The pods' ends are in network namespaces that end with the pods' last process and mount; then
    the ends on the bridge go too, a little later.
    """
    plugged = Path("/sys/class/net", layout.bridge, "brif")
    with suppress(FileNotFoundError):
        for port in os.listdir(plugged):
            succeeds("ip", "link", "delete", port)
    if Path("/sys/class/net", layout.bridge).exists():
        succeeds("ip", "link", "delete", layout.bridge)


def remove_tree(layout: Layout) -> None:
    """Remove the cluster's directory.

    Raises:
        ClusterError: something is still mounted below it.
    """
    for mount in reversed(_mounts_below(layout.root)):
        succeeds("umount", "--lazy", mount)
    left = _mounts_below(layout.root)
    if left:
        raise ClusterError(f"still mounted: {left[0]}; umount it and try again")
    shutil.rmtree(layout.root, ignore_errors=True)
    if layout.root.exists():
        shutil.rmtree(layout.root)  # what was written a moment ago; an error counts this time


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(f"{folder}/")]
