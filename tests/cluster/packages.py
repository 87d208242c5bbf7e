"""The Debian packages that the cluster is made of, installed only if they are missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .commands import program, run, succeeds
from .errors import ClusterError, say
from .layout import cache

_PACKAGES = (
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "busybox-static",
    "mmdebstrap",
    "iproute2",
    "util-linux",  # nsenter and unshare
)
_SERVICES = {"etcd-server": "etcd", "containerd": "containerd"}
_POLICY = Path("/usr/sbin/policy-rc.d")
_ENV = {"DEBIAN_FRONTEND": "noninteractive"}

#: Where Debian puts the CNI plugins.
CNI_PLUGINS = Path("/usr/lib/cni")


def install() -> None:
    """Install what is missing, without starting what comes with it.

    Raises:
        ClusterError: this is no Debian, or apt failed.

    Threads: blocks for up to some minutes.
    """
    missing = [name for name in _PACKAGES if not _installed(name)]
    if not missing:
        return
    log = cache() / "logs" / "packages.log"
    say(f"installing {' '.join(missing)}; the log is {log}")
    wait = ["-o", "DPkg::Lock::Timeout=120"]
    with _no_service_starts():
        run("apt-get update", ["apt-get", "update"], log, timeout=300, env=_ENV)
        run(
            "apt-get install",
            ["apt-get", "install", "-y", "--no-install-recommends", *wait, *missing],
            log,
            timeout=600,
            env=_ENV,
        )
    for package in missing:
        if package in _SERVICES and Path("/run/systemd/system").is_dir():
            # Not at the next boot either; one that was there before is somebody's and stays.
            succeeds("systemctl", "disable", "--now", _SERVICES[package])


def _installed(name: str) -> bool:
    done = subprocess.run(
        [program("dpkg-query"), "-W", "-f=${db:Status-Status}", name],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout == "installed"


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep the packages from starting daemons of their own: Debian asks this file for leave."""
    try:
        _POLICY.touch(mode=0o755, exist_ok=False)
    except FileExistsError:
        yield  # whoever wrote it has decided
        return
    except OSError as exc:
        raise ClusterError(f"cannot write {_POLICY}: {exc}") from exc
    try:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        yield
    finally:
        _POLICY.unlink()
