"""The names that users import, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kubews


def test_every_public_name_is_there() -> None:
    for name in kubews.__all__:
        assert getattr(kubews, name) is not None
        assert name in dir(kubews)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kubews.nothing  # noqa: B018


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(kubews.__file__).read_text())
    imported = {
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {*kubews.__all__} - {"__version__"}


def test_the_constants_are_those_of_subprocess() -> None:
    assert (kubews.PIPE, kubews.STDOUT, kubews.DEVNULL) == (
        subprocess.PIPE,
        subprocess.STDOUT,
        subprocess.DEVNULL,
    )
    for name in ("CompletedProcess", "CalledProcessError", "SubprocessError"):
        assert getattr(kubews, name) is getattr(subprocess, name)


def test_importing_kubews_loads_nothing_else() -> None:
    script = (
        "import sys; before = set(sys.modules); import kubews;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=30, capture_output=True, text=True
    )
    assert set(done.stdout.split()) <= {"kubews", "__future__"}
