"""What command lines mean, without any cluster."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from kubews.cli.arguments import duration, parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("1m0s", 60.0),
        ("1h2m3s", 3723.0),
        ("1.5m", 90.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("250ms", 0.25),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1ns", 1e-9),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "5 s", "-5s", "1m30", "5s5", ".s", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="it should look like"):
        duration(text)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("exec -it web-0 -- ls -l", {"stdin": True, "tty": True, "remote": ["ls", "-l"]}),
        ("exec -it web-0 -- ls -- -l", {"names": ["web-0"], "remote": ["ls", "--", "-l"]}),
        ("exec web-0 -qic app", {"quiet": True, "stdin": True, "container": "app"}),
        ("exec web-0 --tty=true --stdin=false", {"tty": True, "stdin": False}),
        ("exec web-0 -it=false", {"tty": False, "stdin": True}),
        ("exec web-0 -ti=0 -q=T", {"tty": True, "stdin": False, "quiet": True}),
        ("exec web-0 -i=True --tty=F --quiet=1", {"tty": False, "stdin": True, "quiet": True}),
        ("exec web-0 -cx=i", {"container": "x=i", "stdin": False}),
        ("exec web-0", {"stdin": False, "remote": None, "pod_running_timeout": 60.0}),
        ("exec web-0 --", {"remote": []}),
        ("-n a exec web-0", {"namespace": "a", "context": None}),
        ("-n a exec -n b web-0", {"namespace": "b"}),
        ("--context=x -v exec web-0 --user u", {"context": "x", "verbose": True, "user": "u"}),
        ("exec web-0 -s https://h:1 --cluster c", {"server": "https://h:1", "cluster": "c"}),
        ("port-forward web-0 1 --address a 2", {"names": ["web-0", "1", "2"], "address": ["a"]}),
        ("attach -it web-0", {"detach_keys": "ctrl-p,ctrl-q", "tty": True}),
        ("shell web-0 -- bash -l", {"remote": ["bash", "-l"]}),
        ("local --version 1.28 --pod a --pod b", {"version": "1.28", "pod": ["a", "b"]}),
        ("--version", {"verbose": False}),
    ],
)
def test_command_lines(line: str, meant: dict[str, Any]) -> None:
    options = vars(parse(line.split())[0])
    assert {name: options[name] for name in meant} == meant


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exec web-0 --bogus", "--bogus"),
        ("exec web-0 -z", "-z"),
        ("exec web-0 --cont app", "--cont"),
        ("exec web-0 --stdin=perhaps", "perhaps"),
        ("exec web-0 -ti=perhaps", "perhaps"),
        ("exec -c", "-c/--container"),
        ("nonsense", 'unknown command "nonsense"; there are: exec, attach'),
        ("--bogus exec web-0", "--bogus"),
    ],
)
def test_wrong_command_lines(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert words in first
    assert second.startswith("See 'kubews")


@pytest.mark.parametrize("name", ["exec", "attach", "shell", "port-forward", "local", "version"])
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ([], ["-h"], ["help"], [name, "-h"], ["-n", "x", name, "--help"], ["help", name]):
        with pytest.raises(SystemExit) as caught:
            parse(line)
        assert caught.value.code == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert out.startswith(f"usage: kubews {name if name in line else '[flags] COMMAND'}")
        assert name in out
