"""No secret in anything that is printed: the whole suite is searched, and this sees to it that it is."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable
from typing import Any

import leaks
import pytest

import kubews
from kubews import Client, Config
from kubews.config import ClientCertificate, Cluster, ExecPlugin, Issued, Oidc, User
from kubews.config.proxies import Proxy
from kubews.identity import Identity
from kubews.testing import LocalCluster
from kubews.transport.deadline import NEVER

MAKERS: dict[str, Callable[[str], Any]] = {
    "token": lambda secret: User(token=secret),
    "password": lambda secret: User(username="u", password=secret),
    "key": lambda secret: User(client_key_data=secret.encode()),
    "pair": lambda secret: ClientCertificate(b"", secret.encode()),
    "issued": lambda secret: Issued(secret),
    "client secret": lambda secret: Oidc("https://idp", "c", client_secret=secret),
    "id token": lambda secret: Oidc("https://idp", "c", id_token=secret),
    "proxy": lambda secret: Proxy("http", "p", 1, "here", b"u", secret.encode()),
    "refresh token": lambda secret: Oidc("https://idp", "c", refresh_token=secret),
}


def report(text: str) -> pytest.TestReport:
    made = pytest.TestReport("t", ("t", 0, "t"), {}, "passed", None, "call")
    made.sections.append(("Captured stdout call", text))
    return made


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_made_into_a_credential_is_searched_for(name: str) -> None:
    """A test that printed one would fail, without printing it once more."""
    secret = secrets.token_hex(16)
    clean = report(f"before {secret}")
    leaks.check(clean)
    assert clean.outcome == "passed"
    made = MAKERS[name](secret)
    assert secret not in f"{made!r} {made}"
    leaking = report(f"before {secret}")
    leaks.check(leaking)
    assert leaking.outcome == "failed"
    assert secret not in f"{leaking.longrepr} {leaking.sections}"


def test_tokens_of_a_local_cluster_are_searched_for() -> None:
    with LocalCluster() as cluster:
        assert leaks.found(f"x{cluster.add_user('eve')}x")


def test_what_the_suite_logs_is_all_that_there_is_to_say(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("kubews").debug("at its most talkative")
    assert "at its most talkative" in caplog.text


SECRET = "s3cret-" + secrets.token_hex(16)
HIDDEN = [
    Config(Cluster("https://k"), User(token=SECRET)),
    Config(Cluster("https://k", proxy_url=f"http://u:{SECRET}@p")),
    Config(Cluster("https://k", exec_extension=SECRET)),
    Config(Cluster("https://k"), User(username="u", password=SECRET)),
    Config(Cluster("https://k"), User(client_key_data=SECRET.encode())),
    Config(Cluster("https://k"), User(exec=ExecPlugin("x", (SECRET,), (("PASSWORD", SECRET),)))),
    Config(Cluster("https://k"), User(oidc=Oidc("https://i", "c", SECRET, id_token=SECRET))),
    Config(Cluster("https://k"), User(oidc=Oidc("https://i", "c", refresh_token=SECRET))),
]


@pytest.mark.parametrize("number", range(len(HIDDEN)))
def test_no_repr_shows_one(number: int) -> None:
    """Of the configuration and of all that is made of it, and of its parts."""
    config = HIDDEN[number]
    client = Client(config)
    shown: list[Any] = [config, config.cluster, config.user, config.user.exec, config.user.oidc]
    shown += [client, client.pod("x"), Identity(config)]
    if not (config.user.exec or config.user.oidc or config.user.client_key_data):
        shown.append(Identity(config).show(NEVER))
    assert SECRET not in " ".join(f"{each!r} {each} {each!a}" for each in shown)
    client.close()


def test_no_refusal_shows_one(caplog: pytest.LogCaptureFixture) -> None:
    """With all that an exception carries, and with the log."""
    with LocalCluster() as cluster:
        token = cluster.add_user("eve", token=SECRET)
        config = Config.load(cluster.kubeconfig, context="eve")
        with Client(config, explain=True) as client:
            for action in (
                lambda: client.pod("web-0").run(["true"]),
                lambda: client.pod("web-0").connect(80),
                lambda: client.pod("deploy/web").run(["true"]),
                lambda: client.get("/api/v1/namespaces"),
            ):
                with pytest.raises(kubews.Forbidden) as caught:
                    action()
                said = "".join(traceback.format_exception(caught.value))
                assert token not in f"{said} {caught.value!r} {caught.value.__dict__}"
    assert "HTTP 403" in caplog.text
    assert token not in caplog.text
