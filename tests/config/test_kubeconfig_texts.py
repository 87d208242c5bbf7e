"""The text of a kubeconfig: what is no YAML, what has another shape, and what only looks odd."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from test_kubeconfig import minimal

from kubews.config import (
    Config,
    incluster,
    kubeconfig,
    parsing,
)
from kubews.errors import ConfigError

TEXTS = [
    ("a: b: c", r"yaml: line 1, column 5: mapping values are not allowed"),
    ("users:\n\t- x", r"yaml: line 2, column 1: found character that cannot start"),
    ("[" * 100_000, "yaml: nested too deeply"),
    ("- " * 100_000, "yaml: nested too deeply"),
    ('{"a":' * 100_000, "yaml: nested too deeply"),
    ("x: !!timestamp nothing", "yaml: not readable"),
    ("x: !!bool nothing", "yaml: not readable"),
    ("{users: " + "9" * 5000 + "}", "yaml: not readable|users must be a list"),
    ("token: *s3cret", "yaml: line 1, column 8: found undefined alias"),
    ("token: !s3cret", "yaml: line 1, column 8: could not determine a constructor for the tag"),
    ("token: 'a' s3cret", "yaml: line 1, column 12: "),
    ("s3cret: \x00", "yaml: not readable"),
    ("[]", "the top level must be a mapping, not a list"),
    ("s3cret", "the top level must be a mapping, not a string"),
    ("5", "the top level must be a mapping, not a number"),
    ("!!set {}", "the top level must be a mapping, not set"),
    ("apiVersion: v2", "apiVersion must be v1"),
    ("apiVersion: 1", r"apiVersion must be a string, not a number \(put it in quotes\)"),
    ("kind: Pod", "kind must be Config"),
    ("current-context: yes", r"current-context must be a string, not a boolean \(put it in"),
    ("current-context: {}", "current-context must be a string, not a mapping$"),
    ("clusters: {}", "clusters must be a list, not a mapping"),
    ("clusters: [5]", r"clusters\[0\] must be a mapping, not a number"),
    ("users: [{}, {name: 5}]", r"users\[1\].name must be a string"),
    ("users: [{name: a}, {name: a}]", r'users\[1\].name "a" is a duplicate name in the list'),
    ("users: [null, null]", r'users\[1\].name "" is a duplicate name'),
    ("users: [{name: a, user: []}]", 'user "a" must be a mapping, not a list'),
    ("users: [{name: a, user: {token: 1.5}}]", 'user "a": token must be a string, not a number'),
    ("users: [{name: a, user: {tokenFile: []}}]", 'user "a": tokenFile must be a string'),
    ("users: [{name: a, user: {exec: s3cret}}]", 'user "a": exec must be a mapping'),
    ("users: [{name: a, user: {as-groups: s3cret}}]", 'user "a": as-groups must be a list'),
    ("users: [{name: a, user: {client-key-data: s3cret}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: YQ}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: 'YQ ='}}]", "client-key-data is not valid base64"),
    ("users: [{name: a, user: {client-key-data: 'ü'}}]", "client-key-data is not valid base64"),
    (
        "clusters: [{name: k, cluster: {insecure-skip-tls-verify: 's3cret'}}]",
        'cluster "k": insecure-skip-tls-verify must be true or false, not a string',
    ),
    ("contexts: [{name: c, context: {namespace: 12}}]", 'context "c": namespace must be a string'),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_broken_files(machine: Path, text: str, expected: str) -> None:
    path = machine / "broken"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        Config.load(path)
    assert str(caught.value).startswith(f'error loading config file "{path}": ')
    shown = "".join(traceback.format_exception(caught.value))
    shown += f"{caught.value!r}{caught.value.__context__!r}"
    assert "s3cret" not in shown.replace(str(machine), "")  # pytest names directories after texts


def test_bytes_that_are_no_text(machine: Path) -> None:
    path = machine / "broken"
    for data in (b"\xff\xfe\xff", b"token: s3cret\xff", b"{\xff", b"\x80"):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="yaml: ") as caught:
            Config.load(path)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ["", "\n", "---\n", "null", "# nothing", "{}", "--- {}\n---\n[]"])
def test_empty_files(machine: Path, text: str) -> None:
    (machine / "empty").write_text(text)
    assert kubeconfig.read_all(machine / "empty").contexts == {}


def test_json_with_tabs_and_yaml_that_looks_like_json(machine: Path) -> None:
    path = machine / "config"
    for text in ('{\t"current-context":\t"x"}', "{current-context: x}", "\ufeffcurrent-context: x"):
        path.write_text(text, encoding="utf-8")
        assert kubeconfig.read_all(path).current_context == "x"


def test_what_looks_like_a_date_is_a_string(machine: Path) -> None:
    (machine / "config").write_text("current-context: 2020-01-01")
    assert kubeconfig.read_all(machine / "config").current_context == "2020-01-01"


def test_without_libyaml(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    parsing._loader_class.cache_clear()
    try:
        assert issubclass(parsing._loader_class(), yaml.SafeLoader)
        assert Config.load(minimal(machine / "one", "one")).context == "one"
        for text in ("token: *s3cret", "token: 's3cret", "a: s3cret: b", "[" * 5000):
            (machine / "bad").write_text(text)
            with pytest.raises(ConfigError, match="yaml: ") as caught:
                Config.load(machine / "bad")
            shown = "".join(traceback.format_exception(caught.value))
            assert "s3cret" not in shown
    finally:
        parsing._loader_class.cache_clear()


def test_no_secret_in_the_repr_of_what_is_between(machine: Path) -> None:
    merged = kubeconfig.read_all(minimal(machine / "one", "one"))
    assert "tok-one" not in repr(merged)
    assert incluster.possible() is False
