"""What a Status says about how the process ended: every shape that servers send, and many they do not."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.protocol import status
from kubews.protocol.channels import Channels
from kubews.protocol.events import Status

EXIT_3 = {"reason": "ExitCode", "message": "3"}
OTHER = {"reason": "Other", "message": "7"}


def non_zero(*causes: Any, **more: Any) -> dict[str, Any]:
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": list(causes)},
        **more,
    }


def decode(raw: bytes) -> Optional[Status]:
    """Let a Status come as a server sends it, and the connection end."""
    codec = Channels("v5.channel.k8s.io")
    events = codec.receive(b"\x03" + raw) + codec.receive_eof()
    assert len(events) <= 1
    for event in events:
        assert isinstance(event, Status)
        return event
    return None


SHAPES: dict[str, tuple[Any, bool, Optional[int]]] = {
    "success of a v5 translator": ({"metadata": {}, "status": "Success"}, True, 0),
    "success of a v4 runtime": ({"status": "Success"}, True, 0),
    "success with a reason": ({"status": "Success", "reason": "NonZeroExitCode"}, True, 0),
    "success with causes": ({**non_zero(EXIT_3), "status": "Success"}, True, 0),
    "exit code": (non_zero(EXIT_3), False, 3),
    "exit code behind others": (non_zero(OTHER, {}, OTHER, EXIT_3), False, 3),
    "exit code before others": (non_zero(EXIT_3, OTHER), False, 3),
    "exit code among rubbish": (non_zero(None, 1, "ExitCode", [EXIT_3], EXIT_3), False, 3),
    "the first exit code counts": (non_zero({**EXIT_3, "message": "x"}, EXIT_3), False, None),
    "no such cause": (non_zero(OTHER), False, None),
    "no causes": (non_zero(), False, None),
    "no details": ({"status": "Failure", "reason": "NonZeroExitCode"}, False, None),
    "details without causes": (non_zero(details={}), False, None),
    "details null": (non_zero(details=None), False, None),
    "details a list": (non_zero(details=[EXIT_3]), False, None),
    "causes null": (non_zero(details={"causes": None}), False, None),
    "causes an object": (non_zero(details={"causes": EXIT_3}), False, None),
    "causes a text": (non_zero(details={"causes": "ExitCode"}), False, None),
    "cause without message": (non_zero({"reason": "ExitCode"}), False, None),
    "cause of type": (non_zero({"type": "ExitCode", "message": "3"}), False, None),
    "internal error": ({"status": "Failure", "reason": "InternalError", "code": 500}, False, None),
    "internal error with a code": (
        {**non_zero(EXIT_3), "reason": "InternalError"},
        False,
        None,
    ),
    "no reason": ({"status": "Failure"}, False, None),
    "reason of another case": ({**non_zero(EXIT_3), "reason": "nonzeroexitcode"}, False, None),
    "reason a number": ({**non_zero(EXIT_3), "reason": 3}, False, None),
    "message a list": ({**non_zero(EXIT_3), "message": ["x"]}, False, 3),
    "code a text": ({**non_zero(EXIT_3), "code": "3"}, False, 3),
    "metadata a text": ({**non_zero(EXIT_3), "metadata": "x"}, False, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    """R-4: an exit code is a number only where the server says so; R-3: 0 only with ``Success``."""
    document, success, code = SHAPES[name]
    event = decode(json.dumps(document).encode())
    assert event is not None
    assert (event.success, event.exit_code) == (success, code)
    assert event.document == document
    assert isinstance(event.message, str)
    assert isinstance(event.reason, str)


CODES: dict[Any, Optional[int]] = {
    "1": 1,
    "127": 127,
    "255": 255,
    "256": 256,
    "003": 3,
    "4294967295": 4294967295,
    "9999999999": 9999999999,
    "0" * 5000 + "7": 7,  # int() refuses so many digits
    "10000000000": None,
    "9" * 5000: None,
    "0": None,  # contradicts the Failure that carries it
    "000": None,
    "-1": None,
    "+1": None,
    " 1": None,
    "1\n": None,
    "1.0": None,
    "1e2": None,
    "0x1": None,
    "1_0": None,
    "": None,
    "three": None,
    "\u0663": None,  # a digit to str.isdigit and int
    "\uff13": None,
    "\u00b3": None,
    3: None,
    True: None,
    None: None,
    3.5: None,
}


def test_exit_code_texts() -> None:
    """R-4: the cause's message is a decimal number of ASCII digits, or there is no exit code."""
    for text, code in CODES.items():
        document = non_zero({"reason": "ExitCode", "message": text})
        event = decode(json.dumps(document).encode())
        assert event is not None
        assert event.exit_code == code, text
        assert not event.success


NO_DOCUMENTS = {
    "text": b"command terminated with non-zero exit code",
    "number": b"0",
    "text of json": b'"Success"',
    "list": b'[{"status":"Success"}]',
    "null": b"null",
    "two documents": b'{"status":"Success"}{"status":"Success"}',
    "rubbish behind": b'{"status":"Success"} }',
    "no status": b'{"metadata":{}}',
    "status null": b'{"status":null}',
    "status of another case": b'{"status":"success"}',
    "status a list": b'{"status":["Success"]}',
    "status true": b'{"status":true}',
    "unknown status": b'{"status":"Unknown"}',
    "trailing comma": b'{"status":"Success",}',
    "cut off": b'{"status":"Success"',
    "not utf-8": b'{"status":"Success","message":"\xff"}',
    "deep list": b'{"status":"Success","x":' + b"[" * 300_000 + b"]" * 300_000 + b"}",
    "deep object": b'{"status":"Success","x":' + b'{"a":' * 150_000 + b"1" + b"}" * 150_001,
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_no_document(name: str) -> None:
    """R-4: what is no Status is a failure whose exit code is unknown, with the text kept."""
    raw = NO_DOCUMENTS[name]
    event = decode(raw)
    assert event is not None
    assert (event.success, event.exit_code, event.reason) == (False, None, "")
    assert event.message == raw.decode("utf-8", "replace")


@pytest.mark.parametrize("raw", [b"", b" ", b"\r\n\t "])
def test_nothing(raw: bytes) -> None:
    """R-3: an empty error channel says nothing."""
    assert decode(raw) is None


ODD_DOCUMENTS = {
    "not a number": (b'{"status":"Success","code":NaN}', 0),
    "infinity": (b'{"status":"Success","code":-Infinity}', 0),
    "infinite exit code": (
        b'{"status":"Failure","reason":"NonZeroExitCode",'
        b'"details":{"causes":[{"reason":"ExitCode","message":Infinity}]}}',
        None,
    ),
    "status twice, the last counts": (b'{"status":"Success","status":"Failure"}', None),
    "status twice, the other way": (b'{"status":"Failure","status":"Success"}', 0),
    "utf-8 with a mark": (b'\xef\xbb\xbf{"status":"Success"}', 0),
    "half a surrogate": (b'{"status":"Failure","message":"\\ud800"}', None),
    "number beyond any": (b'{"status":"Success","code":1e999}', 0),
}


@pytest.mark.parametrize("name", ODD_DOCUMENTS)
def test_odd_document(name: str) -> None:
    """R-4: what Python's parser takes beyond JSON does no harm."""
    raw, code = ODD_DOCUMENTS[name]
    event = decode(raw)
    assert event is not None
    assert event.exit_code == code
    assert event.success == (code == 0)


def test_number_of_too_many_digits() -> None:
    """R-4: some interpreters refuse the number, none may raise, and a success is not invented."""
    event = decode(b'{"status":"Failure","code":' + b"9" * 10_000 + b"}")
    assert event is not None
    assert (event.success, event.exit_code) == (False, None)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (
            "Internal error occurred: Internal error occurred: no such file",
            "Internal error occurred: no such file",
        ),
        ("Internal error occurred: " * 3 + "x", "Internal error occurred: x"),
        ("Internal error occurred: x", "Internal error occurred: x"),
        ("x: " + "Internal error occurred: " * 2, "x: " + "Internal error occurred: " * 2),
        ("", "the server gave no message"),
    ],
)
def test_message(sent: str, told: str) -> None:
    event = decode(json.dumps({"status": "Failure", "message": sent}).encode())
    assert event is not None
    assert event.message == told


def test_success_needs_no_message() -> None:
    event = decode(b'{"status":"Success"}')
    assert event is not None
    assert (event.message, event.reason) == ("", "")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Success", "Failure", "NonZeroExitCode", "ExitCode", "0", "3"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["status", "reason", "message", "details", "causes", "code", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(document=anything)
def test_any_json(document: Any) -> None:
    """R-4, R-3: no document raises, and 0 is told only by ``Success``."""
    raw = json.dumps(document).encode()
    event = decode(raw)
    if event is None:
        return
    assert event.success == (event.exit_code == 0)
    if event.success:
        assert document["status"] == "Success"
    assert event.exit_code is None or type(event.exit_code) is int
    assert isinstance(event.message, str)
    assert isinstance(event.reason, str)


@given(document=st.dictionaries(st.sampled_from(["reason", "message", "details"]), anything))
def test_any_fields(document: dict[str, Any]) -> None:
    """R-4: fields of the wrong type are absent fields."""
    for word in ("Success", "Failure"):
        event = status.from_document({**document, "status": word})
        assert event.success == (word == "Success") == (event.exit_code == 0)
        assert isinstance(event.message, str)


@given(raw=st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    """R-4: so do no bytes."""
    document = status.decode_document(raw)
    assert document is None or document["status"] in ("Success", "Failure")
    assert status.from_text(raw).exit_code is None
