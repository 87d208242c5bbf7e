"""Record conversations: ``python -m tests.recorder [--real-cluster VERSION | --kubeconfig PATH] [NAME...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..cluster import DEFAULT_VERSION, NODE, TOOLS, RealCluster, up
from .conversations import CONVERSATIONS, Conversation
from .recording import Recorder

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


def main() -> int:
    """Parse the command line and record; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.recorder", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--real-cluster", metavar="VERSION", default=DEFAULT_VERSION)
    where.add_argument("--kubeconfig", metavar="PATH", type=Path)
    parser.add_argument("--context", metavar="NAME")
    parser.add_argument("--image", default="debian:12-slim", help="of pods in a foreign cluster")
    parser.add_argument("--to", metavar="DIRECTORY", type=Path, default=TRANSCRIPTS)
    parser.add_argument("--list", action="store_true", help="list the names and stop")
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all of the version")
    options = parser.parse_args()
    if options.list:
        print("\n".join(each.name for each in CONVERSATIONS))
        return 0
    if options.kubeconfig:
        with RealCluster(options.kubeconfig, options.context, image=options.image) as cluster:
            record(Recorder(cluster), options)
        return 0
    machine = up(options.real_cluster)
    with RealCluster(machine.kubeconfig, "admin", node=NODE, image=TOOLS) as cluster:
        record(Recorder(cluster, machine), options)
    return 0


def record(recorder: Recorder, options: argparse.Namespace) -> None:
    """Record what was asked for, or everything that belongs to the cluster's version."""
    for each in _chosen(recorder, options.names):
        print(each.name, end=" ", flush=True)
        recorder.record(each, options.to / f"{each.name}.json")
        print(recorder.summary)


def _chosen(recorder: Recorder, names: list[str]) -> list[Conversation]:
    if not names:
        return [
            each
            for each in CONVERSATIONS
            if each.version == recorder.version and (recorder.can_kill or not each.kills)
        ]
    known = {each.name: each for each in CONVERSATIONS}
    if unknown := set(names) - known.keys():
        raise SystemExit(f"no conversation {', '.join(sorted(unknown))}; --list shows them all")
    chosen = [known[name] for name in names]
    for each in chosen:
        # Its file would say what is not so.
        if each.version != recorder.version:
            raise SystemExit(f"{each.name} is one with {each.version}; this is {recorder.version}")
        if each.kills and not recorder.can_kill:
            raise SystemExit(f"{each.name} kills a server: only in a cluster of our own")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
