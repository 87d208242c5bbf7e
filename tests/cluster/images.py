"""The images of the pods, built here: no registry is asked for anything."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import binaries, rootfs
from .errors import say
from .layout import cache

BUSYBOX = "localhost/kubews/busybox:1"
TOOLS = "localhost/kubews/tools:1"
NOSHELL = "localhost/kubews/noshell:1"
PAUSE = "localhost/kubews/pause:1"

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class _Image:
    name: str
    make: Callable[[Path], None]  # writes the root file system as a tar archive
    command: tuple[str, ...]
    sources: tuple[str, ...]  # of what decides whether the cache is still good


def archives() -> list[Path]:
    """Build the images that the cache has not; return the archives that containerd can import.

    Raises:
        ClusterError: one cannot be built.

    Threads: blocks for about a minute the first time.
    """
    program = binaries.noshell()
    made_of = (program.parent.name,)

    def only_program(layer: Path) -> None:
        rootfs.single_program(layer, program)

    images = [
        _Image(PAUSE, only_program, ("/noshell", "pause"), made_of),
        _Image(NOSHELL, only_program, ("/noshell", "pause"), made_of),
        _Image(BUSYBOX, rootfs.busybox, ("sh",), (rootfs.busybox_version(),)),
        _Image(TOOLS, rootfs.debian, ("bash",), (rootfs.DEBIAN_RECIPE,)),
    ]
    return [_archive(image) for image in images]


def _archive(image: _Image) -> Path:
    key = hashlib.sha256(repr((image.name, image.command, image.sources)).encode())
    short = image.name.rpartition("/")[2].replace(":", "-")
    path = cache() / "images" / f"{short}-{key.hexdigest()[:12]}.tar"
    if path.exists():
        return path
    say(f"building the image {image.name}")
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        image.make(scratch / "layer.tar")
        _assemble(image, scratch / "layer.tar", scratch / "image.tar")
        (scratch / "image.tar").rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def _assemble(image: _Image, layer: Path, archive: Path) -> None:
    """Write an archive as ``docker save`` does: the layer, the configuration, the manifest."""
    with open(layer, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    config = {
        "architecture": _GO_NAMES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": [_PATH], "Cmd": list(image.command), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        "history": [{"created_by": "tests/cluster"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [image.name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        tar.add(layer, "layer.tar")
        _add_json(tar, "config.json", config)
        _add_json(tar, "manifest.json", manifest)


def _add_json(tar: tarfile.TarFile, name: str, value: Any) -> None:
    data = json.dumps(value).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
