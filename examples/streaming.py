"""Follow the lines of a long-running command as they come, and stop when you have seen enough."""

from __future__ import annotations

from kubews import PIPE
from kubews.testing import LocalCluster

with LocalCluster() as cluster, cluster.client() as client:
    cluster.add_pod("web-0")
    pod = client.pod("web-0")

    script = "i=0; while :; do i=$((i+1)); echo line $i; done"
    with pod.popen(["sh", "-c", script], stdout=PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="")
            if line == "line 3\n":
                break
    # Leaving the block hangs up, as closing a local pipe would; there is no exit code then.
    print("exit code", process.returncode)
