"""Run commands in a pod: on a cluster that this program starts, or on your own.

    python examples/quickstart.py
    python examples/quickstart.py --context prod --pod web-0 [--namespace shop] [--container app]

Without arguments it starts a LocalCluster: an API server on this machine whose pods are local processes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator

import kubews
from kubews import PIPE, Pod

ECHO_TWICE = "for turn in 1 2; do read word; echo you said $word; done"
FRUIT = "pear\nfig\napple\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run commands in a pod with kubews.")
    parser.add_argument("--kubeconfig", help="by default what kubectl uses")
    parser.add_argument("--context", help="a context of your kubeconfig: use your own cluster")
    parser.add_argument("--pod", help="a running pod in it, with sh, cat and sort")
    parser.add_argument("--namespace")
    parser.add_argument("--container")
    args = parser.parse_args()
    if (args.context or args.kubeconfig) and not args.pod:
        parser.error("your own cluster needs --pod")
    try:
        with a_pod(args) as pod:
            tour(pod)
    except kubews.KubewsError as exc:
        print(f"\nThat did not work: {exc}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def a_pod(args: argparse.Namespace) -> Iterator[Pod]:
    """Give the pod that was asked for, or one of a cluster that lives as long as this program."""
    if args.pod:
        config = kubews.Config.load(args.kubeconfig, args.context, args.namespace)
        with kubews.Client(config) as client:
            print(f"Pod {args.pod} at {config.cluster.server}")
            yield client.pod(args.pod, container=args.container)
        return

    from kubews.testing import LocalCluster

    with LocalCluster() as cluster:
        cluster.add_pod("web-0", {"app": ["sleep", "1000"]})
        print(f"Started a LocalCluster at {cluster.server} with the pod web-0")
        with cluster.client() as client:
            yield client.pod("web-0")


def tour(pod: Pod) -> None:
    """Do what one does in pods, and say what happens."""
    step("run() returns output and exit code, as subprocess.run() does")
    show(
        'pod.run(["sh", "-c", "echo hello; echo oops >&2; exit 3"], capture_output=True, text=True)'
    )
    done = pod.run(
        ["sh", "-c", "echo hello; echo oops >&2; exit 3"], capture_output=True, text=True
    )
    print(f"  returncode {done.returncode}, stdout {done.stdout!r}, stderr {done.stderr!r}")

    step("input goes in and ends; the command answers")
    show('pod.check_output(["sort"], input="pear\\nfig\\napple\\n", text=True)')
    try:
        print(f"  {pod.check_output(['sort'], input=FRUIT, text=True).split()}")
    except kubews.HalfCloseUnsupported as exc:
        print(f"  not on this server: {exc}")

    step("popen() talks with a process while it runs")
    show('pod.popen(["sh", "-c", ECHO_TWICE], stdin=PIPE, stdout=PIPE, text=True)')
    with pod.popen(["sh", "-c", ECHO_TWICE], stdin=PIPE, stdout=PIPE, text=True) as process:
        for line in ("ping\n", "pong\n"):
            process.stdin.write(line)
            print(f"  sent {line!r}, received {process.stdout.readline()!r}")
        print(f"  exit code {process.wait()}, over {process.subprotocol}")

    step("bytes are exact, however many")
    show('pod.popen(["head", "-c", "100000000", "/dev/zero"], stdout=PIPE)')
    begin = time.monotonic()
    with pod.popen(["head", "-c", "100000000", "/dev/zero"], stdout=PIPE) as process:
        count = 0
        while piece := process.stdout.read(1 << 16):
            count += len(piece)
    print(f"  {count:,} bytes in {time.monotonic() - begin:.1f} s")

    step("what cannot start is an error, not an exit code")
    show('pod.run(["/no/such/program"])')
    try:
        pod.run(["/no/such/program"])
    except kubews.ExecError as exc:
        print(f"  ExecError: ...{str(exc)[-90:]}")

    print("\nAll of it worked.")


def step(text: str) -> None:
    print(f"\n{text}")


def show(code: str) -> None:
    print(f"  >>> {code}")


if __name__ == "__main__":
    sys.exit(main())
