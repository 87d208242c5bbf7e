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
    timestamp = "tag:yaml.org,2002:timestamp"

    class Loader(base):  # type: ignore[misc]
        # A namespace or token that looks like a date is a string, as it is for Go.
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != timestamp]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

    return Loader
