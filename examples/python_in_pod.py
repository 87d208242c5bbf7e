"""Drive an interactive program in a pod with pexpect: here Python itself.

It needs pexpect: ``pip install pexpect``.
"""

from __future__ import annotations

import pexpect

import kubews.expect
from kubews.testing import LocalCluster

with LocalCluster() as cluster, cluster.client() as client:
    cluster.add_pod("web-0")
    pod = client.pod("web-0")

    # Of Python 3.13 and later the plain prompt, without colours and cursor movements.
    plain = {"PYTHON_BASIC_REPL": "1"}
    with kubews.expect.spawn(pod, ["python3", "-i"], env=plain, encoding="utf-8") as python:
        python.expect_exact(">>> ")
        python.sendline("sum(range(101))")
        python.expect(r"\r\n(\d+)\r\n")
        print("the sum is", python.match[1])

        python.sendline("import time; print('sleep' + 'ing'); time.sleep(1000)")
        python.expect_exact("sleeping")  # what is interrupted before it runs may never know
        python.sendintr()  # Ctrl-C
        python.expect_exact("KeyboardInterrupt")
        python.expect_exact(">>> ")

        # The size travels beside what is typed, and may be there a moment later.
        python.setwinsize(50, 132)
        python.sendline("import os; time.sleep(1); print(*os.get_terminal_size())")
        python.expect_exact("132 50")
        print("it sees the new size")

        python.sendline("raise SystemExit(3)")
        python.expect(pexpect.EOF)
        print("exit code", python.wait())
