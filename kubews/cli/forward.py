"""examples:
  kubews port-forward web-0 8080:80
  kubews port-forward svc/web :https --address localhost,10.1.2.3

Without a local port it is the same as the remote one; 0 or nothing before the colon lets the kernel pick it.
The pod may be replaced while this runs: the next connection goes to the one that is there then.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
from typing import TYPE_CHECKING

from kubews.cli.arguments import Parser, add_running_timeout
from kubews.cli.endings import say
from kubews.errors import ConfigError

if TYPE_CHECKING:
    from kubews import ForwardEvent, Pod, PortForward
    from kubews.ports import Port

USAGE = "(POD | TYPE/NAME) [flags] [LOCAL:]REMOTE..."


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--address",
        action="append",
        metavar="IP",
        help="where to listen: IP addresses with commas between them, or localhost (the default)",
    )
    add_running_timeout(parser)
    parser.add_argument("names", nargs="*", metavar="POD | TYPE/NAME", help=argparse.SUPPRESS)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Forward until Ctrl-C."""
    if len(options.names) < 2:
        parser.error("TYPE/NAME and list of ports are required for port-forward")
    if options.pod_running_timeout <= 0:
        parser.error("--pod-running-timeout must be higher than zero")
    name, *specs = options.names
    given = ",".join(options.address or ["localhost"]).split(",")
    addresses = [each.strip() for each in given]
    from kubews.cli import pods
    from kubews.transport.deadline import NEVER
    from kubews.transport.wait import slice_of

    pod = pods.make_client(options).pod(name)
    pods.chosen(pod, options.pod_running_timeout)  # each connection chooses anew
    leads = [_lead(pod, spec) for spec in specs]
    events: queue.SimpleQueue[ForwardEvent] = queue.SimpleQueue()
    with pod.forward(
        [remote for _, remote, _ in leads],
        [local for local, _, _ in leads],
        addresses,
        on_event=events.put,
    ) as forward:
        for _, remote, number in leads:
            for line in _where(forward, remote, number):
                print(line, flush=True)
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    _tell(events.get(timeout=slice_of(NEVER)), forward)
        except KeyboardInterrupt:
            return 0  # as kubectl: it is how this ends


def _lead(pod: Pod, spec: str) -> tuple[int, Port, int]:
    """Return local port, remote port, and the number of the pod's port behind it."""
    from kubews import ports
    from kubews.transport.deadline import NEVER

    first, colon, second = spec.partition(":")
    if ":" in second:
        raise ConfigError(f"invalid port format '{spec}'")
    remote = ports.parse(second if colon else first)
    _, number = pod.resolve_port(remote, NEVER)
    if colon:
        return _local(first), remote, number
    if isinstance(remote, int):
        return remote, remote, number
    if pod.kind == "service":
        return ports.of_service_itself(pod.resolve(NEVER).owner, remote), remote, number
    return number, remote, number


def _local(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ConfigError(f"error parsing local port '{text}': it must be a number up to 65535")
    return int(text or 0)


def _where(forward: PortForward, remote: Port, number: int) -> list[str]:
    hosts = [f"[{each}]" if ":" in each else each for each in forward.addresses]
    return [f"Forwarding from {host}:{forward.ports[remote]} -> {number}" for host in hosts]


def _tell(event: ForwardEvent, forward: PortForward) -> None:
    local = forward.ports[event.remote]
    failed = event.kind == "failed"
    if event.kind == "connected" or (failed and not event.pod):  # each once: some reach no pod
        print(f"Handling connection for {local}", flush=True)
    if failed:
        say(f"error: an error occurred forwarding {local} -> {event.remote}: {event.error}")
