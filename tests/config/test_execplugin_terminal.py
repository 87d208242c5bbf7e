"""Exec plugins in a script and in a terminal: whom they can ask, and where their words go."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pluginscripts import Plugins, credential
from support import eventually, in_thread, seconds

from kubews.config import Cluster, ExecPlugin, execplugin
from kubews.errors import AuthPluginError

CLUSTER = Cluster("https://kube:6443", name="kube")


@pytest.fixture
def plugins(machine: Path) -> Plugins:
    return Plugins(machine)


def test_what_it_says_is_shown_as_it_comes_r53(
    plugins: Plugins, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R-53: where print() goes, a cell or a terminal, and before it is answered."""
    os.mkfifo("answer")
    plugin = plugins.write(
        f"printf 'open https://idp: ' >&2; cat answer; echo '{credential(token='t')}'"
    )
    running = in_thread(execplugin.run, plugin, CLUSTER, seconds(30))
    shown = []
    assert eventually(lambda: shown.append(capsys.readouterr().err) or "".join(shown), 20)
    assert "".join(shown) == "open https://idp: "
    with open("answer", "w"):
        pass
    assert running.result(seconds(30)).token == "t"


class Closed(io.StringIO):
    """As a daemon has it that has closed its stderr, or one that cannot show every character."""

    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")


def test_it_is_not_stopped_by_what_cannot_be_shown(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it says is taken, or it would wait for room in the pipe until its time is over."""
    much = "head -c 300000 /dev/zero | tr '\\0' x >&2"
    monkeypatch.setattr("sys.stderr", Closed())
    plugin = plugins.write(f"{much}; echo '{credential(token='t')}'")
    assert execplugin.run(plugin, CLUSTER, seconds(10)).token == "t"
    with pytest.raises(AuthPluginError, match=r"exit code 3: .*the end") as caught:
        execplugin.run(plugins.write(f"{much}; echo 'the end' >&2; exit 3"), CLUSTER, seconds(10))
    assert caught.value.stderr.endswith("xthe end\n")


ANSWERING = f"""
echo "$KUBERNETES_EXEC_INFO" > info
if test -t 0; then printf 'password: ' >&2; read -r line; else line=$(cat); fi
echo "$line" > line
echo '{credential(token="t")}'
"""


@pytest.mark.parametrize("mode", ["Never", "IfAvailable", "Always"])
def test_in_a_script_r53(plugins: Plugins, mode: str) -> None:
    """R-53: without a terminal there is nothing to read, and what insists on one is refused."""
    plugin = plugins.write(ANSWERING, interactive_mode=mode)
    child = Child(plugin, stdin=subprocess.PIPE)
    out = child.end(b"input of the program\n")
    if mode == "Always":
        assert b"cannot support interactive mode: standard input is not a terminal" in out
        assert not Path("info").exists()
        return
    assert out.endswith(b"token t, input of the program\n")
    assert Path("line").read_text() == "\n"
    assert json.loads(Path("info").read_text())["spec"]["interactive"] is False


@pytest.mark.parametrize("mode", ["Never", "IfAvailable", "Always"])
def test_in_a_terminal_r53(plugins: Plugins, mode: str) -> None:
    """R-53: it talks with the user; one that never does leaves the input alone."""
    plugin = plugins.write(ANSWERING, interactive_mode=mode)
    master, slave = os.openpty()
    child = Child(plugin, stdin=slave, stderr=slave)
    os.close(slave)
    interactive = mode != "Never"
    try:
        if interactive:
            assert b"password: " in read_until(master, b"password: ")
            os.write(master, b"typed\n")
        os.write(master, b"input of the program\n")
    finally:
        out = child.end()
        os.close(master)
    assert out.endswith(b"token t, input of the program\n")
    assert Path("line").read_text() == ("typed\n" if interactive else "\n")
    assert json.loads(Path("info").read_text())["spec"]["interactive"] is interactive


def read_until(descriptor: int, text: bytes) -> bytes:
    found = b""
    end = time.monotonic() + seconds(30)
    with contextlib.suppress(
        OSError
    ):  # the other side has gone, and the caller says what is missing
        while text not in found and time.monotonic() < end:
            if select.select([descriptor], [], [], 0.5)[0]:
                found += os.read(descriptor, 4096)
    return found


class Child:
    """A program that uses the plugin, and reads a line of its own input afterwards."""

    SCRIPT = """
import pickle, sys
from kubews.config import Cluster, execplugin
plugin = pickle.load(open("pickled", "rb"))
try:
    token = execplugin.run(plugin, Cluster("https://kube"), 60).token
    print(f"token {token}, {sys.stdin.readline().strip()}")
except Exception as exc:
    print(exc)
"""

    def __init__(self, plugin: ExecPlugin, **options: Any) -> None:
        import pickle

        Path("pickled").write_bytes(pickle.dumps(plugin))
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT], stdout=subprocess.PIPE, **options
        )

    def end(self, data: bytes | None = None) -> bytes:
        try:
            return self._process.communicate(data, timeout=seconds(60))[0]
        finally:
            self._process.kill()
            self._process.wait()
