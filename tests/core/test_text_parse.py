"""A line of the log that is read back says what was written, and nothing that stands inside of a value."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import text

NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)
PIECES = st.sampled_from(
    [" ", "=", '"', "\\", "'", "[", "]", "{", ",", "user=root", " exit_code=0", '" x="', "\n", "\x1b", "é", "\udcff"]
)
HOSTILE = st.lists(PIECES, max_size=12).map("".join)
VALUES = st.one_of(HOSTILE, HOSTILE, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
                   st.lists(HOSTILE, max_size=4), st.lists(HOSTILE | st.integers(), max_size=3).map(tuple))  # fmt: skip


@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_every_field_is_read_as_it_was_written(fields: dict[str, object]) -> None:
    record = text.parse(text.line(0, "info", "build_service", "build completed", fields))
    assert record is not None
    assert record[:4] == ("1970-01-01T00:00:00.000Z", "INFO", "build_service", "build completed")
    assert list(record.fields) == list(fields)
    for name, value in fields.items():
        assert record.fields[name] == (value if isinstance(value, str) else text.field(value))


@given(st.dictionaries(NAMES, HOSTILE.map(lambda piece: piece * 1000), min_size=1, max_size=4))
def test_one_that_was_cut_is_read_all_the_same(fields: dict[str, str]) -> None:
    record = text.parse(text.line(0, "warn", "build_service", "build refused", fields))
    assert record is not None and list(record.fields) == list(fields)


@given(st.text())
def test_what_is_no_line_says_nothing_and_is_no_error(line: str) -> None:
    record = text.parse(line)
    assert record is None or record.fields is not None


@given(HOSTILE, HOSTILE)
def test_a_line_cut_in_front_has_no_field_of_a_value(before: str, behind: str) -> None:
    """As a file has it that is read from its middle on: the rest of a value is not taken for a line."""
    whole = text.line(0, "info", "build_service", "build completed", {"args": [before, FORGED, behind], "exit_code": 2})
    cut = whole[whole.index(FORGED) :]
    record = text.parse(cut)
    assert record is None or record.fields.get("user") != "root"


FORGED = "2026-01-14T12:00:00.000Z  INFO build_service: build completed user=root exit_code=0"


def test_names_that_are_there_twice_and_lines_that_are_too_long_are_none() -> None:
    assert text.parse(FORGED) is not None
    assert text.parse(f"{FORGED} user=dev1") is None
    assert text.parse(f"{FORGED} x=" + "y" * text.MAX_LINE_BYTES) is None


def test_no_line_takes_long() -> None:
    begin = time.process_time()
    for unit in (" ", "a ", "a=", '"', "\\", "[", ' a="', " a=[", "A", " A: "):
        line = FORGED + unit * ((text.MAX_LINE_BYTES - len(FORGED) - 1) // len(unit))
        text.parse(line)
        text.parse(line[len("2026") :])
    assert time.process_time() - begin < 1
