"""What a pod's document says although it is not so: readiness, restarts and times on demand.

kubectl and kubews choose among pods by these; nobody can wait for a pod to be an hour old.

Threads: pure functions.
"""

from __future__ import annotations

from kubews.testing.arguments import PodChange
from kubews.testing.objects import Json


def changed(pod: Json, change: PodChange) -> Json:
    """Return the document of a pod with what was demanded, in the places where a server says it."""
    metadata, status = pod["metadata"], pod["status"]
    if change.created is not None:
        metadata["creationTimestamp"] = change.created
    if change.deleting is not None:
        metadata["deletionTimestamp"] = change.deleting
        metadata["deletionGracePeriodSeconds"] = 30
    if change.phase is not None:
        status["phase"] = change.phase
    if change.ready is not None:
        # As when a probe fails, or none is there: of the containers and of the pod.
        for condition in status["conditions"]:
            if condition["type"] in ("ContainersReady", "Ready"):
                condition["status"] = str(change.ready)
        for container in status.get("containerStatuses", ()):
            container["ready"] = change.ready and "running" in container["state"]
    if change.ready_since is not None:
        for condition in status["conditions"]:
            if condition["type"] == "Ready":
                condition["lastTransitionTime"] = change.ready_since
    if change.restarts is not None and status.get("containerStatuses"):
        status["containerStatuses"][0]["restartCount"] = change.restarts
    return pod
