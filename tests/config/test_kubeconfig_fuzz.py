"""Whatever a file holds: a Config or a ConfigError, and none of its values in the message."""

from __future__ import annotations

import json
import tempfile
import traceback
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubews.config import Config, Credentials
from kubews.config.entries import _FIELDS
from kubews.errors import ConfigError

SECRET = "s3cret"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "a", "b", SECRET, "YQ==", "https://a:1", "https://[::1]/x", "/", "\0"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
names = st.sampled_from(["a", "b", ""])


def mostly(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda n: anything if n == 0 else strategy)


def entries(section: str, likely: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    body = st.fixed_dictionaries(
        {key: mostly(value) for key, value in likely.items()},
        optional={key: mostly(scalars) for key in _FIELDS[section] if key not in likely},
    )
    entry = st.fixed_dictionaries({"name": mostly(names), section[:-1]: mostly(body)})
    return mostly(st.lists(mostly(entry), max_size=3))


documents = mostly(
    st.fixed_dictionaries(
        {
            "current-context": names,
            "clusters": entries("clusters", {"server": st.just("https://a:1")}),
            "users": entries("users", {}),
            "contexts": entries("contexts", {"cluster": names, "user": names}),
        },
        optional={"kind": scalars, "apiVersion": scalars, "preferences": anything},
    )
)


def check(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config"
        path.write_bytes(data)
        try:
            config = Config.load(path)
            hash(config)
            config.cluster.ca_pem()
            Credentials(config.user).headers()
            Credentials(config.user).client_certificate()
        except ConfigError as exc:
            shown = "".join(traceback.format_exception(exc))
        else:
            shown = repr(config)
    assert "token=" not in shown


@settings(max_examples=80, deadline=None)
@given(documents)
def test_structures_in_json(document: Any) -> None:
    check(json.dumps(document).encode())


@settings(max_examples=60, deadline=None)
@given(documents)
def test_structures_in_yaml(document: Any) -> None:
    try:
        text = yaml.safe_dump(document, allow_unicode=True)
    except UnicodeEncodeError:
        return
    check(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="a:-[]{}&*!|>'\"#%@,? \n\t", max_size=40))
def test_texts(text: Any) -> None:
    check(text if isinstance(text, bytes) else text.encode())


FIELDS = [
    (section, key)
    for section, fields in _FIELDS.items()
    for key in fields
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIELDS), anything, st.booleans())
def test_no_message_shows_a_value(where: tuple[str, str], value: Any, wrap: bool) -> None:
    section, key = where
    secret: Any = [SECRET, value] if wrap else f"\x01{SECRET}\n{SECRET}"
    sections: dict[str, dict[str, Any]] = {
        "clusters": {"server": "https://a"},
        "users": {},
        "contexts": {"cluster": "a", "user": "a"},
    }
    if key in ("cluster", "user", "namespace", "as") or (
        key.endswith(("certificate", "key", "authority"))
    ):
        return  # names and paths are no secrets, and messages need them
    sections[section][key] = secret
    document = {name: [{"name": "a", name[:-1]: body}] for name, body in sections.items()}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config"
        path.write_text(json.dumps({"current-context": "a", **document}))
        try:
            config = Config.load(path)
            shown = repr((config, config.cluster, config.user))
            if key not in ("tokenFile", "tls-server-name"):
                Credentials(config.user).headers()
        except ConfigError as exc:
            shown = "".join(traceback.format_exception(exc))
    assert SECRET not in shown
