"""examples:
  kubews logs web-0 --tail 20
  kubews logs -f deploy/web -c app --since 10m
  kubews logs -f -l app=web --all-containers --prefix
  kubews logs -p web-0

With -f it goes on where it was cut, until the container has ended. Several logs come in the order of time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

from kubews.cli.arguments import Parser, add_running_timeout, duration
from kubews.cli.endings import say

if TYPE_CHECKING:
    import datetime

    from kubews import Logs
    from kubews.documents import Json
    from kubews.targets import Target
    from kubews.transport.deadline import Deadline

USAGE = "[-f] [-p] (POD | TYPE/NAME) [-c CONTAINER] [flags]"

_REQUIRED = (
    "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\n"
    "POD or TYPE/NAME is a required argument for the logs command"
)
_POLL = 0.2  # seconds between two looks for a pod
_SELECTOR_TAIL = 10  # kubectl's, of each log, if a selector is given


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_switch("-f", "--follow", help="go on with what comes")
    parser.add_switch("-p", "--previous", help="of the run before the container's last restart")
    parser.add_switch("--timestamps", help="the time before each line")
    parser.add_switch("--prefix", help="pod and container before each line")
    parser.add_switch("--all-containers", help="of all containers of the pod, or of each pod")
    parser.add_switch("--all-pods", help="of all pods of a Deployment and so on; with --prefix")
    parser.add_switch("--ignore-errors", help="go on with the others when a log is lost")
    parser.add_switch(
        "--insecure-skip-tls-verify-backend", help="whatever the kubelet's certificate says"
    )
    add = parser.add_argument
    add("-l", "--selector", metavar="LABELS", help="of all pods with these labels, as app=web")
    add("-c", "--container", metavar="NAME", help="the container; see kubews exec -h")
    add("--tail", metavar="LINES", type=int, help="lines from the end (all; with -l 10)")
    add(
        "--since",
        metavar="DURATION",
        type=duration,
        help="only what is newer, such as 5s, 2m or 3h",
    )
    add("--since-time", metavar="TIME", help="only what is newer, such as 2026-01-31T12:00:00Z")
    add("--limit-bytes", metavar="BYTES", type=int, default=0, help="bytes of each log at most")
    add(
        "--max-log-requests",
        metavar="LOGS",
        type=int,
        default=5,
        help="followed at a time at most (5)",
    )
    add_running_timeout(parser, "20s")
    add("names", nargs="*", metavar="POD | TYPE/NAME", help=argparse.SUPPRESS)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Print logs."""
    wanted = _query(options, parser)
    containers = _selected(options) if options.selector else _named(options)
    if options.follow and len(containers) > max(1, options.max_log_requests):
        parser.exit(
            1,
            f"error: you are attempting to follow {len(containers)} log streams, but maximum allowed concurrency "
            f"is {options.max_log_requests}, use --max-log-requests to increase the limit\n",
        )
    if not containers:
        return 0
    with _opened(containers, options, wanted) as log:
        _print(log, at_once=options.follow)
    for gap in log.gaps:
        until = f"before {gap.before}" if gap.before else "before the end"
        say(
            f"note: lines of {gap.source} may be missing after {gap.after} and {until}: they were rotated away"
        )
    return 0


def _query(options: argparse.Namespace, parser: Parser) -> dict[str, Any]:
    """Check the flags in kubectl's words (``cmd/logs/logs.go``), and return what they ask for."""
    names = options.names
    if len(names) > 2 or not (names or options.selector):
        parser.error(_REQUIRED)
    if names and options.selector:
        parser.error("only a selector (-l) or a POD name is allowed")
    if len(names) == 2:
        if options.container is not None:
            parser.error("only one of -c or an inline [CONTAINER] arg is allowed")
        options.container = names[1]
    if options.since_time and options.since:
        parser.error("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if options.all_containers and options.container:
        parser.error(
            f"--all-containers=true should not be specified with container name {options.container}"
        )
    if options.limit_bytes < 0:
        parser.error("--limit-bytes must be greater than 0")
    if options.pod_running_timeout <= 0:
        parser.error("--pod-running-timeout must be higher than zero")
    tail = options.tail
    if tail is None and options.selector:
        tail = _SELECTOR_TAIL
    if tail is not None and tail < -1:
        parser.error("--tail must be greater than or equal to -1")
    return {
        "follow": options.follow,
        "previous": options.previous,
        "timestamps": options.timestamps,
        "tail": None if tail == -1 else tail,
        "since": _moment(options.since_time, parser) or options.since or None,
        "limit_bytes": options.limit_bytes or None,
        "insecure_skip_tls_verify_backend": options.insecure_skip_tls_verify_backend,
    }


def _moment(text: Optional[str], parser: Parser) -> Optional[datetime.datetime]:
    if not text:
        return None
    import datetime
    import re

    # To the second, as the server takes it; before 3.11 Python knows no Z.
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    moment = None
    if found is not None:
        with contextlib.suppress(ValueError):
            moment = datetime.datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00"))
    if moment is None:
        parser.error(f'parsing time "{text}": it should look like 2026-01-31T12:00:00Z')
    return moment


def _selected(options: argparse.Namespace) -> list[Target]:
    from kubews import podlogs
    from kubews.cli import pods

    client = pods.make_client(options)
    namespace = client.config.namespace
    containers = podlogs.selected(
        client,
        options.selector,
        namespace,
        options.container,
        all_of_them=options.all_containers,
        kind=pods.LoggedPod,
    )
    if not containers:
        say(f"No resources found in {namespace} namespace.")
    return containers


def _named(options: argparse.Namespace) -> list[Target]:
    from kubews import podlogs
    from kubews.cli import pods
    from kubews.transport.deadline import Deadline

    client = pods.make_client(options)
    if options.all_pods:
        every = pods.LoggedPod(client, options.names[0], container=options.container)
        return [
            container
            for pod, document in _all_pods(every, Deadline(options.pod_running_timeout))
            for container in podlogs.containers_of(
                pod, document, all_of_them=options.all_containers
            )
        ]
    named = pods.CountingPod(client, options.names[0], container=options.container)
    pod = pods.chosen(named, options.pod_running_timeout, running=False)
    return podlogs.containers_of(pod, pod.get(), all_of_them=options.all_containers)


def _all_pods(target: Target, deadline: Deadline) -> list[tuple[Target, Json]]:
    """Return all pods of a Deployment and so on, as soon as there is one."""
    from kubews.errors import NotReady

    while True:
        try:
            return target.pods(deadline)
        except NotReady:
            if deadline.expired():
                raise
        time.sleep(_POLL)


def _opened(
    containers: list[Target], options: argparse.Namespace, wanted: dict[str, Any]
) -> Logs[bytes]:
    from kubews import podlogs
    from kubews.transport.deadline import Deadline

    wait = Deadline(options.pod_running_timeout) if options.follow else podlogs.AT_ONCE
    prefix = options.prefix or options.all_pods
    failed = _note if options.ignore_errors else None
    if len(containers) > 1 or prefix or failed:
        return podlogs.merge(containers, prefix=prefix, wait_ready=wait, failed=failed, **wanted)
    return podlogs.of_container(containers[0], wait_ready=wait, **wanted)


def _note(error: Exception) -> None:
    say(f"error: {error}")


def _print(log: Logs[bytes], *, at_once: bool) -> None:
    if sys.stdout is None:
        return
    out = sys.stdout.buffer
    for line in log:
        out.write(line)
        if at_once:
            out.flush()
