"""The Go programs, built from published modules and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .commands import program, run
from .errors import ClusterError, say
from .layout import GO, Layout, cache

_SMALL = ["-s", "-w"]  # without what only debuggers read
PROGRAMS = ("kube-apiserver", "kubelet")

_ENV = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}

# Seconds for downloading and building everything with no cache at all on a small machine.
_BUILD_TIMEOUT = 2400.0


def home(layout: Layout) -> Path:
    """Return the directory of kube-apiserver and kubelet, whether or not they are built."""
    return _home(_name(layout), layout.module, _flags(layout))


def kubernetes(layout: Layout) -> Path:
    """Build kube-apiserver and kubelet unless the cache has them; return their directory.

    Raises:
        ClusterError: the build failed.

    Threads: blocks for some minutes the first time.
    """
    packages = [f"./cmd/{name}" for name in PROGRAMS]
    return _build(_name(layout), layout.module, _flags(layout), packages)


def noshell() -> Path:
    """Build the program of the images without a shell; return its path.

    Raises:
        ClusterError: the build failed.

    Threads: blocks for some seconds the first time.
    """
    return _build("noshell", GO / "noshell", _SMALL, ["."]) / "noshell"


def shims_home() -> Path:
    """Return the directory of containerd's shim, whether or not it is built."""
    return _home("shim", GO / "shim", _SMALL)


def shims() -> Path:
    """Build the program that containerd starts for each pod; return its directory.

    Raises:
        ClusterError: the build failed.

    Threads: blocks for some seconds the first time.
    """
    return _build("shim", GO / "shim", _SMALL, ["./cmd/..."])


def _name(layout: Layout) -> str:
    return f"kubernetes-{layout.release}"


def _flags(layout: Layout) -> list[str]:
    major, minor = layout.version.split(".")
    variable = "k8s.io/component-base/version."
    # Without them the server says that it is v0.0.0, and clients draw conclusions from that.
    names = {"gitVersion": f"v{layout.release}", "gitMajor": major, "gitMinor": minor}
    return [*_SMALL, *(f"-X {variable}{name}={value}" for name, value in names.items())]


def _home(name: str, module: Path, flags: list[str]) -> Path:
    return cache() / "bin" / f"{name}-{_digest(module, flags)}"


def _build(name: str, module: Path, flags: list[str], packages: list[str]) -> Path:
    folder = _home(name, module, flags)
    if folder.is_dir():
        return folder
    _check_go(module)
    log = cache() / "logs" / f"build-{name}.log"
    say(f"building {name} (the first time only); the log is {log}")
    # Built aside and renamed: a build that was interrupted leaves nothing that looks finished.
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    target = ["-o", f"{unfinished}/"]
    try:
        with tempfile.TemporaryDirectory(prefix="kubews-build-") as scratch:
            run(
                f"building {name}",
                ["go", "build", "-trimpath", f"-ldflags={' '.join(flags)}", *target, *packages],
                log,
                timeout=_BUILD_TIMEOUT,
                cwd=_patched(module, Path(scratch)),
                env=_ENV,
            )
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _patched(module: Path, scratch: Path) -> Path:
    """Return a module to build in the place of another: with a patched copy of what it is made of.

    Raises:
        ClusterError: the patch does not fit.
    """
    patch = module / "patch.json"
    if not patch.exists():
        return module
    wanted = json.loads(patch.read_text())
    published = wanted["module"]
    log = cache() / "logs" / "build-patched.log"

    def go(what: str, *argv: str, cwd: Path) -> None:
        run(f"{what} {published}", ["go", *argv], log, timeout=_BUILD_TIMEOUT, cwd=cwd, env=_ENV)

    go("fetching", "mod", "download", published, cwd=module)
    where = _ask_go(["list", "-m", "-f", "{{.Dir}}", published], module).stdout.strip()
    source, copy = scratch / "source", scratch / "module"
    # Only the contents: what Go keeps is read-only.
    shutil.copytree(where, source, copy_function=shutil.copyfile)
    shutil.copytree(module, copy)
    file = source / wanted["file"]
    text = file.read_text()
    for old, new in wanted["replace"]:
        if text.count(old) != 1:
            raise ClusterError(
                f"{patch} does not fit {published}: {wanted['file']} has not once {old!r}"
            )
        text = text.replace(old, new)
    file.write_text(text)
    go("replacing", "mod", "edit", f"-replace={published}={source}", cwd=copy)
    return copy


def _ask_go(argv: list[str], module: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("go"), *argv],
        cwd=module,
        env={**os.environ, **_ENV},
        capture_output=True,
        text=True,
        timeout=300,  # it may have to fetch another Go
    )


def _check_go(module: Path) -> None:
    """Ask Go whether it can build a module: an old one fetches the one that is needed, if it may.

    Raises:
        ClusterError: it cannot.
    """
    done = _ask_go(["list", "-m"], module)
    if done.returncode:
        needed = re.search(r"^go (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
        assert needed, f"{module}/go.mod does not say which Go"
        raise ClusterError(
            f"{program('go')} is too old: this needs Go {needed[1]}, or 1.21 and later with GOTOOLCHAIN=auto and "
            f"a network to fetch that one ({done.stderr.strip().splitlines()[-1]})"
        )


def _digest(module: Path, flags: list[str]) -> str:
    """Return a name for exactly these sources: what is edited is built anew."""
    digest = hashlib.sha256(f"{platform.machine()} {flags}".encode())
    for path in sorted(module.rglob("*")):
        if path.is_file():
            digest.update(f"\0{path.relative_to(module)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
