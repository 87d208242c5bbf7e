"""Watch the logs of all pods with a label for errors, through a connection that breaks, until they have ended."""

from __future__ import annotations

import re

from kubews.testing import Faults, LocalCluster

WORK = "for i in 1 2 3 4 5; do echo step $i; sleep 0.1; done; echo ERROR: disk full >&2; exit {}"

with LocalCluster() as cluster, cluster.client() as client:
    for number in (0, 1):
        command = ["sh", "-c", WORK.format(number)]
        cluster.add_pod(f"worker-{number}", {"app": command}, labels={"app": "worker"})
    cluster.next_faults(Faults(match="worker-0/log", drop_after=100))  # a cut in the middle

    lines = 0
    with client.logs("app=worker", follow=True, text=True) as log:
        for line in log:
            lines += 1
            if found := re.fullmatch(r"\[pod/(.*)/app\] ERROR: (.*)\n", line):
                print(f"{found[1]}: {found[2]}")

    print(f"{lines} lines, each once; cuts: {log.resumed}, gaps: {len(log.gaps)}")
    for each in log.sources:
        print(f"{each.reason} with exit code {each.exit_code}")
