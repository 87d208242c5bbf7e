"""A cluster with users whose credentials are tried, and what tells for whom the server takes them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from clusters import AnyCluster
from support import eventually, seconds, unused_port

from kubews import Client, Config, Pod
from kubews.config import User
from kubews.testing import LocalCluster

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
STREAMS = ["pods/exec", "pods/portforward"]
NOBODY = 1  # a port that nothing listens on
PORT = 7010  # one that something listens on

_REVIEW = json.dumps(
    {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
).encode()
_SERVER = (Path(__file__).parent / "sockets" / "pod_server.py").read_text()


def who(client: Client) -> dict[str, Any]:
    """Ask the server for whom it takes the client."""
    sent = {"Content-Type": "application/json"}
    answer = client.request("POST", WHO, body=_REVIEW, headers=sent).json()
    info: dict[str, Any] = answer["status"]["userInfo"]
    return info


def reach_a_port(pod: Pod) -> None:
    """Get bytes from what listens in the pod."""
    with pod.connect(PORT, timeout=seconds(20)) as sock:
        sock.sendall(b"source 5\n")
        with sock.makefile("rb") as answer:
            assert answer.read(5) == bytes(range(5))


def use_everything(config: Config, name: str) -> None:
    """See that REST, a command and a port take the user for the one that it is."""
    with Client(config) as client:
        assert who(client)["username"] == name
        pod = client.pod("web-0", container="app")
        assert pod.check_output(["echo", "hello"]) == b"hello\n"
        reach_a_port(pod)


class Place:
    """A cluster with a pod that listens and two users: ``worker`` may use its streams, ``idler`` nothing."""

    def __init__(self, cluster: AnyCluster) -> None:
        self.cluster = cluster
        self._add_pod()
        rules = {resource: ["get", "create"] for resource in STREAMS}
        self.token = cluster.add_user("worker", verbs=rules)
        self.idle_token = cluster.add_user("idler")
        self.admin = Config.load(cluster.kubeconfig)

    def config(self, user: User) -> Config:
        return dataclasses.replace(self.admin, user=user)

    def full_name(self, name: str) -> str:
        """The name that the server knows a user of ``add_user`` by."""
        if isinstance(self.cluster, LocalCluster):
            return name
        return f"system:serviceaccount:{self.cluster.namespace}:{name}"

    def received(self, part: str) -> list[dict[str, str]]:
        """The headers of the requests for a target with this in it."""
        assert isinstance(self.cluster, LocalCluster)
        return [dict(each.headers) for each in self.cluster.requests if part in each.target]

    def _add_pod(self) -> None:
        command = ["python3", "-u", "-c", _SERVER]
        if isinstance(self.cluster, LocalCluster):  # all its pods share the ports of this machine
            free = unused_port()
            self.cluster.add_pod("web-0", {"app": [*command, str(free)]}, listens={PORT: free})
        else:
            self.cluster.add_pod("web-0", {"app": [*command, str(PORT)]})
        with self.cluster.client() as client:
            pod = client.pod("web-0")

            def answers() -> bool:
                with contextlib.suppress(ConnectionError):
                    reach_a_port(pod)
                    return True
                return False

            assert eventually(answers, 20)
