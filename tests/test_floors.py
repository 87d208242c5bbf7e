"""Imports point down only, protocol/ does no I/O, and one module alone knows websocket-client."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kubews"

# A module may import from lower floors and from its own package; what shares a floor otherwise must
# not know its neighbours. testing/ is the server side: it may use everything, nothing uses it.
FLOORS = [
    ["errors"],
    ["protocol", "config"],
    ["transport"],
    ["identity"],
    ["access"],
    ["client", "bridge", "userfiles", "command", "detach", "documents"],
    ["streams", "choice", "ports", "refusals", "redirection"],
    ["below"],
    ["wrappers"],
    ["copier", "console"],
    ["targets"],
    ["session", "tunnels", "listeners", "podsocket"],
    ["logsource", "logstream"],
    ["logs", "options"],
    ["mergedlogs"],
    ["podlogs"],
    ["signals"],
    ["ending"],
    ["communicate"],
    ["popen", "forwarder"],
    ["attach"],
    ["terminal", "expect"],
    ["process", "portforward", "files", "proxy"],
    ["podfiles", "served"],
    ["pod"],
    ["testing"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# Client.pod() is where everybody starts: a method that makes the topmost object.
UPWARD = {("client", "pod"), ("client", "podlogs"), ("client", "served")}

FORBIDDEN_IN_PROTOCOL = {"socket", "ssl", "threading", "time", "logging", "websocket", "select"}

# Packages of an extra, imported when they are needed, by one module each.
EXTRAS = {
    "expect.py": "pexpect",
    "transport/wire.py": "websockets",
    "files/checksums.py": "fastcrc",
    "transport/proxied.py": "python_socks",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the full name of every imported module, and whether it counts at run time."""
    tree = parsed(path)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for child in block.body
        for node in ast.walk(child)
    }
    package = ("kubews", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) not in typing_only


def unit(name: str) -> str:
    """Return the file or package of kubews that a dotted name lies in."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    me = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if me == "__init__":
        return  # the names of the package, loaded on first use
    assert me in FLOOR, f"{me} stands on no floor: say here where it belongs"
    for name, at_run_time in imports(path):
        other = unit(name)
        if not name.startswith("kubews.") or other == me or other not in FLOOR or not at_run_time:
            continue
        assert FLOOR[other] < FLOOR[me] or (me, other) in UPWARD, f"{me} imports {name}"


@pytest.mark.parametrize(
    "path",
    sorted((PACKAGE / "protocol").glob("*.py")),
    ids=lambda path: path.name,
)
def test_protocols_do_no_io(path: Path) -> None:
    for name, _ in imports(path):
        assert name.split(".")[0] not in FORBIDDEN_IN_PROTOCOL


def test_one_module_alone_knows_websocket_client() -> None:
    knows = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        for name, _ in imports(path)
        if name.split(".")[0] == "websocket"
    }
    assert knows == {"transport/wire.py"}


def test_nothing_but_the_three_packages_is_needed_at_run_time() -> None:
    allowed = {*sys.stdlib_module_names, "kubews", "websocket", "yaml", "certifi"}
    for path in MODULES:
        inside = path.relative_to(PACKAGE).as_posix()
        if inside.startswith("testing/"):
            continue
        extra = EXTRAS.get(inside)
        for name, at_run_time in imports(path):
            package = name.split(".")[0]
            assert not at_run_time or package in {*allowed, extra}, f"{inside} imports {name}"


def documented(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield name, docstring and whether it is a class, of everything public in a module."""
    tree = parsed(path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    members = [member for owner in classes for member in owner.body if owner.name[0] != "_"]
    for node in (*tree.body, *members):
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name[0] == "_":
            continue
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        if "setter" not in decorators and "overload" not in decorators:
            yield node.name, ast.get_docstring(node) or "", isinstance(node, ast.ClassDef)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring_and_every_class_speaks_of_threads(path: Path) -> None:
    about_all = "Threads:" in (ast.get_docstring(parsed(path)) or "")
    for name, text, is_class in documented(path):
        assert text, f"{name} has no docstring"
        assert not is_class or about_all or "Threads:" in text, f"{name} says nothing of threads"
