"""Requests and cancellations on the wire: what is taken, and what is refused with which line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.protocol import requests
from buildcore.core.protocol.requests import Cancel, Request, RequestError, RequestReader
from protocol_streams import CHARACTER, MINIMAL, PRINTABLE, TEXT, bytewise, cut, line, maybe, requests_in

REQUESTS = st.builds(
    Request,
    command=st.text(CHARACTER, min_size=1),
    args=st.lists(TEXT),
    cwd=TEXT.map(lambda path: "/" + path),
    timeout_sec=maybe(st.integers(1, 10 ** (requests.MAX_INTEGER_DIGITS - 1))),
    request_id=maybe(PRINTABLE),
    env=maybe(st.dictionaries(TEXT, TEXT)),
    umask=maybe(st.integers(0, requests.MAX_UMASK)),
    features=maybe(st.lists(TEXT)),
    check=st.booleans(),
)
CANCELS = st.builds(Cancel, st.sampled_from(requests.CANCEL_SIGNALS))


def refusal(data: bytes) -> str:
    """The line that a caller is refused with who sends this and no more."""
    reader = RequestReader()
    reader.receive_data(data)
    with pytest.raises(RequestError) as caught:
        assert reader.next_event() is None
        reader.receive_eof()
        reader.next_event()
    assert str(caught.value).isprintable()
    return str(caught.value)


@given(REQUESTS, st.lists(CANCELS, max_size=3), st.lists(st.integers(0, 10**6)))
def test_a_request_and_its_cancellations_come_through_however_they_are_cut(
    request: Request, cancels: list[Cancel], at: list[int]
) -> None:
    data = requests.encode_request(request) + b"".join(requests.encode_cancel(each.signal) for each in cancels)
    sent = [request, *cancels]
    assert requests_in(data) == requests_in(*cut(data, at)) == requests_in(*bytewise(data)) == sent


def test_a_request_is_what_the_requirement_shows() -> None:
    sent = b"""{ "command": "make", "args": ["-j4", "all"], "cwd": "/home/dev1/workspace/app", "timeout_sec": 600 }\n"""
    assert requests_in(sent) == [Request("make", ["-j4", "all"], "/home/dev1/workspace/app", 600)]


def test_the_encoded_request_is_one_line_of_ascii() -> None:
    request = Request("make", ["\n\udcff é"], "/w", umask=0o27, features=())
    assert requests.encode_request(request) == (
        b'{"schema_version":"1","command":"make","args":["\\n\\udcff \\u00e9"],"cwd":"/w",'
        b'"umask":"0027","features":[]}\n'
    )


@pytest.mark.parametrize("name", ["schema_version", "args", "timeout_sec", "request_id", "env", "umask", "features"])
def test_an_optional_field_that_is_null_is_absent(name: str) -> None:
    assert requests_in(line(**{name: None})) == requests_in(line())


@pytest.mark.parametrize("ending", [b"", b"\r\n", b" \t\r\n", b"\n\n\n"])
def test_how_a_request_ends_does_not_matter(ending: bytes) -> None:
    reader = RequestReader()
    reader.receive_data(line().rstrip() + ending)
    first = reader.next_event()
    reader.receive_eof()
    assert (first or reader.next_event()) == requests_in(line())[0]
    assert reader.next_event() is None


def test_unknown_fields_are_ignored() -> None:
    assert requests_in(line(color="always", nested={"a": [1, {}]})) == requests_in(line())


def test_the_last_of_two_equal_keys_counts() -> None:
    assert requests_in(b'{"command":"rm","cwd":"/","command":"make"}\n') == [Request("make", (), "/")]


def test_an_empty_request_id_is_none() -> None:
    assert requests_in(line(request_id="")) == requests_in(line())


@pytest.mark.parametrize(("umask", "expected"), [("0", 0), ("22", 0o22), ("0022", 0o22), ("0777", 0o777)])
def test_a_umask_is_octal(umask: str, expected: int) -> None:
    assert requests_in(line(umask=umask)) == [Request("make", (), MINIMAL["cwd"], umask=expected)]


WRONG_TYPES = [1, 1.5, True, "text", [], ["a", 1], {}, {"a": 1}]
TAKEN = {
    "schema_version": [],
    "command": ["text"],
    "args": [[]],
    "cwd": [],
    "timeout_sec": [1],
    "request_id": ["text"],
    "env": [{}],
    "umask": [],
    "features": [[]],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, taken in TAKEN.items() for value in WRONG_TYPES if repr(value) not in map(repr, taken)],
)
def test_a_field_of_the_wrong_type_is_refused_by_its_name(name: str, value: object) -> None:
    assert name in refusal(line(**{name: value}))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "invalid request: empty"),
        (b"\n", "invalid request: empty"),
        (b" \t\r\n", "invalid request: empty"),
        (b"make all\n", "invalid request: not JSON ("),
        (b"{'command': 'make'}\n", "invalid request: not JSON ("),
        (b'{"command":"make"\n', "invalid request: not JSON ("),
        (b'{"command":"make"}{}\n', "invalid request: not JSON (more text at character 18)"),
        (b"\xef\xbb\xbf" + line(), "invalid request: not JSON (no value at character 0)"),
        (line().decode().encode("utf-16"), "invalid request: not UTF-8"),
        (b'{"command":"ma\xffke"}\n', "invalid request: not UTF-8"),
        (b'{"command":"\xed\xa0\x80"}\n', "invalid request: not UTF-8"),
        (b"\0" + line(), "invalid request: not JSON ("),
        (b'["make"]\n', "invalid request: not a JSON object"),
        (b'"make"\n', "invalid request: not a JSON object"),
        (b"null\n", "invalid request: not a JSON object"),
        (b"{}\n", "invalid request: command is missing"),
        (b'{"command":null}\n', "invalid request: command is missing"),
        (b'{"command":"make"}\n', "invalid request: cwd is missing"),
        (line(command=""), "invalid request: command must not be empty"),
        (line(cwd="app"), "invalid request: cwd must be an absolute path"),
        (line(cwd=""), "invalid request: cwd must be an absolute path"),
        (line(cwd="/a\0b"), "invalid request: cwd holds a NUL"),
        (line(args=["a", "b\0"]), "invalid request: args[1] holds a NUL"),
        (line(args=["\ud800"]), "invalid request: args[0] holds an unpaired surrogate"),
        (line(command="\udfff"), "invalid request: command holds an unpaired surrogate"),
        (line(env={"A\0": ""}), "invalid request: a name in env holds a NUL"),
        (line(env={"é\n": "\0"}), 'invalid request: env["\\u00e9\\n"] holds a NUL'),
        (line(timeout_sec=0), "invalid request: timeout_sec must be an integer of at least 1"),
        (line(timeout_sec=-5), "invalid request: timeout_sec must be an integer of at least 1"),
        (line(timeout_sec=600.0), "invalid request: timeout_sec must be an integer of at least 1"),
        (line(timeout_sec=10**18), "invalid request: not JSON (a number of 19 digits)"),
        (line(timeout_sec=float("nan")), "invalid request: not JSON (NaN is no JSON)"),
        (line(timeout_sec=float("-inf")), "invalid request: not JSON (-Infinity is no JSON)"),
        (line().replace(b'"make"', b"1e999"), "invalid request: command must be a string"),
        (line(umask="0o22"), 'invalid request: umask must be an octal string such as "0022"'),
        (line(umask="1000"), 'invalid request: umask must be an octal string such as "0022"'),
        (line(umask="0a0"), 'invalid request: umask must be an octal string such as "0022"'),
        (line(umask=""), 'invalid request: umask must be an octal string such as "0022"'),
        (line(request_id="a\nb"), "invalid request: request_id must be at most 128 printable characters"),
        (line(request_id="a" * 129), "invalid request: request_id must be at most 128 printable characters"),
        (line(schema_version="2"), 'unsupported schema_version "2": this service serves "1"'),
        (line(schema_version=1), 'unsupported schema_version 1: this service serves "1"'),
        (line(schema_version=["1"]), 'unsupported schema_version of another type: this service serves "1"'),
        (line(schema_version="9" * 99), f'unsupported schema_version "{"9" * 36}...: this service serves "1"'),
        (b'{"command":' + b"9" * 5000 + b"}\n", "invalid request: not JSON (a number of 5000 digits)"),
    ],
)
def test_a_bad_request_is_refused_with_one_line_that_says_why(data: bytes, expected: str) -> None:
    assert refusal(data).startswith(expected)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"command":['])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    assert refusal(opening * 80_000 + b"\n").startswith("invalid request: nested too deeply")


def test_a_request_of_the_longest_size_is_taken() -> None:
    request = Request("make", ["x" * requests.MAX_REQUEST_BYTES], "/")
    room = requests.MAX_REQUEST_BYTES - (len(protocol_line(request)) - requests.MAX_REQUEST_BYTES)
    longest = Request("make", ["x" * room], "/")
    data = requests.encode_request(longest)
    assert len(data) == requests.MAX_REQUEST_BYTES
    assert requests_in(data) == [longest]
    with pytest.raises(RequestError, match="longer than 1048576 bytes"):
        requests.encode_request(Request("make", ["x" * (room + 1)], "/"))


def protocol_line(request: Request) -> bytes:
    fields = {"schema_version": "1", "command": request.command, "args": list(request.args), "cwd": request.cwd}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("piece", [1 << 10, 1 << 16, 1 << 22])
def test_a_request_that_is_too_long_is_refused_before_it_ends_and_is_not_kept(piece: int) -> None:
    reader = RequestReader()
    with pytest.raises(RequestError, match="longer than 1048576 bytes"):
        for _ in range((requests.MAX_REQUEST_BYTES // piece) + 1):
            reader.receive_data(b"x" * piece)
            assert reader.next_event() is None


def test_what_follows_a_refused_request_is_no_second_try() -> None:
    for refused in (b"{}\n", b"x" * (requests.MAX_REQUEST_BYTES + 1) + b"\n"):
        reader = RequestReader()
        reader.receive_data(refused + line())
        with pytest.raises(RequestError):
            reader.next_event()
        assert reader.next_event() is None


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\xff\xfe\n", b"[]", b"null", b'{"type":"stdin","data":"x"}', b'{"type":["cancel"]}', line().rstrip()],
)
def test_what_is_no_cancellation_is_skipped_behind_the_request(garbage: bytes) -> None:
    assert requests_in(line() + garbage + b"\n" + requests.encode_cancel("INT"))[1:] == [Cancel("INT")]


def test_a_line_without_end_behind_the_request_is_skipped_too() -> None:
    endless = b"x" * (2 * requests.MAX_REQUEST_BYTES + 7)
    assert requests_in(line(), endless, endless + b"\n", requests.encode_cancel("HUP"))[1:] == [Cancel("HUP")]


@pytest.mark.parametrize("signal", [b"", b',"signal":null', b',"signal":"KILL"', b',"signal":9', b',"signal":["INT"]'])
def test_a_cancellation_with_no_signal_that_is_known_means_term(signal: bytes) -> None:
    assert requests_in(line() + b'{"type":"cancel"%s}\n' % signal)[1:] == [Cancel("TERM")]
