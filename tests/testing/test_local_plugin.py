"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rawclient import SCALE

import kubews

ROOT = Path(kubews.__file__).parent.parent

TESTS = """
import pytest

def test_fixture(kube_cluster):
    kube_cluster.add_pod("web-0")
    assert kube_cluster.version == "1.36"

def test_every_test_has_its_own(kube_cluster):
    kube_cluster.add_pod("web-0")

@pytest.mark.kube_cluster(version="1.29")
def test_marker(kube_cluster):
    assert kube_cluster.version == "1.29"

@pytest.mark.kube_cluster("1.28")
class TestClosest:
    def test_positional(self, kube_cluster):
        assert kube_cluster.version == "1.28"

    @pytest.mark.kube_cluster(status_metadata=False)
    def test_the_closest_marker_counts_alone(self, kube_cluster):
        assert kube_cluster.version == "1.36"
"""


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
    )


def test_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    result = run_pytest(
        tmp_path, "-p", "kubews.testing.plugin", "--strict-markers", "-W", "error", "test_it.py"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 passed" in result.stdout


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    code = """
def test_nothing():
    import sys
    loaded = {name for name in sys.modules if name.startswith("kubews")}
    assert loaded == {"kubews", "kubews.testing", "kubews.testing.plugin"}
    assert not {"h11", "websockets", "trustme"} & set(sys.modules)
"""
    (tmp_path / "test_it.py").write_text(code)
    result = run_pytest(tmp_path, "-p", "kubews.testing.plugin", "test_it.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_entry_point_is_declared() -> None:
    text = (ROOT / "setup.cfg").read_text()
    assert "pytest11" in text
    assert "kubews = kubews.testing.plugin" in text
