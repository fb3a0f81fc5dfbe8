"""Output and exit events on the wire: how they are spelled, what is read, and that no character is split."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.protocol import events
from buildcore.core.protocol.events import EventReader, Exit, Output, ResponseError
from protocol_streams import PRINTABLE, TEXT, bytewise, cut, events_in, maybe, taken

STREAMS = st.sampled_from([events.STDOUT, events.STDERR])
OUTPUTS = st.builds(Output, STREAMS, st.binary(min_size=1) | TEXT.map(lambda text: text.encode("utf-8", "replace")))
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
    env_left_out=st.lists(PRINTABLE),
)


@given(st.lists(OUTPUTS, max_size=5), EXITS, st.lists(st.integers(0, 10**6)))
def test_events_come_through_however_the_stream_is_cut(outputs: list[Output], end: Exit, at: list[int]) -> None:
    lines = [events.encode_output(each.stream, each.data) for each in outputs]
    data = b"".join([*lines, events.encode_exit(end, details=True)])
    sent = [*outputs, end]
    assert events_in(data) == events_in(*cut(data, at)) == events_in(*bytewise(data)) == sent


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
