"""``python -m kubews.testing``: a LocalCluster to try things on, until Ctrl-C; ``kubews local`` is the same.

Threads: one.
"""

from __future__ import annotations

import argparse
import signal


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``serve`` takes."""
    parser.add_argument("--version", default="1.36", help="the Kubernetes version to be (1.36)")
    parser.add_argument("--pod", action="append", help="add a pod of this name (web-0)")


def serve(options: argparse.Namespace, hint: str = "") -> None:
    """Serve, and say how to use it, until Ctrl-C or a polite signal.

    Args:
        options: of ``add_options``.
        hint: a command line to show, with ``{pod}`` in it.

    Threads: blocks; the main thread.
    """
    from kubews.testing import LocalCluster
    from kubews.transport.deadline import NEVER
    from kubews.transport.wait import Outcome

    # An Event would hang if a handler set it within its wait().
    done: Outcome[None] = Outcome()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: done.set(None))
    pods = options.pod or ["web-0"]
    with LocalCluster(options.version) as cluster:
        for each in pods:
            cluster.add_pod(each)
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        if hint:
            print(hint.format(pod=pods[0]), flush=True)
        done.get(NEVER)


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m kubews.testing",
        description="Serve a LocalCluster on 127.0.0.1 until Ctrl-C. It is no sandbox: pods are "
        "processes of this machine.",
    )
    add_options(parser)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
