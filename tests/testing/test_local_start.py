"""How commands start, or do not: errors, signals, environment, terminal."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
from rawclient import SCALE, STATUS, STDERR, STDOUT, V4, V5, RawClient, exec_target

from kubews.testing import LocalCluster


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["nope"], b'exec: \\"nope\\": executable file not found in $PATH'),
        (["/etc"], b'exec: \\"/etc\\": permission denied'),
        (["/etc/passwd"], b'exec: \\"/etc/passwd\\": permission denied'),
        (["a\0b"], b"null byte"),
        ([""], b'exec: \\"\\": executable file not found in $PATH'),
        (["./nope"], b'exec: \\"./nope\\": stat ./nope: no such file or directory'),
        (["./text/nope"], b'exec: \\"./text/nope\\": stat ./text/nope: not a directory'),
        (["./folder"], b'exec: \\"./folder\\": permission denied'),
    ],
)
def test_commands_that_cannot_start(
    cluster: LocalCluster, command: list[str], text: bytes, tty: bool
) -> None:
    pod = cluster.add_pod("files", {"main": None})
    (pod.directory / "main" / "text").touch(0o755)
    (pod.directory / "main" / "folder").mkdir()
    for protocol, prefixes in ((V5, 2), (V4, 1)):
        with RawClient(cluster) as client:
            client.exec(*command, pod="files", tty=tty, protocols=[protocol])
            status = json.loads(client.run_out().channel(STATUS))
        assert status["message"].count("Internal error occurred: ") == prefixes
        assert json.loads(b'"' + text + b'"') in status["message"]
        cause = status["details"]["causes"][0]["message"]
        assert status["message"] == f"Internal error occurred: {cause}"
    assert cluster.execs == []


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("stderr", [False, True])
@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["./text"], b"exec ./text: exec format error\n"),
        (["./orphan", "x"], b"exec ./orphan: no such file or directory\n"),
        (["echo", "a\0b"], b"exec /usr/bin/echo: invalid argument\n"),
    ],
)
def test_what_the_kernel_refuses_fails_inside_the_container(
    cluster: LocalCluster, command: list[str], text: bytes, tty: bool, stderr: bool
) -> None:
    pod = cluster.add_pod("files", {"main": None}, env={"PATH": "/usr/bin"})
    for name, content in (("text", "echo\n"), ("orphan", "#!/no/such/interpreter\n")):
        (pod.directory / "main" / name).write_text(content)
        (pod.directory / "main" / name).chmod(0o755)
    with RawClient(cluster) as client:
        query = [("command", word) for word in command] + [("stdout", "1")]
        query += [("stderr", "1")] * stderr + [("tty", "1")] * tty
        client.upgrade(exec_target(query, "files"))
        client.run_out()
    assert client.channel(STDOUT) == (text.replace(b"\n", b"\r\n") if tty else b"")
    assert client.channel(STDERR) == (text if stderr and not tty else b"")
    assert json.loads(client.channel(STATUS))["details"]["causes"][0]["message"] == "1"


@pytest.mark.parametrize("tty", [False, True])
def test_a_container_whose_directory_is_gone(cluster: LocalCluster, tty: bool) -> None:
    pod = cluster.add_pod("homeless", {"main": None})
    directory = pod.directory / "main"
    directory.rmdir()
    with RawClient(cluster) as client:
        client.exec("true", pod="homeless", tty=tty)
        message = json.loads(client.run_out().channel(STATUS))["message"]
    assert f'chdir to cwd ("{directory}") set in config.json failed: no such file' in message


@pytest.fixture
def ignored_and_blocked() -> Iterator[None]:
    """Ignore and block signals, as below nohup, in a background job or by a careful program."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGINT, before)


SIGNALS = (
    "sh",
    "-c",
    'echo "$VALUE"; grep -E "^Sig(Blk|Ign)" /proc/self/status; exec kill -INT $$',
)


def meant(lines: list[bytes]) -> list[bytes]:
    """Leave out signals 32 and 33 of the first three lines: posix_spawn of glibc ignores its own."""
    value, *masks = lines[:3]
    numbers = [(name, int(mask, 16) & ~(3 << 31)) for name, mask in map(bytes.split, masks)]
    return [value, *(b"%s %x" % number for number in numbers)]


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("process", [False, True])
def test_no_process_inherits_ignored_or_blocked_signals(
    ignored_and_blocked: None, process: bool, tty: bool
) -> None:
    with LocalCluster(process=process) as cluster:
        cluster.add_pod("box", {"main": None, "own": list(SIGNALS)}, env={"VALUE": "a\udce9b"})
        expected = [b"a\xe9b", b"SigBlk: 0", b"SigIgn: 0"]
        with RawClient(cluster) as client:
            client.exec(*SIGNALS, tty=tty)
            client.run_out()
        assert meant(client.channel(1).splitlines()) == expected
        assert b"exit code 130" in client.channel(STATUS)
        lines: list[bytes] = []
        end = time.monotonic() + 10 * SCALE
        while len(lines) < 3 and time.monotonic() < end:
            with RawClient(cluster) as client:
                answer = client.request("/api/v1/namespaces/default/pods/box/log?container=own")
            lines = answer.body.splitlines()
        assert meant(lines) == expected
        with pytest.raises(FileNotFoundError):
            cluster.add_pod("bad", {"main": ["nope"]})


def test_the_launcher_leaves_the_environment_alone(
    ignored_and_blocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("LC_", "LANG"))]:
        monkeypatch.delenv(name)
    with LocalCluster() as cluster:
        for value in (None, "", "C", "de_DE.UTF-8"):  # in the C locale an interpreter sets LC_CTYPE
            name = "none" if value is None else f"box-{len(value)}"
            cluster.add_pod(name, {"main": None}, env={} if value is None else {"LC_CTYPE": value})
            with RawClient(cluster) as client:
                client.exec("sh", "-c", "env | grep ^LC_CTYPE=", pod=name)
                shown = client.run_out().channel(1)
            assert shown == (b"" if value is None else f"LC_CTYPE={value}\n".encode())


def test_ctrl_c_on_a_terminal_though_this_process_ignores_it(ignored_and_blocked: None) -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"main": None})
        with RawClient(cluster) as client:
            client.exec("sh", "-c", "echo on; exec sleep 1000", stdin=True, tty=True)
            client.until(b"on\r\n")
            client.send(b"\0\x03")
            assert b"exit code 130" in client.run_out().channel(STATUS)


@pytest.mark.parametrize("number", [1, 9, 15])
def test_death_by_signal(cluster: LocalCluster, number: int) -> None:
    with RawClient(cluster) as client:
        client.exec("sh", "-c", f"kill -{number} $$")
        status = client.run_out().channel(STATUS)
    assert f"exit code {128 + number}".encode() in status


def test_a_pod_knows_nothing_of_the_terminal_of_who_has_started_it(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "LINES", "COLUMNS"):
        monkeypatch.setenv(name, "99")
    cluster.add_pod("elsewhere", {"main": None})
    for tty, terminal in ((False, b""), (True, b"TERM=xterm\r\n")):
        with RawClient(cluster) as client:
            client.exec(
                "sh", "-c", "env | grep -E '^(TERM|LINES|COLUMNS)='", pod="elsewhere", tty=tty
            )
            assert client.run_out().channel(STDOUT) == terminal
    cluster.delete_pod("elsewhere")


def test_resize_wedges_without_a_tty(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(b'\4{"Width":80,"Height":24}')
        client.send(b"\0first")
        client.until(b"first")
        client.send(b'\4{"Width":80,"Height":24}')
        client.send(b"\0second")
        assert not client.pump(0.3 * SCALE)
    assert client.channel(1) == b"first"


def test_resize_decodes_a_stream(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        script = "read x; stty size; read x; stty size; read x; stty size"
        client.exec("sh", "-c", script, stdin=True, tty=True)
        client.send(b'\4{"Width":80,"Height":24}\n{"width":')
        client.send(b"\0\n")
        client.until(b"24 80\r\n")
        client.send(b'\x04100,"HEIGHT":30}')
        client.send(b"\0\n")
        client.until(b"30 100\r\n")
        client.send(b'\4{"Width":-1,"Height":24}')  # ends the decoder
        client.send(b"\0\n")
        client.run_out()
    assert client.channel(1).count(b"30 100\r\n") == 2
