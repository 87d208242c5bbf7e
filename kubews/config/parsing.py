"""The text of a kubeconfig, or of what an exec plugin prints: YAML, of which JSON is nearly a part.

Threads: functions without state.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from kubews.errors import ConfigError

_MAX_DEPTH = 100  # a kubeconfig needs about ten

# Which words are no strings for Go (sigs.k8s.io/yaml: goyaml.v2/resolve.go), where PyYAML goes other ways:
# 12:34, 2020-01-01 and = are strings there; y, n, 089 and 1e3 are none. With the letters that they begin with.
_TAG = "tag:yaml.org,2002:"
_NO_STRINGS = [
    ("bool", "y|Y|n|N", "yYnN"),
    (
        "int",
        "[-+]?(?:0b[01][01_]*|0o?[0-7][0-7_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0|[1-9][0-9_]*)",
        "-+0123456789",
    ),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
]
_ELSEWHERE = {_TAG + name for name in ("int", "float", "timestamp", "value")}


def parse(text: bytes, where: str) -> Any:
    """Parse JSON or YAML. What is wrong is said without a word of the text: it holds credentials.

    Args:
        text: one document; of several only the first counts, as for kubectl.
        where: what to begin the message with.

    Raises:
        ConfigError: it is neither; names line and column.
    """
    if text.lstrip()[:1] == b"{":
        # YAML nearly contains JSON, but forbids tabs; and the json module is much faster.
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # {a: b} is YAML
    try:
        return _parse_yaml(text)
    except Exception as exc:
        # Not only YAMLError: malformed values of tagged nodes come out as KeyError, AttributeError, ...
        problem = _yaml_problem(exc)
    # Outside the handler: PyYAML's own exceptions quote the text, and would be our __context__.
    raise ConfigError(f"{where}: {problem}")


def lay_out(document: Any) -> str:
    """Write a document as YAML, with quotes around every string that Go or PyYAML would take for none."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    _add_no_strings(Dumper)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text


def _parse_yaml(text: bytes) -> Any:
    """Construct the first document, the only one that counts for kubectl."""
    _check_depth(text)
    loader = _loader_class()(text)
    try:
        return loader.get_data() if loader.check_data() else None
    finally:
        loader.dispose()


def _check_depth(text: bytes) -> None:
    """Refuse a document that is nested too deeply.

    PyYAML's C loader composes nodes recursively without looking at the stack: a hundred thousand
    opening brackets end the interpreter with a segmentation fault. Reading events does not recurse.
    """
    from yaml.events import CollectionEndEvent, CollectionStartEvent, DocumentEndEvent

    loader = _loader_class()(text)
    depth = 0
    try:
        while loader.check_event() and depth <= _MAX_DEPTH:
            event = loader.get_event()
            if isinstance(event, DocumentEndEvent):
                return
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
    finally:
        loader.dispose()
    if depth > _MAX_DEPTH:
        raise RecursionError


def _yaml_problem(exc: Exception) -> str:
    mark = getattr(exc, "problem_mark", None)
    # After the first quotation mark comes text of the file.
    problem = re.split(r"['\"`]", getattr(exc, "problem", None) or "")[0].strip(" ,")
    if isinstance(exc, RecursionError) or "nesting depth" in problem:  # newer libyaml's own limit
        return "yaml: nested too deeply"
    line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"yaml: {line}{problem or 'not readable as YAML or JSON'}"


@functools.cache
def _loader_class() -> Any:
    """Make the YAML loader; here, because importing yaml costs more than the rest of this package."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        bool_values = {**base.bool_values, "y": True, "n": False}
        yaml_implicit_resolvers = {
            first: [each for each in resolvers if each[0] not in _ELSEWHERE]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

    _add_no_strings(Loader)
    Loader.add_constructor(f"{_TAG}merge", Loader.construct_yaml_str)  # << where it is no key
    Loader.add_constructor(
        f"{_TAG}binary", lambda loader, node: loader.construct_yaml_binary(node).decode()
    )
    return Loader


def _add_no_strings(resolver: Any) -> None:
    for name, pattern, first in _NO_STRINGS:
        resolver.add_implicit_resolver(_TAG + name, re.compile(f"(?:{pattern})$"), list(first))
