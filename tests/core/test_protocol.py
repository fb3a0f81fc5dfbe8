"""Both streams of the wire protocol: the same wherever they are cut, and any bytes are taken or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import protocol_corpus
import tools
from buildcore.core.protocol import events, requests
from buildcore.core.protocol.events import EventReader, Exit, ResponseError
from buildcore.core.protocol.lines import Lines
from buildcore.core.protocol.requests import Cancel, Request, RequestError, RequestReader
from harness_world import ROOT
from protocol_streams import bytewise, cut, events_in, requests_in, taken


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
