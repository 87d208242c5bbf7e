"""``python -m kubews.testing``: a LocalCluster to try things on, until Ctrl-C.

Threads: one.
"""

from __future__ import annotations

import argparse
import signal
import threading


def main() -> None:
    """Parse the arguments, serve, and say how to use it."""
    parser = argparse.ArgumentParser(
        prog="python -m kubews.testing",
        description="Serve a LocalCluster on 127.0.0.1 until Ctrl-C. It is no sandbox: pods are "
        "processes of this machine.",
    )
    parser.add_argument("--version", default="1.36", help="the Kubernetes version to be (1.36)")
    parser.add_argument("--pod", action="append", help="add a pod of this name (web-0)")
    options = parser.parse_args()
    from kubews.testing import LocalCluster

    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with LocalCluster(options.version) as cluster:
        for name in options.pod or ["web-0"]:
            cluster.add_pod(name)
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        done.wait()


if __name__ == "__main__":
    main()
