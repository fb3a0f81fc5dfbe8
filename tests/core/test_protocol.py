"""The wire protocol: what goes in comes out, whatever the pieces it arrives in, and nothing else does."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol_corpus
import tools
from buildcore.core.protocol import events, requests
from buildcore.core.protocol.events import EventReader, Exit, Output, ResponseError
from buildcore.core.protocol.lines import Lines
from buildcore.core.protocol.requests import Cancel, Request, RequestError, RequestReader
from harness_world import ROOT

Event = Union[Request, Cancel, Output, Exit]
Reader = Union[RequestReader, EventReader]

MINIMAL = {"command": "make", "cwd": "/home/dev1/workspace"}
STREAMS = st.sampled_from([events.STDOUT, events.STDERR])
CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("\udc80\udcff")
TEXT = st.text(CHARACTER)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=requests.MAX_REQUEST_ID_CHARS)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


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
OUTPUTS = st.builds(Output, STREAMS, st.binary(min_size=1) | TEXT.map(lambda text: text.encode("utf-8", "replace")))
PLAIN_EXITS = st.builds(Exit, st.integers(0, 255), st.booleans())
EXITS = st.builds(
    Exit,
    code=st.integers(0, 255),
    timed_out=st.booleans(),
    signal=maybe(st.integers(1, 64)),
    duration_ms=maybe(st.integers(0, 10**9)),
    timeout_sec=maybe(st.integers(1, 10**6)),
    request_id=maybe(PRINTABLE),
    error=maybe(st.tuples(PRINTABLE, PRINTABLE)),
    check=maybe(st.dictionaries(PRINTABLE, st.none() | st.booleans() | st.integers(0, 10**9) | st.lists(PRINTABLE))),
)


def line(**fields: Any) -> bytes:
    """A request with these fields besides the two that every request has."""
    return json.dumps({**MINIMAL, **fields}).encode() + b"\n"


def taken(reader: Reader, pieces: Iterable[bytes]) -> list[Event]:
    """Everything that a reader makes of the pieces of a stream."""
    events: list[Event] = []
    for piece in pieces:
        reader.receive_data(piece)
        while (event := reader.next_event()) is not None:
            events.append(event)
    return events


def requests_in(*pieces: bytes) -> list[Event]:
    return taken(RequestReader(), pieces)


def events_in(*pieces: bytes) -> list[Event]:
    return taken(EventReader(), pieces)


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


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """The pieces of `data` between the offsets `at`."""
    bounds = [0, *sorted(offset % (len(data) + 1) for offset in at), len(data)]
    return [data[start:stop] for start, stop in zip(bounds, bounds[1:])]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


# --- round trips, however the stream is cut -----------------------------------------------------------------------


@given(REQUESTS, st.lists(CANCELS, max_size=3), st.lists(st.integers(0, 10**6)))
def test_a_request_and_its_cancellations_come_through_however_they_are_cut(
    request: Request, cancels: list[Cancel], at: list[int]
) -> None:
    data = requests.encode_request(request) + b"".join(requests.encode_cancel(each.signal) for each in cancels)
    sent = [request, *cancels]
    assert requests_in(data) == requests_in(*cut(data, at)) == requests_in(*bytewise(data)) == sent


@given(st.lists(OUTPUTS, max_size=5), EXITS, st.lists(st.integers(0, 10**6)))
def test_events_come_through_however_the_stream_is_cut(outputs: list[Output], end: Exit, at: list[int]) -> None:
    lines = [events.encode_output(each.stream, each.data) for each in outputs]
    data = b"".join([*lines, events.encode_exit(end, details=True)])
    sent = [*outputs, end]
    assert events_in(data) == events_in(*cut(data, at)) == events_in(*bytewise(data)) == sent


def test_every_single_split_of_a_stream_gives_the_same() -> None:
    request = requests.encode_request(Request("make", ["-j4", "é漢"], "/w", env={"CC": "gcc"})) + b'{"type":"cancel"}\n'
    stream = events.encode_output("stdout", "é\n".encode()) + events.encode_output("stderr", b"\xff")
    stream += events.encode_exit(Exit(2), details=True)
    for at in range(len(request) + 1):
        assert requests_in(request[:at], request[at:]) == requests_in(request)
    for at in range(len(stream) + 1):
        assert events_in(stream[:at], stream[at:]) == events_in(stream)


PIECES = st.sampled_from([b"\n", b"x", b"xx\n", b"x" * 8, b"x" * 9])


@given(st.lists(PIECES).map(b"".join), st.lists(st.integers(0, 99)))
def test_a_line_that_is_too_long_is_one_wherever_the_stream_is_cut(data: bytes, at: list[int]) -> None:
    def lines(pieces: Iterable[bytes]) -> list[bytes | None]:
        cutter, found = Lines(8), []
        for piece in pieces:
            cutter.feed(piece)
            found += cutter
        return found

    *whole, tail = data.split(b"\n")
    expected = [each if len(each) <= 8 else None for each in whole] + [None] * (len(tail) > 8)
    assert lines([data]) == lines(cut(data, at)) == lines(bytewise(data)) == expected


@given(st.binary(), st.lists(st.integers(0, 10**6)))
def test_any_bytes_are_taken_or_refused_and_nothing_else_happens(data: bytes, at: list[int]) -> None:
    for reader, error in ((RequestReader(), RequestError), (EventReader(), ResponseError)):
        try:
            taken(reader, cut(data, at))
            reader.receive_eof()
            reader.next_event()
        except error as exc:
            assert "\n" not in str(exc)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["stdout", "exit", "cancel"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "schema_version command args cwd timeout_sec request_id env umask features type data data_b64 encoding code "
    "timed_out signal error duration_ms".split()
)


@given(st.dictionaries(FIELDS, JSON))
def test_any_value_in_any_field_is_taken_or_refused_and_nothing_else_happens(fields: dict[str, Any]) -> None:
    data = json.dumps(fields).encode() + b"\n"
    for reader, error in ((RequestReader(), RequestError), (EventReader(), ResponseError)):
        try:
            taken(reader, [data])
        except error as exc:
            assert str(exc).isprintable()


# --- requests -----------------------------------------------------------------------------------------------------


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


# --- events -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"gcc -c a.c\n", b'{"type":"stdout","data":"gcc -c a.c\\n"}\n'),
        ("é 漢 \U0001f600".encode(), '{"type":"stdout","data":"é 漢 \U0001f600"}\n'.encode()),
        (b'say "x" \\ /', b'{"type":"stdout","data":"say \\"x\\" \\\\ /"}\n'),
        (b"\b\t\n\f\r", b'{"type":"stdout","data":"\\b\\t\\n\\f\\r"}\n'),
        (b"\0\x01\x0b\x1b[1m\x1f\x7f", b'{"type":"stdout","data":"\\u0000\\u0001\\u000b\\u001b[1m\\u001f\x7f"}\n'),
        ("\u2028\u2029\ufeff\uffff".encode(), '{"type":"stdout","data":"\u2028\u2029\ufeff\uffff"}\n'.encode()),
        (b"caf\xe9", '{"type":"stdout","data":"caf\ufffd","encoding":"base64","data_b64":"Y2Fm6Q=="}\n'.encode()),
        (b"", b'{"type":"stdout","data":""}\n'),
    ],
)
def test_an_output_event_is_spelled_as_serde_would_spell_it(data: bytes, expected: bytes) -> None:
    assert events.encode_output("stdout", data) == expected
    assert events.encode_output("stderr", data) == expected.replace(b"stdout", b"stderr", 1)


@pytest.mark.parametrize(
    ("exit_", "plain", "detailed"),
    [
        (Exit(0), b'{"type":"exit","code":0,"timed_out":false}\n', b'{"type":"exit","code":0,"timed_out":false}\n'),
        (
            Exit(124, True, 15, 600012, 600, "id-1", ("timeout", 'a "b"')),
            b'{"type":"exit","code":124,"timed_out":true}\n',
            b'{"type":"exit","code":124,"timed_out":true,"signal":15,"duration_ms":600012,"timeout_sec":600,'
            b'"request_id":"id-1","error":{"kind":"timeout","message":"a \\"b\\""}}\n',
        ),
    ],
)
def test_an_exit_event_says_its_details_only_to_those_who_asked(exit_: Exit, plain: bytes, detailed: bytes) -> None:
    assert events.encode_exit(exit_) == plain
    assert events.encode_exit(exit_, details=True) == detailed


@given(STREAMS, st.binary())
def test_an_output_event_is_what_any_json_reader_reads(stream: str, data: bytes) -> None:
    fields = json.loads(events.encode_output(stream, data))
    assert fields["type"] == stream
    assert fields["data"] == data.decode("utf-8", "replace")
    assert ("data_b64" in fields) == (fields.get("encoding") == "base64") == ("\ufffd" in fields["data"]) or (
        "\ufffd".encode() in data
    )
    assert base64.b64decode(fields["data_b64"]) == data if "data_b64" in fields else fields["data"].encode() == data


def test_the_most_that_is_read_at_once_fits_into_an_event() -> None:
    for worst in (b"\0", b"\xff", "\ufffd".encode()):
        event = events.encode_output("stdout", worst * (64 << 10))
        assert len(event) < events.MAX_EVENT_BYTES


OLD_SERVER = b"""{"type": "stdout", "data": "gcc -c ..."}
{"type": "stderr", "data": "warning: ..."}
{"type": "exit", "code": 2, "timed_out": false}
"""


def test_the_stream_of_an_old_server_is_read() -> None:
    assert events_in(OLD_SERVER) == [Output("stdout", b"gcc -c ..."), Output("stderr", b"warning: ..."), Exit(2)]


def test_a_server_that_says_less_or_more_is_understood() -> None:
    assert events_in(b'{"code":3,"type":"exit"}\n') == [Exit(3)]
    assert events_in(b'{"type":"exit","code":0,"timed_out":null,"signal":null,"error":null}\n') == [Exit(0)]
    assert events_in(b'{"type":"stdout","data":"a","encoding":"utf-8","data_b64":null}\n') == [Output("stdout", b"a")]
    assert events_in(b'{"type":"exit","code":1,"error":{},"new":[]}\n') == [Exit(1, error=("None", "None"))]


@pytest.mark.parametrize(("code", "shown"), [(255, 255), (256, 1), (-1, 1), (10**30, 1)])
def test_an_exit_code_that_no_process_can_have_is_a_failure(code: int, shown: int) -> None:
    assert events_in(b'{"type":"exit","code":%d}\n' % code) == [Exit(shown)]


@pytest.mark.parametrize("skipped", [b'{"type":"progress","data":1}', b'{"type":"cancel"}', b"", b" \r"])
def test_events_of_unknown_types_are_skipped(skipped: bytes) -> None:
    assert events_in(skipped + b"\n" + OLD_SERVER) == events_in(OLD_SERVER)


def test_nothing_comes_behind_the_exit() -> None:
    reader = EventReader()
    assert taken(reader, [OLD_SERVER + OLD_SERVER + b"garbage\n"]) == events_in(OLD_SERVER)
    reader.receive_eof()


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n",
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"type":1}\n',
        b'{"type":"stdout"}\n',
        b'{"type":"stdout","data":1}\n',
        b'{"type":"stdout","data":"\\ud800"}\n',
        b'{"type":"stderr","data":"","data_b64":"a"}\n',
        "{\"type\":\"stderr\",\"data\":\"\",\"data_b64\":\"é\"}\n".encode(),
        b'{"type":"exit"}\n',
        b'{"type":"exit","code":"0"}\n',
        b'{"type":"exit","code":true}\n',
        b'{"type":"exit","code":0.5}\n',
        b'{"type":"exit","code":NaN}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (events.MAX_EVENT_BYTES + 1),
    ],
)
def test_a_stream_that_is_none_is_a_response_error(data: bytes) -> None:
    with pytest.raises(ResponseError):
        events_in(data)


@pytest.mark.parametrize("data", [b"", OLD_SERVER[:-1], OLD_SERVER.splitlines(True)[0]])
def test_a_stream_that_ends_before_its_exit_is_a_response_error(data: bytes) -> None:
    reader = EventReader()
    taken(reader, [data])
    with pytest.raises(ResponseError, match="ended before"):
        reader.receive_eof()


# --- characters at the edge of a read -----------------------------------------------------------------------------


def in_whole_characters(pieces: Iterable[bytes]) -> list[bytes]:
    """What is sent when a build's output is read in these pieces."""
    sent, rest = [], b""
    for piece in pieces:
        rest += piece
        end = events.whole_characters(rest)
        sent.append(rest[:end])
        rest = rest[end:]
        assert len(rest) <= 3
    return [*sent, rest]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 10**6)))
def test_no_character_is_split_however_its_text_is_read(text: str, at: list[int]) -> None:
    data = text.encode()
    for pieces in (cut(data, at), bytewise(data)):
        assert "".join(piece.decode("utf-8") for piece in in_whole_characters(pieces)) == text


@given(st.binary(), st.lists(st.integers(0, 10**6)))
def test_bytes_that_are_no_text_are_neither_lost_nor_held_back(data: bytes, at: list[int]) -> None:
    for pieces in (cut(data, at), bytewise(data)):
        assert b"".join(in_whole_characters(pieces)) == data


@pytest.mark.parametrize("character", ["é", "漢", "\U0001f600"])
def test_every_split_of_a_character_waits_for_the_rest(character: str) -> None:
    data = character.encode()
    for length in range(1, len(data)):
        assert events.whole_characters(b"a" + data[:length]) == 1
    assert events.whole_characters(data) == len(data)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x80\x80\x80\x80", b"\xc0", b"a\xbf", b"\xf5\x80", b"\xe9\n", b"\xc3\xa9\xa9"]
)
def test_what_no_byte_can_make_a_character_does_not_wait(data: bytes) -> None:
    assert events.whole_characters(data) == len(data)


# --- records ------------------------------------------------------------------------------------------------------


def test_records_are_equal_by_their_fields_and_show_them() -> None:
    assert Exit(1) == Exit(1) != Exit(2)
    assert Exit(1) != 1
    assert repr(Cancel("INT")) == "Cancel(signal='INT')"


# --- other Pythons ------------------------------------------------------------------------------------------------

LIBRARY = ROOT / "lib"


OTHERS = protocol_corpus.other_pythons() or [pytest.param("", marks=tools.needed(tools.OTHER_PYTHON))]


@pytest.mark.parametrize("python", OTHERS, ids=lambda path: Path(path).name)
def test_every_python_reads_and_writes_the_same(python: str) -> None:
    program = Path(protocol_corpus.__file__)
    run = subprocess.run([python, "-S", "-B", program, LIBRARY], capture_output=True, text=True, check=True)
    here = subprocess.run([sys.executable, "-S", "-B", program, LIBRARY], capture_output=True, text=True, check=True)
    assert run.stdout == here.stdout
    assert "never" not in run.stdout
