"""Bring a real Kubernetes up on this machine: ``python -m tests.cluster up|down|status|packages``.

``packages`` only installs the Debian packages, which other tests have a use for, too.
"""

from __future__ import annotations

import argparse
import signal
import sys

from . import Cluster, ClusterError, down, packages, up
from .layout import DEFAULT_VERSION, versions
from .locking import locked


def main() -> int:
    """Parse the command line and do what it asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "status", "packages"])
    parser.add_argument(
        "--version", choices=versions(), default=DEFAULT_VERSION, help="default: %(default)s"
    )
    options = parser.parse_args()
    # Ended from outside, a start takes back what it has started, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.action == "up":
            print(f"export KUBECONFIG={up(options.version).kubeconfig}")
        elif options.action == "down":
            down(options.version)
        elif options.action == "packages":
            with locked():
                packages.install()
        else:
            return _status(Cluster(options.version))
    except ClusterError as exc:
        print(f"tests.cluster: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _status(cluster: Cluster) -> int:
    state = cluster.state()
    print(f"{cluster.version}: {state}")
    if state == "down":
        return 1
    for daemon in cluster.daemons():
        print(f"  {daemon.name:15} {daemon.pid or 'ended':>8}  {daemon.log}")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0 if state == "up" else 1


if __name__ == "__main__":
    sys.exit(main())
