"""A line of a build that is written shortened: all its fields are there, and each that was cut says by how much."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import text

LONG = st.text(min_size=1, max_size=20).map(lambda piece: piece * (1 << 10))
LISTS = st.lists(LONG, min_size=1, max_size=4)
KNOWN = {"user": "u" * 64, "command": LONG, "cwd": LONG, "request_id": LONG, "args": LISTS}
FOREIGN = [f"{gid}({'g' * 32})" for gid in range(100, 116)] + ["65520 more"]
START = {
    "timeout_sec": 1 << 31, "peer_pid": 1 << 22, "container": "c" * 12, "userns": "host", "label": LONG,
    "foreign_groups": FOREIGN,
}  # fmt: skip
END = {"exit_code": 255, "duration_sec": 1e6, "reason": "build-service stops", "survivors": LISTS}

LEFT_OUT = re.compile(r"\.\.\. \[(\d+) characters left out\]")


def fields(which: dict[str, object]) -> st.SearchStrategy[dict[str, object]]:
    made = {name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in which.items()}
    return st.fixed_dictionaries(made)


def short(message: str, given_fields: dict[str, object]) -> str:
    return text.line(0, "error", "build_service", message, given_fields, text.SHORT_LINE_BYTES)


@pytest.mark.parametrize(("message", "more"), [("build started", START), ("build completed", END)])
def test_whatever_a_build_says_fits_with_every_field(message: str, more: dict[str, object]) -> None:
    @given(fields({**KNOWN, **more}))
    def fits(all_fields: dict[str, object]) -> None:
        line = short(message, all_fields)
        assert len(line.encode()) < text.SHORT_LINE_BYTES
        record = text.parse(line)
        assert record is not None and record.message == message
        assert list(record.fields) == list(all_fields)
        for name in ("user", "timeout_sec", "exit_code", "peer_pid"):
            assert name not in all_fields or record.fields[name] == str(all_fields[name])

    fits()


def test_what_was_cut_is_told_of_the_value_itself() -> None:
    line = short("build started", {"user": "dev1", "cwd": "/w", "args": ["all", "X=" + "x" * 5000], "request_id": "7"})
    record = text.parse(line)
    assert record is not None
    assert (record.fields["user"], record.fields["cwd"], record.fields["request_id"]) == ("dev1", "/w", "7")
    shown, marks = record.fields["args"], LEFT_OUT.findall(record.fields["args"])
    assert shown.startswith('["all","X=xxx') and sum(map(int, marks)) + shown.count("x") == 5000


def test_a_short_line_stays_as_it_is() -> None:
    known = {"user": "dev1", "cwd": "/home/dev1/workspace/app", "args": ["-j4", "all"], "command": "make"}
    assert short("build started", known) == text.line(0, "error", "build_service", "build started", known)
