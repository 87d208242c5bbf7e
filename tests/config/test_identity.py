"""What one connection shows: kept while it is good, and got once for all that want it."""

from __future__ import annotations

import datetime
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from pluginscripts import Plugins, credential
from support import eventually, in_thread, seconds

from kubews.config import ClientCertificate, Cluster, Config, Impersonation, User
from kubews.errors import AuthPluginError, CredentialsError
from kubews.identity import Identity, Shown
from kubews.transport.deadline import NEVER, Deadline

SECRET = "s3cret-of-plugin"


@pytest.fixture
def plugins(machine: Path) -> Plugins:
    return Plugins(machine)


def identity(user: User, server: str = "https://kube:6443") -> Identity:
    return Identity(Config(Cluster(server), user))


def bearer(shown: Shown) -> str:
    (value,) = [value for name, value in shown.headers if name == "Authorization"]
    return value.removeprefix("Bearer ")


def in_seconds(value: float) -> str:
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=value)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# -- one user, many threads


def test_fifty_threads_ask_at_once_and_the_plugin_runs_once_r30(plugins: Plugins) -> None:
    """R-30: and once more for all of them when the server has refused what it gave."""
    os.mkfifo("gate")
    plugin = plugins.write(
        f"cat gate > /dev/null; n=$(wc -l < runs); echo '{credential(token='token-N')}' | sed s/N/$n/"
    )
    mine = identity(User(exec=plugin))
    asking = [in_thread(mine.show, Deadline(seconds(60))) for _ in range(50)]
    open_gate()
    shown = [each.result(seconds(60)) for each in asking]
    assert {bearer(each) for each in shown} == {"token-1"}
    assert plugins.runs == 1

    def again(refused: Shown) -> Shown:
        mine.refused(refused)
        return mine.show(Deadline(seconds(60)))

    asking = [in_thread(again, each) for each in shown]
    open_gate()
    assert {bearer(each.result(seconds(60))) for each in asking} == {"token-2"}
    assert plugins.runs == 2
    assert SECRET not in repr(shown)


def open_gate() -> None:
    with open("gate", "w"):  # waits for the plugin
        pass


def test_fifty_threads_get_the_same_failure_r31(plugins: Plugins) -> None:
    os.mkfifo("gate")
    mine = identity(User(exec=plugins.write("cat gate > /dev/null; exit 3")))
    asking = [in_thread(mine.show, Deadline(seconds(60))) for _ in range(50)]
    assert eventually(lambda: plugins.runs == 1, 30)
    assert eventually(lambda: waiting(mine) == 49, 30)
    open_gate()
    for each in asking:
        with pytest.raises(AuthPluginError, match="exit code 3"):
            each.result(seconds(60))
    assert plugins.runs == 1


def waiting(mine: Identity) -> int:
    asking = mine._asking
    return len(asking.waiters.tickets) if asking is not None else 0


def test_who_has_less_time_does_not_fail_the_others_r53(plugins: Plugins) -> None:
    """R-53: the second run is for the one that can wait."""
    waits = "until test -e released; do sleep 0.05; done"
    plugin = plugins.write(f"{waits}\necho '{credential(token='second')}'")
    mine = identity(User(exec=plugin))
    hasty = in_thread(mine.show, Deadline(1.0))
    assert eventually(lambda: mine._asking is not None)
    patient = in_thread(mine.show, Deadline(seconds(60)))
    with pytest.raises(AuthPluginError, match="did not end within"):
        hasty.result(seconds(30))
    Path("released").touch()
    assert bearer(patient.result(seconds(60))) == "second"


def test_waiting_for_another_threads_answer_has_a_limit(plugins: Plugins) -> None:
    os.mkfifo("gate")
    plugin = plugins.write(f"cat gate > /dev/null; echo '{credential(token='t')}'")
    mine = identity(User(exec=plugin))
    first = in_thread(mine.show, Deadline(seconds(60)))
    assert eventually(lambda: plugins.runs == 1, 30)
    with pytest.raises(CredentialsError, match="within the time limit"):
        mine.show(Deadline(0.05))
    open_gate()
    assert bearer(first.result(seconds(60))) == "t"


@pytest.mark.parametrize("wakes", [True, False])
def test_ctrl_c_leaves_it_to_the_next(plugins: Plugins, wakes: bool) -> None:
    """Also if it does not wake the wait of the main thread: right before that, it does not."""
    slow = "test $(wc -l < runs) -gt 1 || exec sleep 1000"
    plugin = plugins.write(f"{slow}\necho '{credential(token='second')}'")
    mine = identity(User(exec=plugin))
    others: list[Any] = []

    def interrupt() -> None:
        assert eventually(lambda: plugins.runs == 1, 30)
        others.append(in_thread(mine.show, Deadline(seconds(60))))
        assert eventually(lambda: waiting(mine) == 1, 30)
        assert eventually(lambda: "kubews plugin" in str(threading.enumerate()), 30)
        waker = threading.main_thread() if wakes else threading.current_thread()
        signal.pthread_kill(waker.ident or 0, signal.SIGINT)

    interrupting = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        mine.show(Deadline(seconds(60)))
    interrupting.result(seconds(60))
    assert bearer(others[0].result(seconds(60))) == "second"


# -- how long it is kept


@pytest.mark.parametrize(("lives", "runs"), [(None, 1), (3600, 1), (5, 3), (-5, 3)])
def test_kept_until_it_expires_r30(plugins: Plugins, lives: Any, runs: int) -> None:
    """R-30: some seconds before its end it counts as over; what is over already is used once."""
    ends = {} if lives is None else {"expirationTimestamp": in_seconds(lives)}
    mine = identity(User(exec=plugins.printing(credential(token="t", **ends))))
    for _ in range(3):
        assert bearer(mine.show(NEVER)) == "t"
    assert plugins.runs == runs


def test_only_what_was_refused_is_thrown_away(plugins: Plugins) -> None:
    mine = identity(User(exec=plugins.printing(credential(token="t"))))
    first = mine.show(NEVER)
    mine.refused(first)
    second = mine.show(NEVER)
    mine.refused(first)  # by a connection that was slow
    assert mine.show(NEVER).issued is second.issued
    assert plugins.runs == 2


def test_files_are_read_again_after_a_refusal(machine: Path) -> None:
    (machine / "tok").write_text("one")
    mine = identity(User(token_file="tok"))
    shown = mine.show(NEVER)
    (machine / "tok").unlink()
    assert bearer(mine.show(NEVER)) == "one"
    mine.refused(shown)
    with pytest.raises(CredentialsError, match="failed to read token file"):
        mine.show(NEVER)


# -- what goes before what


def test_a_certificate_of_a_plugin_and_a_token(plugins: Plugins, pem: Any) -> None:
    pair = {"clientCertificateData": pem.cert.decode(), "clientKeyData": pem.key.decode()}
    mine = identity(User(exec=plugins.printing(credential(token="t", **pair))))
    shown = mine.show(NEVER)
    assert (bearer(shown), shown.certificate) == ("t", ClientCertificate(pem.cert, pem.key))
    mine = identity(User(exec=plugins.printing(credential(**pair))))
    shown = mine.show(NEVER)
    assert (shown.headers, shown.certificate) == ((), ClientCertificate(pem.cert, pem.key))


def test_the_plugin_is_not_run_if_there_is_something_else(plugins: Plugins, pem: Any) -> None:
    plugin = plugins.write("exit 1")
    for user in (
        User(token="t", exec=plugin),
        User(username="u", password="p", exec=plugin),
        User(client_certificate_data=pem.cert, client_key_data=pem.key, exec=plugin),
    ):
        identity(user).show(NEVER)
    assert plugins.runs == 0


def test_over_plain_http_nothing_is_shown_but_whom_to_be(plugins: Plugins) -> None:
    plugin = plugins.write("exit 1")
    user = User(exec=plugin, impersonate=Impersonation("bob"))
    shown = identity(user, "http://kube").show(NEVER)
    assert shown == Shown((("Impersonate-User", "bob"),))
    assert plugins.runs == 0


def test_impersonation_headers_r36() -> None:
    """R-36: one line for each; names and values as client-go writes them."""
    acting = Impersonation(
        "b\u00f6b",
        "7",
        ("a", "b"),
        (("scopes", ("one", "two")), ("Acme.com/Some Key%\u00fc", ("x",))),
    )
    assert acting.headers() == [
        ("Impersonate-User", "b\u00c3\u00b6b"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-scopes", "one"),
        ("Impersonate-Extra-scopes", "two"),
        ("Impersonate-Extra-Acme.com%2FSome%20Key%25%C3%BC", "x"),
    ]
