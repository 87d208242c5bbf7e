"""Cells of a real kernel: output lands in them, interrupts end them, and the process lives on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import seconds

from kubews import Pod

pytest.importorskip("ipykernel")

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore"
    ),  # of the kernel's client, as is the event loop that it leaves
    pytest.mark.descriptors_may_leak(3),
]

SETUP = """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)  # in dev mode it tells how long the cells took
import asyncio, os, kubews
from kubews import PIPE
client = kubews.Client(kubews.Config.load({kubeconfig!r}))
pod = client.pod("web-0")
p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
"""

# Says so itself when the call has ended: the kernel takes longer than that to print where.
# When it was out is told by the kernel's own clock, which is this machine's: what is printed may be long on its way.
INTERRUPTED = """
import faulthandler, time
stuck = open({stacks!r}, "w")
faulthandler.dump_traceback_later({late}, file=stuck)
print('in', flush=True)
try:
    {call}
except KeyboardInterrupt:
    print('out', time.monotonic(), flush=True)
    raise
finally:
    faulthandler.cancel_dump_traceback_later()
    stuck.close()
"""


class Kernel:
    def __init__(self, manager: Any, client: Any) -> None:
        self._manager, self._client = manager, client

    def start(self, cell: str) -> str:
        identifier: str = self._client.execute(cell)
        return identifier

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def wait_line(self, identifier: str, text: str) -> str:
        """Wait until a cell has written a line with this, and return it: who is idle does not hear of an interrupt.

        One print may come in two messages: the kernel sends what it has, five times a second.
        """
        end = time.monotonic() + seconds(30)
        written = ""
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            ours = message["parent_header"].get("msg_id") == identifier
            if ours and message["msg_type"] == "stream":
                written += message["content"]["text"]
                for line in written.splitlines(keepends=True):
                    if text in line and line.endswith("\n"):
                        return line

    def finish(self, identifier: str) -> tuple[str, dict[str, str]]:
        """Wait for a cell; return how it ended, and what it wrote to each stream."""
        written = {"stdout": "", "stderr": ""}
        end = time.monotonic() + seconds(30)
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != identifier:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                written[content["name"]] += content["text"]
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        while True:
            reply = self._client.get_shell_msg(timeout=seconds(30))
            if reply["parent_header"].get("msg_id") == identifier:
                return reply["content"].get("ename") or reply["content"]["status"], written

    def run(self, cell: str) -> tuple[str, dict[str, str]]:
        return self.finish(self.start(cell))


@pytest.fixture
def kernel(cluster, nothing_left_behind: None, tmp_path: Path) -> Iterator[Kernel]:
    from jupyter_client.manager import KernelManager

    # Not by TCP, whose ports somebody else may take between the manager's look and the kernel's.
    manager = KernelManager(transport="ipc", connection_file=str(tmp_path / "kernel.json"))
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=seconds(60))
        kernel = Kernel(manager, client)
        assert kernel.run(SETUP.format(kubeconfig=str(cluster.kubeconfig)))[0] == "ok"
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy()


@pytest.mark.half_close
def test_a_notebook_r49(kernel: Kernel, pod: Pod, tmp_path: Path) -> None:
    """R-49, R-52, R-54: all in one kernel, for each takes a second to start."""
    # Output without a PIPE goes to the cell that called, all of it.
    said = kernel.run("pod.run('echo visible; echo complaint >&2', shell=True)")
    assert said == ("ok", {"stdout": "visible\n", "stderr": "complaint\n"})
    said = kernel.run("_ = pod.run('seq 1 20000', shell=True)")
    assert said[1]["stdout"].split() == [str(number) for number in range(1, 20001)]
    # An interrupt ends the cell, and the same process goes on.
    assert kernel.run("q = pod.popen(['sleep', '1000'], stdin=PIPE, stdout=PIPE)")[0] == "ok"
    for call in ("q.stdout.read()", "q.wait()", "q.communicate()", "pod.run(['sleep', '1000'])"):
        stacks = tmp_path / "stacks"
        cell = kernel.start(
            INTERRUPTED.format(call=call, stacks=str(stacks), late=0.3 + seconds(2))
        )
        kernel.wait_line(cell, "in")
        time.sleep(0.3)
        begin = time.monotonic()
        kernel.interrupt()
        out = float(kernel.wait_line(cell, "out").split()[-1])
        assert out - begin < seconds(2), (call, stacks.read_text())
        assert kernel.finish(cell)[0] == "KeyboardInterrupt", call
    first = "p.stdin.write(b'a\\n'); print(p.stdout.readline(), flush=True)"
    cell = kernel.start(f"{first}; p.stdout.readline()")
    kernel.wait_line(cell, "b'a")
    time.sleep(0.3)
    kernel.interrupt()
    assert kernel.finish(cell)[0] == "KeyboardInterrupt"
    said = kernel.run("p.stdin.write(b'goes on\\n'); print(p.stdout.readline())")
    assert said == ("ok", {"stdout": "b'goes on\\n'\n", "stderr": ""})
    # The kernel has a running event loop, in a coroutine too.
    said = kernel.run("await asyncio.sleep(0); print(pod.run(['echo', 'x'], stdout=PIPE).stdout)")
    assert said == ("ok", {"stdout": "b'x\\n'\n", "stderr": ""})
    # A fork of the kernel finds the parent's process dead, and the kernel goes on.
    fork = (
        "pid = os.fork()\nif not pid:\n    try:\n        p.poll()\n"
        "    except kubews.ConnectionLost:\n        os._exit(5)\n    os._exit(1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert kernel.run(fork)[1]["stdout"] == "5\n"
    said = kernel.run("p.stdin.close(); print(p.stdout.read(), p.wait())")
    assert said == ("ok", {"stdout": "b'' 0\n", "stderr": ""})


PLUGIN = """#!/bin/sh
test -t 0 && echo 'a terminal' >&2
printf 'open https://idp/device and enter ABCD: ' >&2
read -r line || echo '(nobody answers)' >&2
echo "$KUBERNETES_EXEC_INFO" > "$1"
echo '{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "t"}}'
"""

USE_PLUGIN = """
from kubews.config import Cluster, ExecPlugin, execplugin
plugin = ExecPlugin({path!r}, args=({info!r},), interactive_mode={mode!r})
print(execplugin.run(plugin, Cluster("https://kube"), 60).token)
"""


def test_a_plugin_in_a_notebook_r53(kernel: Kernel, tmp_path: Path) -> None:
    """R-53: what it says is in the cell, and it waits for no answer that nobody can give."""
    (tmp_path / "plugin").write_text(PLUGIN)
    (tmp_path / "plugin").chmod(0o755)
    path, info = str(tmp_path / "plugin"), str(tmp_path / "info")
    for mode in ("IfAvailable", "Never"):
        said = kernel.run(USE_PLUGIN.format(path=path, info=info, mode=mode))
        assert said[0] == "ok"
        assert said[1] == {
            "stdout": "t\n",
            "stderr": "open https://idp/device and enter ABCD: (nobody answers)\n",
        }
        assert json.loads((tmp_path / "info").read_text())["spec"] == {"interactive": False}
    (tmp_path / "info").unlink()
    said = kernel.run(USE_PLUGIN.format(path=path, info=info, mode="Always"))
    assert said[0] == "AuthPluginError"
    assert not (tmp_path / "info").exists()
