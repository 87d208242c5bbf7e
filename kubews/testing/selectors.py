"""Selectors in a query: which labels, or fields, are asked for.

Threads: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubews.testing import objects
from kubews.testing.access import Refused

# A comma between parentheses belongs to the term.
_TERM = re.compile(r"(?:[^,(]|\([^)]*\))+")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_KEY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?")
_EQUALITY = re.compile(r"(?P<key>[^=!]+)(?P<operator>!=|==?)(?P<value>[^=]*)")


def selected(selector: str, values: Mapping[str, str]) -> bool:
    """Tell whether a selector (``a=b,c!=d,e,!f,g in (h,i),j notin (k)``) selects these values.

    A label that is missing is none of those that are excluded, as on a real server
    (apimachinery, ``labels/selector.go: Requirement.Matches``).

    Raises:
        Refused: 400, for what is no selector.
    """
    if _TERM.sub("", selector).strip(","):  # a parenthesis without the other
        raise Refused(objects.bad_request(f"unable to parse requirement: {selector}"))
    terms = [term.strip() for term in _TERM.findall(selector)]
    return all(_matches(term, values) for term in terms if term)


def _matches(term: str, values: Mapping[str, str]) -> bool:
    if found := _SET.fullmatch(term):
        wanted = {value.strip() for value in found["values"].split(",")}
        key = _checked(found["key"], term)
        return (values.get(key) in wanted) == (found["operator"] == "in")
    if found := _EQUALITY.fullmatch(term):
        key, value = _checked(found["key"].strip(), term), found["value"].strip()
        return (values.get(key) == value) != (found["operator"] == "!=")
    key = _checked(term.lstrip("!").strip(), term)
    return (key in values) != term.startswith("!")


def _checked(key: str, term: str) -> str:
    if not _KEY.fullmatch(key):
        raise Refused(objects.bad_request(f"unable to parse requirement: {term}"))
    return key
