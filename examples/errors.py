"""Tell apart: the command failed, it could not start, it was refused, the connection was lost."""

from __future__ import annotations

import kubews
from kubews.testing import Faults, LocalCluster

with LocalCluster() as cluster:
    cluster.add_pod("web-0")
    cluster.add_user("guest", verbs={"get"})

    def attempt(pod: kubews.Pod, command: list[str]) -> None:
        try:
            pod.run(command, check=True, capture_output=True, timeout=10)
        except kubews.ProcessError as exc:
            print("exit code", exc.returncode)
        except kubews.ExecError as exc:
            print("could not start:", exc.status["reason"])
        except kubews.Forbidden as exc:
            print("refused:", exc.code)
        except kubews.ConnectionLost as exc:
            print("lost after", dict(exc.received))

    with cluster.client() as client, cluster.client(context="guest") as guest:
        attempt(client.pod("web-0"), ["sh", "-c", "exit 7"])
        attempt(client.pod("web-0"), ["/no/such/program"])
        attempt(guest.pod("web-0"), ["true"])
        cluster.next_faults(Faults(no_status=True))
        attempt(client.pod("web-0"), ["echo", "hello"])
