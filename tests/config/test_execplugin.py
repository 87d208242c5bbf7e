"""Exec plugins: what they are told, what is taken from them, and how they fail."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pluginscripts import V1, V1BETA1, Plugins, credential
from support import eventually, in_thread, runs, seconds

from kubews.config import ClientCertificate, Cluster, ExecPlugin, execplugin
from kubews.errors import AuthPluginError, ConfigError, CredentialsError

CLUSTER = Cluster("https://kube:6443", name="kube")
SECRET = "s3cret-of-plugin"
KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or "kubectl"


@pytest.fixture
def plugins(machine: Path) -> Plugins:
    return Plugins(machine)


def failing(plugin: ExecPlugin, cluster: Cluster = CLUSTER) -> AuthPluginError:
    with pytest.raises(AuthPluginError) as caught:
        execplugin.run(plugin, cluster, seconds(30))
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith("getting credentials: ")
    assert caught.value.command == plugin.command
    return caught.value


# -- what it is told


def told(plugins: Plugins, cluster: Cluster, **fields: Any) -> dict[str, Any]:
    plugin = plugins.write(
        f"echo \"$KUBERNETES_EXEC_INFO\" > info; echo '{credential(token='t')}'", **fields
    )
    execplugin.run(plugin, cluster, seconds(30))
    info: dict[str, Any] = json.loads(Path("info").read_text())
    return info


def test_told_only_what_it_asks_for(plugins: Plugins) -> None:
    assert told(plugins, CLUSTER) == {
        "kind": "ExecCredential",
        "apiVersion": V1,
        "spec": {"interactive": False},
    }


def test_told_of_the_cluster(plugins: Plugins, machine: Path, pem: Any) -> None:
    (machine / "ca").write_bytes(pem.ca)
    spec = told(plugins, CLUSTER, provide_cluster_info=True)["spec"]
    assert spec == {"cluster": {"server": "https://kube:6443"}, "interactive": False}
    cluster = Cluster(
        "https://kube:6443/prefix",
        certificate_authority=str(machine / "ca"),
        tls_server_name="api",
        proxy_url="http://proxy:3128",
        disable_compression=True,
        exec_extension='{"audience": "a"}',
    )
    spec = told(plugins, cluster, provide_cluster_info=True)["spec"]
    authority = spec["cluster"].pop("certificate-authority-data")
    assert authority == pem.b64(pem.ca.strip() + b"\n")
    assert spec["cluster"] == {
        "server": "https://kube:6443/prefix",
        "tls-server-name": "api",
        "proxy-url": "http://proxy:3128",
        "disable-compression": True,
        "config": {"audience": "a"},
    }
    (machine / "ca").unlink()
    with pytest.raises(ConfigError, match="unable to read certificate-authority"):
        told(plugins, cluster, provide_cluster_info=True)


def test_told_the_same_as_by_kubectl(plugins: Plugins, machine: Path, pem: Any) -> None:
    script = f"env > env; echo \"$@\" > args; echo '{credential(token='t')}'"
    plugin = plugins.write(
        script,
        args=("get", "a b"),
        env=(("STAGE", "test"), ("PATH", f"/added:{os.environ['PATH']}")),
        provide_cluster_info=True,
    )
    entry = {
        "apiVersion": V1,
        "command": plugin.command,
        "args": plugin.args,
        "env": [{"name": name, "value": value} for name, value in plugin.env],
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }
    cluster = {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": pem.b64(pem.ca),
        "tls-server-name": "api",
        "extensions": [
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a", "n": 1}}
        ],
    }
    document = {
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": {"exec": entry}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }
    (machine / "config").write_text(json.dumps(document))
    command = [KUBECTL, "--kubeconfig", "config", "get", "--raw", "/version"]
    subprocess.run(command, capture_output=True, timeout=seconds(60))
    theirs = said()
    from kubews import Config

    config = Config.load("config")
    assert config.user.exec == plugin
    execplugin.run(plugin, config.cluster, seconds(30))
    assert said() == theirs
    assert json.loads(theirs[0])["spec"]["cluster"]["config"] == {"audience": "a", "n": 1}


def said() -> tuple[str, str, list[str]]:
    """Give what the plugin wrote down of its last run: the info in one form, arguments, variables."""
    variables = dict(
        line.partition("=")[::2] for line in Path("env").read_text().splitlines() if "=" in line
    )
    info = json.dumps(json.loads(variables.pop("KUBERNETES_EXEC_INFO")), sort_keys=True)
    kept = sorted(f"{key}={variables[key]}" for key in ("STAGE", "PATH", "HOME"))
    return info, Path("args").read_text(), kept


def test_the_program_is_found_with_our_path(
    plugins: Plugins, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = plugins.printing(credential(token="t"), env=(("PATH", "/usr/bin:/bin"),))
    with pytest.raises(AuthPluginError, match="exec: executable plugin not found"):
        execplugin.run(dataclasses.replace(plugin, command="plugin"), CLUSTER)
    monkeypatch.setenv("PATH", f"{machine}:{os.environ['PATH']}")
    assert execplugin.run(dataclasses.replace(plugin, command="plugin"), CLUSTER).token == "t"


# -- what is taken from it


@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_token(plugins: Plugins, version: str) -> None:
    plugin = plugins.printing(credential(version, token=f" {SECRET}\n"), api_version=version)
    issued = execplugin.run(plugin, CLUSTER, seconds(30))
    assert (issued.token, issued.certificate, issued.expires) == (SECRET, None, None)
    assert issued.fresh()
    assert SECRET not in repr(issued) + repr(plugin)


def test_a_certificate_and_both(plugins: Plugins, pem: Any) -> None:
    pair = {"clientCertificateData": pem.cert.decode(), "clientKeyData": pem.key.decode()}
    issued = execplugin.run(plugins.printing(credential(**pair)), CLUSTER, seconds(30))
    assert (issued.token, issued.certificate) == (None, ClientCertificate(pem.cert, pem.key))
    both = plugins.printing(credential(token="t", **pair))
    issued = execplugin.run(both, CLUSTER, seconds(30))
    assert (issued.token, issued.certificate) == ("t", ClientCertificate(pem.cert, pem.key))
    assert "BEGIN" not in repr(issued)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02T00:00:00Z", 86400.0),
        ("1970-01-02t00:00:00.123456789z", 86400.0),
        ("1970-01-02T02:00:00+02:00", 86400.0),
        ("1970-01-01T19:00:00-05:00", 86400.0),
        ("", None),
        (None, None),
    ],
)
def test_when_it_expires(plugins: Plugins, text: Any, expected: Any) -> None:
    plugin = plugins.printing(credential(token="t", expirationTimestamp=text))
    assert execplugin.run(plugin, CLUSTER, seconds(30)).expires == expected


# -- how it fails

OUTPUTS = [
    (f'{{"token": "{SECRET}"', "decoding stdout: yaml: line 2"),
    ("", "it is of another kind"),
    (f"[{SECRET}]", "it is of another kind"),
    (json.dumps({"kind": "Pod", "apiVersion": V1}), "it is of another kind"),
    (json.dumps({"kind": "ExecCredential"}), "plugin returned version none"),
    (
        credential(V1BETA1, token=SECRET),
        f"is configured to use API version {V1}, plugin returned version {V1BETA1}",
    ),
    (json.dumps({"kind": "ExecCredential", "apiVersion": 1}), "plugin returned version none"),
    (json.dumps({"kind": "ExecCredential", "apiVersion": V1}), "didn't return a status field"),
    (
        json.dumps({"kind": "ExecCredential", "apiVersion": V1, "status": [SECRET]}),
        "returned a status that is no mapping",
    ),
    (credential(), "didn't return a token or cert/key pair"),
    (credential(token="", other=SECRET), "didn't return a token or cert/key pair"),
    (credential(token=[SECRET]), "returned a token that is no string"),
    (credential(clientKeyData=SECRET), "returned only certificate or key, not both"),
    (credential(clientCertificateData=SECRET), "returned only certificate or key, not both"),
    (
        credential(token=SECRET, expirationTimestamp="tomorrow"),
        "returned an expirationTimestamp that is no time of RFC 3339",
    ),
    (credential(token=SECRET, expirationTimestamp="2020-02-30T00:00:00Z"), "no time of RFC 3339"),
]


@pytest.mark.parametrize(("output", "text"), OUTPUTS)
def test_output_that_cannot_be_used_r31(plugins: Plugins, output: str, text: str) -> None:
    """R-31."""
    exc = failing(plugins.printing(output))
    assert text in str(exc)
    assert f"exec plugin {plugins.root}/plugin" in str(exc)


def test_kubectl_refuses_the_same_outputs(machine: Path) -> None:
    """And takes what has no kind, or is YAML."""
    taken = [
        f"apiVersion: {V1}\nstatus: {{token: t}}\n",
        json.dumps({"apiVersion": V1, "status": {"token": " t\n"}}),
    ]
    outputs = [output for output, _ in OUTPUTS] + taken

    def ask(number: int) -> str:
        folder = machine / str(number)
        folder.mkdir()
        plugin = Plugins(folder).printing(outputs[number])
        entry = {"command": plugin.command, "apiVersion": V1, "interactiveMode": "Never"}
        document = {
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {"exec": entry}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }
        (folder / "config").write_text(json.dumps(document))
        command = [KUBECTL, "--kubeconfig", str(folder / "config"), "get", "--raw", "/version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(60))
        return done.stderr

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(len(outputs))))
    for output, answer in zip(outputs, answers, strict=True):
        assert ("getting credentials" in answer) is (output not in taken), (output, answer)
    for output in taken:
        issued = execplugin.run(Plugins(machine).printing(output), CLUSTER, seconds(30))
        assert issued.token == "t"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"token": f"{SECRET}\r\nX-Evil: 1"}, "has characters in it that no HTTP header can have"),
        ({"clientCertificateData": SECRET, "clientKeyData": SECRET}, "holds no PEM certificate"),
    ],
)
def test_credentials_that_cannot_be_used_r31(
    plugins: Plugins, status: dict[str, str], text: str
) -> None:
    with pytest.raises(CredentialsError, match=text) as caught:
        execplugin.run(plugins.printing(credential(**status)), CLUSTER, seconds(30))
    assert SECRET not in str(caught.value)


def test_it_fails_r31(plugins: Plugins, capfd: pytest.CaptureFixture[str]) -> None:
    """R-31: command, exit code, stderr and hint are told; the arguments, which may be secrets, are not."""
    plugin = plugins.write(
        "echo 'not logged in:' >&2; echo 'run login' >&2; exit 7",
        args=(SECRET,),
        env=(("PASSWORD", SECRET),),
        install_hint="get it from here",
    )
    exc = failing(plugin)
    assert "plugin failed with exit code 7: not logged in: run login" in str(exc)
    assert (exc.exit_code, exc.stderr) == (7, "not logged in:\nrun login\n")
    assert exc.install_hint == "get it from here"
    assert capfd.readouterr().err == exc.stderr
    exc = failing(plugins.write("kill -9 $$"))
    assert (exc.exit_code, exc.stderr) == (-9, "")
    assert "was killed by signal 9" in str(exc)


def test_it_is_not_there_r31(plugins: Plugins, machine: Path) -> None:
    plugin = ExecPlugin("no-such-plugin", install_hint="apt install it", interactive_mode="Never")
    exc = failing(plugin)
    assert "exec: executable no-such-plugin not found" in str(exc)
    assert str(exc).endswith("apt install it")
    assert exc.exit_code is None
    (machine / "plain").write_text("no program")
    (machine / "plain").chmod(0o755)
    exc = failing(ExecPlugin(str(machine / "plain"), interactive_mode="Never"))
    assert "plain cannot be run: Exec format error" in str(exc)
    exc = failing(dataclasses.replace(plugins.write("true"), args=(f"a\0{SECRET}",)))
    assert "cannot be run: an argument or variable has a NUL" in str(exc)


def test_it_takes_too_long_r53(plugins: Plugins, machine: Path) -> None:
    """R-53: and nothing of it is left, though it has started something itself."""
    plugin = plugins.write("echo asking >&2; sleep 1000 & echo $! > child; wait")
    started = time.monotonic()
    with pytest.raises(AuthPluginError, match=r"did not end within .* and was killed") as caught:
        execplugin.run(plugin, CLUSTER, 1.0)
    assert time.monotonic() - started < seconds(20)
    assert caught.value.stderr in ("asking\n", "")  # if the machine let it come so far
    if (machine / "child").exists() and (text := (machine / "child").read_text().strip()):
        assert eventually(lambda: not runs(int(text)))


def reading() -> bool:
    return any(thread.name.startswith("kubews plugin") for thread in threading.enumerate())


def test_ctrl_c_ends_it(plugins: Plugins) -> None:
    plugin = plugins.write("echo $$ > pid; exec sleep 1000")

    def interrupt() -> None:
        # In the midst of Popen nobody knows the process yet.
        assert eventually(reading, 30)
        assert eventually(lambda: Path("pid").exists() and Path("pid").read_text(), 30)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        execplugin.run(plugin, CLUSTER, seconds(60))
    interrupting.result()
    assert eventually(lambda: not runs(int(Path("pid").read_text())))
