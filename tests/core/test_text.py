"""The spelling of log lines: whatever a value holds, a record is one printable line of bounded length."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import text

NOON_MS = 1768392000000  # 2026-01-14T12:00:00Z
ANY_CHARACTER = st.characters()  # lone surrogates included: that is how undecodable bytes arrive
ANY_TEXT = st.text(ANY_CHARACTER)
NASTY = "\n\r\x00\x1b\x7f\x85\x9b\xa0\u2028\u2029\u202e\u2066\ufeff\udcff"
HOSTILE = st.sampled_from(NASTY + "a \"'=\\[é漢\U0001f600\U000e0001")
HOSTILE_TEXT = st.text(HOSTILE)
NUMBER = st.integers() | st.floats() | st.booleans() | st.none()
SCALAR = ANY_TEXT | HOSTILE_TEXT | st.binary() | NUMBER
VALUE = SCALAR | st.lists(SCALAR)
PART = ANY_TEXT | HOSTILE_TEXT | st.lists(SCALAR)
LONG_VALUE = VALUE | st.builds(lambda part, times: part * times, PART, st.integers(1, 9999))
FIELDS = st.dictionaries(ANY_TEXT, VALUE)


def shown(fields: str) -> Iterator[tuple[str, Any]]:
    """Read ` name=value name=value` back, as a program would that knows JSON and plain words."""
    position = 0
    while position < len(fields):
        assert fields[position] == " "
        name, position = shown_value(fields, position + 1, stop="=")
        value, position = shown_value(fields, position + 1, stop=" ")
        yield name, value


def shown_value(fields: str, start: int, stop: str) -> tuple[Any, int]:
    if fields[start] in '"[':
        value, end = json.JSONDecoder().raw_decode(fields, start)
    else:
        end = fields.find(stop, start)
        end = end if end >= 0 else len(fields)
        value = fields[start:end]
    return value, end


def utf16(value: str) -> bytes:
    """Two lone surrogates that make a pair are one character to JSON; in UTF-16 both are the same."""
    return value.encode("utf-16", "surrogatepass")


def test_the_line_is_the_requirements() -> None:
    fields = {"user": "dev1", "cwd": "/home/dev1/workspace/app", "args": ["-j4", "all"]}
    assert text.line(NOON_MS, "info", "build_service", "build started", fields) == (
        "2026-01-14T12:00:00.000Z  INFO build_service: build started "
        'user=dev1 cwd=/home/dev1/workspace/app args=["-j4","all"]'
    )


@pytest.mark.parametrize(
    ("level", "column"), [("error", "ERROR"), ("warn", " WARN"), ("info", " INFO"), ("trace", "TRACE")]
)
def test_levels_end_in_one_column(level: str, column: str) -> None:
    assert text.line(NOON_MS + 7, level, "t", "m", {}) == f"2026-01-14T12:00:00.007Z {column} t: m"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", "all"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("it's", '"it\'s"'),
        ("C:\\x", '"C:\\\\x"'),
        ("[1]", '"[1]"'),
        ("größe", "größe"),
        ("a\nb", '"a\\nb"'),
        ("\x1b[2J", '"\\u001b[2J"'),
        ("\x7f\x9b", '"\\u007f\\u009b"'),
        ("\u202egpj", '"\\u202egpj"'),
        ("\U000e0001", '"\\udb40\\udc01"'),
        (b"caf\xe9", '"caf\\udce9"'),
        (0, "0"),
        (True, "true"),
        (30.0, "30.000"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (None, "null"),
        ([], "[]"),
        (("-C", "a b", 2, None), '["-C","a b",2,null]'),
        (["x=\n"], '["x=\\n"]'),
    ],
)
def test_a_field_is_bare_when_it_can_be_and_json_when_not(value: object, expected: str) -> None:
    assert text.field(value) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_escape_spells_what_is_not_printable(raw: str, expected: str) -> None:
    assert text.escape(raw) == expected


@given(ANY_TEXT | HOSTILE_TEXT)
def test_escape_gives_one_printable_line_and_doing_it_twice_changes_nothing(raw: str) -> None:
    escaped = text.escape(raw)
    assert escaped.isprintable()
    assert text.escape(escaped) == escaped
    escaped.encode("utf-8")


@given(ANY_TEXT.filter(str.isprintable))
def test_escape_leaves_printable_text_alone(raw: str) -> None:
    assert text.escape(raw) == raw


@given(LONG_VALUE, st.integers(text.MIN_VALUE_BYTES, text.MAX_LINE_BYTES))
def test_a_field_is_printable_and_keeps_to_its_limit(value: object, limit: int) -> None:
    spelled = text.field(value, limit)
    assert spelled.isprintable()
    assert 0 < len(spelled.encode("utf-8")) <= limit


@given(ANY_TEXT | HOSTILE_TEXT)
def test_text_can_be_read_back(raw: str) -> None:
    [(name, value)] = shown(f" field={text.field(raw)}")
    assert name == "field"
    assert utf16(value) == utf16(raw)


@given(st.lists(ANY_TEXT | HOSTILE_TEXT | st.integers(-(2**64), 2**64) | st.booleans() | st.none()))
def test_a_list_is_json(items: list[object]) -> None:
    assert utf16(json.dumps(json.loads(text.field(items)))) == utf16(json.dumps(items))


@given(st.text(HOSTILE, min_size=1), st.integers(1, 9999), st.integers(64, 8192))
def test_a_cut_text_says_how_many_characters_are_missing(part: str, times: int, limit: int) -> None:
    raw = part * times
    [(_, value)] = shown(f" field={text.field(raw, limit)}")
    cut = re.fullmatch(r"(.*)\.\.\. \[(\d+) characters left out\]", value, re.DOTALL)
    kept = cut.group(1) if cut else value
    assert utf16(kept) == utf16(raw[: len(raw) - int(cut.group(2))] if cut else raw)


@given(st.lists(st.text("ab c\n", min_size=1, max_size=400), min_size=1, max_size=60), st.integers(64, 8192))
def test_a_cut_list_is_json_and_says_how_many_characters_are_missing(items: list[str], limit: int) -> None:
    missing = 0
    kept = []
    for item in json.loads(text.field(items, limit)):
        cut = re.fullmatch(r"(.*)\.\.\. \[(\d+) characters left out\]", item, re.DOTALL)
        missing += int(cut.group(2)) if cut else 0
        kept.append(cut.group(1) if cut else item)
    assert "".join(items).startswith("".join(kept))
    assert sum(map(len, kept)) + missing == sum(map(len, items))


@given(st.integers(0, 2**42), ANY_TEXT, ANY_TEXT | HOSTILE_TEXT, FIELDS)
def test_a_record_is_one_printable_line(
    time_ms: int, target: str, message: str, fields: dict[str, object]
) -> None:
    line = text.line(time_ms, "info", target, message, fields)
    assert line.isprintable()
    assert line.splitlines() == [line]
    assert re.match(r"\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  INFO ", line)


@given(ANY_TEXT, LONG_VALUE.map(str), st.lists(LONG_VALUE, max_size=80), ANY_TEXT)
def test_a_record_keeps_to_the_limit(target: str, message: str, values: list[object], name: str) -> None:
    line = text.line(
        NOON_MS, "error", target, message, {f"{index}{name}": value for index, value in enumerate(values)}
    )
    assert len(line.encode("utf-8")) + len("\n") <= text.MAX_LINE_BYTES


@given(st.lists(LONG_VALUE.filter(lambda value: value is not None), max_size=80))
def test_a_record_is_well_formed_however_much_is_cut(values: list[object]) -> None:
    line = text.line(NOON_MS, "error", "t", "m", {f"n{index}": value for index, value in enumerate(values)})
    names = [name for name, _ in shown(line[len("2026-01-14T12:00:00.000Z ERROR t: m") :])]
    assert names[: text.MAX_FIELDS] == [f"n{index}" for index in range(len(values))][: text.MAX_FIELDS]
    if len(values) > text.MAX_FIELDS:
        assert line.endswith(f" fields_left_out={len(values) - text.MAX_FIELDS}")


def test_the_longest_part_is_cut_and_the_short_ones_stay_whole() -> None:
    fields = {"user": "dev1", "args": ["x" * 100000], "request_id": "r" * 128, "exit_code": 2}
    line = text.line(NOON_MS, "info", "build_service", "build started", fields)
    assert "build started user=dev1 args=" in line
    assert line.endswith(f" request_id={'r' * 128} exit_code=2")
    assert text.MAX_LINE_BYTES - 64 < len(line) < text.MAX_LINE_BYTES


def test_a_field_that_is_none_is_left_out() -> None:
    assert text.line(NOON_MS, "info", "t", "m", {"signal": None, "exit_code": 0}).endswith(
        " t: m exit_code=0"
    )


def test_an_integer_of_any_size_is_shown() -> None:
    assert text.field(2**128 - 1) == str(2**128 - 1)
    assert text.field(10**5000) == hex(10**5000)
    assert json.loads(text.field([10**50]))[0].startswith("0x")
