"""The exception tree."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess

import pytest

import kubews
from kubews import errors

TREE = {
    "ConfigError": ValueError,
    "CredentialsError": errors.ConfigError,
    "BadRequest": errors.ApiError,
    "ConnectFailed": ConnectionError,
    "ConnectTimeout": TimeoutError,
    "ConnectionLost": ConnectionError,
    "StreamBroken": BrokenPipeError,
    "HalfCloseUnsupported": io.UnsupportedOperation,
    "BufferFull": BufferError,
    "ReadTimeout": TimeoutError,
    "NotReady": TimeoutError,
    "LocalProtocolError": errors.ProtocolError,
    "RemoteProtocolError": errors.ProtocolError,
    "ProcessError": subprocess.CalledProcessError,
    "TimeoutExpired": subprocess.TimeoutExpired,
}

EXAMPLES = [
    errors.KubewsError("text"),
    errors.ApiError(
        "text", code=404, reason="NotFound", status={"a": 1}, body="b", retry_after=2.0
    ),
    errors.Forbidden("text", code=403),
    errors.ConnectionLost("text", received={"stdout": 3}, partial=(b"abc", None)),
    errors.ExecError("text", status={"status": "Failure"}, partial=b"x"),
    errors.StreamBroken("text"),
    errors.HalfCloseUnsupported("text"),
    errors.BufferFull("text"),
    errors.ConnectTimeout("text"),
    errors.ProcessError(3, ["a"], b"out", b"err"),
    errors.TimeoutExpired(["a", "text"], 1.5, b"out", b"err"),
]


def every_error() -> list[type[errors.KubewsError]]:
    found = [errors.KubewsError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize(("name", "base"), TREE.items(), ids=str)
def test_each_is_also_what_a_caller_would_guess(name: str, base: type) -> None:
    assert issubclass(getattr(errors, name), base)


@pytest.mark.parametrize("exc", EXAMPLES, ids=lambda exc: type(exc).__name__)
def test_each_survives_pickling_and_copying(exc: errors.KubewsError) -> None:
    for twin in (pickle.loads(pickle.dumps(exc)), copy.copy(exc), copy.deepcopy(exc)):
        assert type(twin) is type(exc)
        assert (str(twin), repr(twin), vars(twin)) == (str(exc), repr(exc), vars(exc))
        assert str(twin)


def test_each_has_a_docstring_and_stands_in_the_drawing_and_in_kubews() -> None:
    for kind in every_error():
        assert kind.__doc__
        assert kind.__name__ in (errors.__doc__ or "")
        assert getattr(kubews, kind.__name__) is kind
