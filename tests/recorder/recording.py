"""Hold a conversation over a raw WebSocket and write it down; the format is in transcripts/README.md."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import yaml
from websockets.frames import Opcode

from ..testing.rawclient import Answer, RawClient
from .conversations import PODS, PREPARED, Conversation

if TYPE_CHECKING:
    from ..cluster import Cluster, RealCluster

_SHORT = 4096  # payloads above this are abbreviated
_KEPT = 16
_SHOWN = 200
# Different each time, or about the server's load.
_DROPPED = ("audit-id", "date", "sec-websocket-accept", "x-kubernetes-pf-")


@dataclass(frozen=True)
class Endpoint:
    """What ``RawClient`` needs to know of a server. Keys stay out of the repr."""

    server: str
    ca_pem: bytes
    admin_cert_pem: bytes
    admin_key_pem: bytes
    token: Optional[str]

    def __repr__(self) -> str:
        return f"<Endpoint {self.server}>"

    @classmethod
    def of(cls, kubeconfig: str, context: str) -> Endpoint:
        """Return the endpoint of a context."""
        document = yaml.safe_load(Path(kubeconfig).read_text())

        def named(kind: str, name: str) -> Any:
            return next(each[kind] for each in document[f"{kind}s"] if each["name"] == name)

        chosen = named("context", context)
        cluster, user = named("cluster", chosen["cluster"]), named("user", chosen["user"])
        return cls(
            cluster["server"],
            _pem(cluster, "certificate-authority"),
            _pem(user, "client-certificate"),
            _pem(user, "client-key"),
            user.get("token"),
        )


def _pem(values: Mapping[str, str], key: str) -> bytes:
    if f"{key}-data" in values:
        return base64.b64decode(values[f"{key}-data"])
    return Path(values[key]).read_bytes() if key in values else b""


class Talk(RawClient):
    """A raw client that writes down what is sent, what comes and when.

    Args:
        endpoint: where to.
        recorder: what does to the cluster what a script wants done.
    """

    def __init__(self, endpoint: Endpoint, recorder: Recorder) -> None:
        super().__init__(endpoint, cert=bool(endpoint.admin_cert_pem), timeout=60)
        self.recorder = recorder
        self.entries: list[dict[str, Any]] = []
        self.quiet_for: Optional[float] = None
        self.subprotocol = ""
        self.began = time.monotonic()

    @property
    def now(self) -> int:
        """Milliseconds since the request."""
        return int((time.monotonic() - self.began) * 1000)

    def request(self, *args: Any, **kwargs: Any) -> Answer:
        self.began = time.monotonic()
        return super().request(*args, **kwargs)

    def _feed(self, data: bytes) -> None:
        seen = len(self.frames)
        super()._feed(data)
        for frame in self.frames[seen:]:
            self._note("server", frame.opcode, bytes(frame.data))

    def _note(self, direction: str, opcode: Opcode, data: bytes) -> None:
        entry: dict[str, Any] = {"t_ms": self.now, "dir": direction}
        entry.update({"opcode": opcode.name.lower(), "len": len(data)})
        entry["hex"] = data.hex()
        shown = data[:_SHOWN]
        if len(data) > _SHORT:
            rest = set(data[_KEPT:])
            assert len(rest) == 1, "only a frame that repeats one byte can be abbreviated"
            shown = data[:_KEPT]
            entry["hex"] = shown.hex()
            entry["sha256"] = hashlib.sha256(data).hexdigest()
            entry["rest"] = f"one byte repeated: {rest.pop():02x}"
        entry["ascii"] = shown.decode("ascii", "backslashreplace")
        self.entries.append(entry)

    # What scripts do.

    def say(self, data: bytes, opcode: str = "binary") -> None:
        """Send a message, the channel byte included, after a pause that shows what it answers."""
        self.pause(0.2)
        assert self.ended is None, f"nobody is there for {data!r}: {self.ended}"
        kind = Opcode[opcode.upper()]
        self.sock.settimeout(self.timeout)  # a frame must not stay half sent
        try:
            self.send(data, kind)
        except OSError as exc:
            error = {"t_ms": self.now, "dir": "client", "error": type(exc).__name__}
            self.entries.append(error)
            return
        self._note("client", kind, data)

    def pause(self, seconds: float) -> None:
        """Take what comes for so long."""
        end = time.monotonic() + seconds
        while self.ended is None and (left := end - time.monotonic()) > 0:
            self.pump(left)

    def quiet(self, seconds: float = 3.0) -> None:
        """See that nothing comes for so long, and leave."""
        seen = len(self.frames)
        self.pause(seconds)
        assert len(self.frames) == seen, self.frames[seen:]
        assert self.ended is None, self.ended
        self.quiet_for = seconds

    def act(self, what: str, *args: Any) -> None:
        """Do something to the cluster: a method of ``Recorder``."""
        self.pause(0.2)
        self.entries.append({"t_ms": self.now, "dir": "cluster", "action": [what, *args]})
        getattr(self.recorder, what)(*args)

    def end(self) -> dict[str, Any]:
        """Return how the conversation has ended."""
        if self.quiet_for is not None:
            return {"t_ms": self.now, "how": f"no frame for {self.quiet_for} s"}
        how = "close frame; TCP closed" if self.close_codes() else "TCP closed"
        return {"t_ms": self.now, "how": how, "tls": self.ended}


class Recorder:
    """Conversations with one cluster.

    Args:
        cluster: where pods are made.
        machine: its daemons, if they may be killed.

    Threads: one; everything blocks.
    """

    def __init__(self, cluster: RealCluster, machine: Optional[Cluster] = None) -> None:
        self.version = cluster.version
        self.can_kill = machine is not None
        self.summary = ""
        self._cluster, self._machine = cluster, machine
        self._endpoint = Endpoint.of(cluster.kubeconfig, cluster.context)
        self._release = cluster.client().get("/version")["gitVersion"].removeprefix("v")
        self._killed: list[str] = []
        self._pods: list[str] = []

    def record(self, conversation: Conversation, path: Path) -> None:
        """Hold a conversation and write it to a file."""
        self._need(conversation.pod)
        talk = Talk(self._endpoint, self)
        try:
            with talk:
                record = self._hold(talk, conversation)
        finally:
            for name in self._killed:
                getattr(self._machine, name).start()
            self._killed.clear()
            self._clear(conversation)
        path.write_text(json.dumps(record, indent=1))
        self.summary = str(record["response"]["status"])
        if talk.protocol is not None:
            self.summary += f" {len(talk.frames)} frames, {record['end']}"

    def _hold(self, talk: Talk, conversation: Conversation) -> dict[str, Any]:
        namespace = self._cluster.namespace
        path = f"/api/v1/namespaces/{namespace}/pods/{conversation.pod}/exec"
        query = conversation.query
        target = f"{path}?{urllib.parse.urlencode(query)}"
        headers = list(conversation.headers)
        if talk_token := self._endpoint.token:
            headers.append(("Authorization", f"Bearer {talk_token}"))
        answer = talk.upgrade(target, conversation.protocols, headers)
        kept = {key: value for key, value in answer.headers.items() if not key.startswith(_DROPPED)}
        response: dict[str, Any] = {"status": answer.status}
        if answer.status == 101:
            response["subprotocol"] = kept.get("sec-websocket-protocol") or None
        response["headers"] = kept
        record = {
            "name": conversation.name,
            "note": conversation.note,
            "kubernetes": self._release,
            "request": {
                "path": path.replace(namespace, "default"),
                "query": [list(pair) for pair in query],
                "offered_subprotocols": list(conversation.protocols),
                "extra_headers": [key for key, _ in headers],
                "client_cert": "admin" if self._endpoint.admin_cert_pem else None,
            },
            "response": response,
        }
        if answer.status == 101:
            talk.subprotocol = response["subprotocol"] or ""
            conversation.script(talk)
            record.update({"frames": talk.entries, "end": talk.end()})
        else:
            response["body"] = answer.body.decode() or None
        assert namespace not in json.dumps(record), "the namespace's name is in it"
        return record

    # Pods, and what happens to them.

    def _need(self, name: str) -> None:
        if name in self._pods or name not in PODS:
            return
        spec = dict(PODS[name])
        if name in PREPARED:
            self._in_directory(name, spec)
        else:
            self._cluster.add_pod(name, **spec)
        self._pods.append(name)
        if name in PREPARED:
            time.sleep(1)  # until its command has done what it shall

    def _in_directory(self, name: str, spec: dict[str, Any]) -> None:
        from ..cluster.manifests import PodSpec

        cluster = self._cluster
        document = PodSpec(name, image=cluster.image, node=cluster.node, **spec).document()
        document["spec"]["containers"][0]["workingDir"] = "/own"
        cluster.create(document)
        cluster.wait(name)

    def _clear(self, conversation: Conversation) -> None:
        if conversation.pod in self._pods and conversation.breaks:
            self._pods.remove(conversation.pod)
            if not conversation.deletes:
                self._cluster.delete_pod(conversation.pod)
            self._cluster.wait_gone(conversation.pod)

    def delete_pod(self, name: str, grace: int) -> None:
        """Delete a pod, by force if it gets no time."""
        self._cluster.delete_pod(name, grace=grace)

    def execute(self, pod: str, *argv: str) -> None:
        """Run a command in the first container of a pod."""
        with self._cluster.client() as client:
            code = client.pod(pod).call(list(argv), container="main")
        # 137: the container has ended under it, which it may be there to bring about.
        assert code in (0, 137), code

    def kill(self, daemon: str) -> None:
        """Kill a daemon of the cluster; it is started again after the conversation."""
        self._killed.append(daemon)
        getattr(self._machine, daemon).kill()
