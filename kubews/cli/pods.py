"""From the flags to a pod.

Threads: the main one.
"""

from __future__ import annotations

import argparse
from typing import Any

from kubews import documents
from kubews.cli.endings import say
from kubews.client import Client
from kubews.config import Config
from kubews.documents import Json
from kubews.errors import NotReady
from kubews.pod import Pod
from kubews.transport.deadline import Deadline


class CommandPod(Pod):
    """A pod of a command line, where no argument of Python's is a cure.

    Threads: any.
    """

    waits = ""


class NotingPod(CommandPod):
    """A pod that says on stderr which container it takes where there are several.

    Threads: any.
    """

    def choose_container(self, pod: Json) -> str:
        """Choose as kubectl does, and say it in kubectl's words (``cmd/util/podcmd/podcmd.go``)."""
        chosen = super().choose_container(pod)
        names = documents.all_containers(pod)
        if len(names) > 1 and not documents.names_default(pod):
            say(f'Defaulted container "{chosen}" out of: {", ".join(names)}')
        return chosen


class LoggedPod(NotingPod):
    """A pod whose log is wanted.

    Threads: any.
    """

    waits = "-f waits for it, as long as --pod-running-timeout says"


class CountingPod(LoggedPod):
    """A pod that also says on stderr which one it is where there are several.

    Threads: any.
    """

    def _candidates(self, deadline: Deadline) -> tuple[Json, str, list[Json]]:
        owner, selector, found = super()._candidates(deadline)
        if len(found) > 1:  # in kubectl's words (``polymorphichelpers/logsforobject.go``)
            say(f"Found {len(found)} pods, using pod/{documents.name_of(found[0])}")
        return owner, selector, found


def make_client(options: argparse.Namespace) -> Client:
    """Return a client of the cluster that the flags choose.

    Raises:
        ConfigError: the kubeconfig cannot be used, or has no such entry.
    """
    given: dict[str, Any] = {
        name: value for name in ("cluster", "user", "server") if (value := getattr(options, name))
    }
    return Client(Config.load(options.kubeconfig, options.context, options.namespace, **given))


def find(options: argparse.Namespace, name: str) -> Pod:
    """Return the pod of a name; of ``deploy/web`` the one that kubectl would choose.

    Args:
        options: with ``container``, ``quiet`` and ``pod_running_timeout``.
        name: as it was typed.

    Raises:
        ConfigError: it can be no name, or the configuration cannot be used.
        NotFound: there is nothing of that name.
        NotReady: no pod of it runs in time.

    Threads: blocks, unless a pod is named: that is found when something is opened.
    """
    kind = CommandPod if options.quiet else NotingPod
    pod = kind(make_client(options), name, container=options.container)
    return chosen(pod, options.pod_running_timeout)


def chosen(pod: Pod, timeout: float, *, running: bool = True) -> Pod:
    """Return the pod that this stands for now, or as soon as one runs; exceptions as for ``find``.

    Args:
        pod: of ``deploy/web`` and the like; a pod itself is returned as it is.
        timeout: seconds.
        running: whether it must run; else one that has ended will do.

    Threads: blocks.
    """
    deadline = Deadline(timeout)
    try:
        return pod.pin(deadline, running=running)
    except NotReady:
        return pod.wait_ready(deadline.remaining())
