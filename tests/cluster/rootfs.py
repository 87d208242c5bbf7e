"""Root file systems of images, each written as one tar archive."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from .commands import program, run
from .errors import ClusterError
from .layout import cache

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"

_PACKAGES = "python3,redis-server,nginx-light,bash,socat,procps,netcat-openbsd,tar,coreutils"
# Nobody reads manuals in a pod, and Debian's perl is more than a third of the whole.
_UNUSED = "usr/share/doc usr/share/man usr/share/locale usr/share/perl usr/lib/*/perl var/cache/*"

#: All that decides what the image of Debian packages has in it; edit it and the image is made anew.
DEBIAN_RECIPE = f"{_PACKAGES} without {_UNUSED}"


def single_program(layer: Path, path: Path) -> None:
    """Write a file system with one static program and nothing that could be a shell or tar."""
    with tarfile.open(layer, "w") as tar:
        _directories(tar)
        _file(tar, path.name, path.read_bytes(), 0o755)
        _users(tar)


def busybox(layer: Path) -> None:
    """Write a file system with busybox under all its names.

    Raises:
        ClusterError: there is no busybox, or not the static one.
    """
    path = Path(program("busybox"))
    listing = subprocess.run([path, "--list"], capture_output=True, text=True, timeout=30)
    names = listing.stdout.split()
    if "sh" not in names or "tar" not in names:
        raise ClusterError(f"{path} has no sh or no tar")
    with tarfile.open(layer, "w") as tar:
        _directories(tar)
        _file(tar, "bin/busybox", path.read_bytes(), 0o755)
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _users(tar)


def busybox_version() -> str:
    """Return the first line of what busybox says about itself."""
    done = subprocess.run([program("busybox")], capture_output=True, text=True, timeout=30)
    return done.stdout.partition("\n")[0]


def debian(layer: Path) -> None:
    """Write a small Debian of the release that runs here, with a few servers and tools.

    Raises:
        ClusterError: mmdebstrap failed.

    Threads: blocks for about half a minute.
    """
    hook = f'cd "$1" && rm -rf {_UNUSED}'
    options = ["--mode=root", "--variant=essential", f"--include={_PACKAGES}"]
    options.append(f"--customize-hook={hook}")
    run(
        "building the image of Debian packages",
        ["mmdebstrap", *options, _codename(), str(layer)],
        cache() / "logs" / "debian-image.log",
        timeout=900,
    )


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise ClusterError("/etc/os-release has no VERSION_CODENAME: this needs Debian")


def _directories(tar: tarfile.TarFile) -> None:
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/tmp"):
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE
        entry.mode = 0o1777 if name.endswith("tmp") else 0o755
        tar.addfile(entry)


def _users(tar: tarfile.TarFile) -> None:
    _file(tar, "etc/passwd", _PASSWD.encode(), 0o644)
    _file(tar, "etc/group", _GROUP.encode(), 0o644)


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
