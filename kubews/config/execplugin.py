"""Run an exec credential plugin: ``client.authentication.k8s.io``, version v1 and v1beta1.

A plugin that fails is an error, never anonymous access. What it writes to stderr is shown as it comes, in
a terminal and in the cell of a notebook, because it may ask the user to open a page in a browser.

Source: ``client-go: plugin/pkg/client/auth/exec/exec.go``.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Optional

from kubews.config.certificates import ClientCertificate, check_pair
from kubews.config.cluster import Cluster
from kubews.config.credentials import clean
from kubews.config.issued import Issued
from kubews.config.parsing import parse
from kubews.config.user import ExecPlugin
from kubews.errors import AuthPluginError, ConfigError

#: Seconds that a plugin may take: somebody may have to find a password or a browser.
TIME_LIMIT = 300.0

_KEPT = 4096  # characters of stderr for the error

# Seconds that the main thread waits at once: Ctrl-C that comes right before a wait for a lock is heard behind it.
_SLICE = 1.0
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)"  # RFC 3339
)
_NOT_FOUND = (
    "It looks like you are trying to use a client-go credential plugin that is not installed. "
    "To learn more about this feature, consult the documentation available at: "
    "https://kubernetes.io/docs/reference/access-authn-authz/authentication/"
    "#client-go-credential-plugins"
)


def run(plugin: ExecPlugin, cluster: Cluster, timeout: Optional[float] = None) -> Issued:
    """Run a plugin and take what it prints.

    Args:
        plugin: what to run.
        cluster: the one to authenticate to.
        timeout: seconds, at most ``TIME_LIMIT``, after which it is killed.

    Returns:
        What it has issued.

    Raises:
        AuthPluginError: it could not be run, failed, took too long, or printed something else.
        CredentialsError: the token or the certificate that it printed cannot be used.
        ConfigError: the cluster's certificate-authority, which it is to be told, cannot be read.

    Threads: blocks.
    """
    limit = TIME_LIMIT if timeout is None else min(timeout, TIME_LIMIT)
    interactive = _interactive(plugin)
    ended = _Run(plugin, _environment(plugin, cluster, interactive), interactive, limit)
    return _Output(plugin).read(ended.stdout)


def input_of(plugin: ExecPlugin, cluster: Cluster, interactive: bool) -> dict[str, Any]:
    """Make the ExecCredential that the plugin finds in ``KUBERNETES_EXEC_INFO``.

    Raises:
        ConfigError: the cluster's certificate-authority cannot be read.

    Threads: any; blocks for the time of reading a file.
    """
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec = {"cluster": _cluster_info(cluster), **spec}
    return {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": spec}


def is_terminal() -> bool:
    """Say whether somebody sits at this process's standard input.

    In a notebook nobody does, though the kernel may have inherited the terminal of its server.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None or sys.stdin is None:
        return False
    try:
        return os.isatty(0)
    except OSError:
        return False


def _cluster_info(cluster: Cluster) -> dict[str, Any]:
    pem = cluster.certificate_authority_data
    if not pem and cluster.certificate_authority:
        pem = (cluster.ca_pem() or "").encode("ascii")
    import base64

    fields = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(pem or b"").decode("ascii"),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": json.loads(cluster.exec_extension) if cluster.exec_extension else None,
    }
    return {key: value for key, value in fields.items() if value or key == "server"}


def _interactive(plugin: ExecPlugin) -> bool:
    if plugin.interactive_mode == "Never":
        return False
    if is_terminal():
        return True
    if plugin.interactive_mode == "Always":
        raise _failure(
            plugin,
            f"exec plugin {plugin.command} cannot support interactive mode: standard input is not a "
            "terminal; run it where it is one, or set interactiveMode to IfAvailable if it can do without",
        )
    return False


def _environment(plugin: ExecPlugin, cluster: Cluster, interactive: bool) -> dict[str, str]:
    info = json.dumps(input_of(plugin, cluster, interactive), separators=(",", ":"))
    return {**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": info}


def _show(text: str) -> None:
    # Whatever becomes of it (stderr may be closed, or anybody's object): the plugin has to be listened to.
    with contextlib.suppress(Exception):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _failure(plugin: ExecPlugin, problem: str, **facts: Any) -> AuthPluginError:
    return AuthPluginError(
        f"getting credentials: {problem}",
        command=plugin.command,
        install_hint=plugin.install_hint,
        **facts,
    )


class _Run:
    """One run of a plugin, from start to end.

    With a terminal it has the terminal, as any program that is started there. One that says that it never
    needs any is the leader of a session, so that nothing of it is left when its time is over; one that
    might is left in ours, because what it starts may ask at the terminal though our input is a file.
    """

    def __init__(
        self, plugin: ExecPlugin, environment: dict[str, str], interactive: bool, limit: float
    ) -> None:
        self._plugin, self._limit = plugin, limit
        self._end = time.monotonic() + limit
        self.stdout = b""
        self._stderr = ""
        never = plugin.interactive_mode == "Never"
        self._own_session = never and sys.platform != "win32"
        with self._start(environment, interactive) as process:
            try:
                self._collect(process)
            except BaseException:  # Ctrl-C too: what it would print now nobody takes
                self._kill(process)
                raise
        self._check(process.returncode)

    def _start(self, environment: dict[str, str], interactive: bool) -> subprocess.Popen[bytes]:
        plugin = self._plugin
        # As in Go, the program is looked for with the PATH of this process and not with the plugin's.
        path = shutil.which(plugin.command)
        if path is None:
            hint = f" {plugin.install_hint}" if plugin.install_hint else ""
            raise _failure(
                plugin, f"exec: executable {plugin.command} not found. {_NOT_FOUND}{hint}"
            )
        try:
            return subprocess.Popen(
                [path, *plugin.args],
                env=environment,
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                start_new_session=self._own_session,
                bufsize=0,  # so that closing waits for no reader
            )
        except (OSError, ValueError) as exc:
            reason = (
                exc.strerror if isinstance(exc, OSError) else "an argument or variable has a NUL"
            )
            problem = f"exec: executable {plugin.command} cannot be run: {reason}"
            raise _failure(plugin, problem) from exc

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        readers = [threading.Thread(target=self._read_stdout, args=(process,), daemon=True)]
        if process.stderr is not None:
            readers.append(threading.Thread(target=self._show_stderr, args=(process,), daemon=True))
        for reader in readers:
            reader.name = f"kubews plugin {self._plugin.command}"
            reader.start()
        try:
            for reader in readers:
                while reader.is_alive() and (left := self._end - time.monotonic()) > 0:
                    reader.join(min(left, _SLICE))
            # Its end is the end of its output as a rule: no time goes by here.
            process.wait(max(0.0, self._end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        late = process.poll() is None or any(reader.is_alive() for reader in readers)
        if late:
            self._kill(process)
            for reader in readers:
                reader.join(1.0)
            raise self._late()

    def _read_stdout(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            self.stdout = process.stdout.read()

    def _show_stderr(self, process: subprocess.Popen[bytes]) -> None:
        import codecs

        assert process.stderr is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError, ValueError):
            # Not by lines: a question ends without one.
            while data := os.read(process.stderr.fileno(), 4096):
                text = decoder.decode(data)
                self._stderr = (self._stderr + text)[-_KEPT:]
                _show(text)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError):
            if self._own_session:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()

    def _late(self) -> AuthPluginError:
        return _failure(
            self._plugin,
            f"exec: executable {self._plugin.command} did not end within {self._limit:g} s and was "
            f"killed{self._said()}",
            stderr=self._stderr,
        )

    def _check(self, code: int) -> None:
        if code == 0:
            return
        how = f"failed with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        raise _failure(
            self._plugin,
            f"exec: executable {self._plugin.command} {how}{self._said()}",
            exit_code=code,
            stderr=self._stderr,
        )

    def _said(self) -> str:
        text = " ".join(self._stderr.split())
        return f": {text[-500:]}" if text else ""


class _Output:
    """What a plugin has printed. No message shows any of it."""

    def __init__(self, plugin: ExecPlugin) -> None:
        self._plugin = plugin

    def read(self, stdout: bytes) -> Issued:
        """Decode the ExecCredential.

        Raises:
            AuthPluginError: it is none, or has nothing usable in it.
        """
        status = self._status(stdout)
        token = self._text(status, "token")
        certificate = self._pair(status)
        if token is None and certificate is None:
            raise self._failure("didn't return a token or cert/key pair")
        expires = self._expires(status)
        return Issued(token, certificate, expires)

    def _failure(self, problem: str) -> AuthPluginError:
        return _failure(self._plugin, f"exec plugin {self._plugin.command} {problem}")

    def _status(self, stdout: bytes) -> Mapping[str, Any]:
        try:
            document = parse(stdout, "decoding stdout")
        except ConfigError as exc:
            raise self._failure(f"printed no ExecCredential: {exc}") from None
        # As for client-go the kind may be missing, and the version may not.
        if not isinstance(document, dict) or document.get("kind") not in (
            "ExecCredential",
            "",
            None,
        ):
            raise self._failure("printed no ExecCredential: decoding stdout: it is of another kind")
        wanted, returned = self._plugin.api_version, document.get("apiVersion")
        if returned != wanted:
            said = returned if isinstance(returned, str) and len(returned) < 80 else "none"
            raise self._failure(
                f"is configured to use API version {wanted}, plugin returned version {said}"
            )
        status = document.get("status")
        if status is None:
            raise self._failure("didn't return a status field")
        if not isinstance(status, dict):
            raise self._failure("returned a status that is no mapping")
        return status

    def _text(self, status: Mapping[str, Any], key: str) -> Optional[str]:
        value = status.get(key)
        if value is not None and not isinstance(value, str):
            raise self._failure(f"returned a {key} that is no string")
        if not value:
            return None
        where = f"the {key} of exec plugin {self._plugin.command}"
        return clean(value, where) if key == "token" else value

    def _pair(self, status: Mapping[str, Any]) -> Optional[ClientCertificate]:
        cert = self._text(status, "clientCertificateData")
        key = self._text(status, "clientKeyData")
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            raise self._failure("returned only certificate or key, not both")
        of = f"of exec plugin {self._plugin.command}"
        return check_pair(
            cert.encode(), f"clientCertificateData {of}", key.encode(), f"clientKeyData {of}"
        )

    def _expires(self, status: Mapping[str, Any]) -> Optional[float]:
        text = self._text(status, "expirationTimestamp")
        if text is None:
            return None
        found = _TIMESTAMP.fullmatch(text)
        if found is not None:
            day, clock, _, zone = found.groups()
            offset = "+00:00" if zone in "Zz" else zone
            with contextlib.suppress(ValueError, OverflowError):  # the 30th of February
                return datetime.datetime.fromisoformat(f"{day}T{clock}{offset}").timestamp()
        raise self._failure("returned an expirationTimestamp that is no time of RFC 3339")
