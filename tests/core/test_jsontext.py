"""JSON in and out: by the C module and in plain Python alike, and both as the json package has it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import harness
from buildcore.core import jsonplain, jsontext

TEXT = st.text(st.characters())  # lone surrogates too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)
ALPHABET = '{}[]",:\\/ \t\r\n\0\x1f\x7fbfnrtu0123456789abcdefABCDEF+-.eENaInfityrlsé\ud800\udc00😀'
NOISE = st.text(st.sampled_from(ALPHABET), max_size=40) | VALUES.map(json.dumps).flatmap(
    lambda text: st.integers(0, len(text)).map(lambda cut: text[:cut] + "x" + text[cut:])
)


def plain(text: str) -> Any:
    text = text.strip(jsontext.BLANKS)
    value, end = jsonplain.scan(text, int)
    if end != len(text):
        raise ValueError("more text")
    return value


def by_json(text: str) -> Any:
    def refuse(name: str) -> float:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("decode", [jsontext.decode, plain])
@given(VALUES)
def test_what_json_writes_is_read(decode: Any, value: Any) -> None:
    assert decode(json.dumps(value)) == value
    assert decode(json.dumps(value, ensure_ascii=False, indent=1)) == value


@pytest.mark.parametrize("decode", [jsontext.decode, plain])
@given(NOISE)
@example("01")
@example("1.")
@example("-")
@example("[1,]")
@example('{"a":1,}')
@example('"\\ud83d\\ude00\\ud83d"')
@example("NaN")
@example("")
def test_what_json_refuses_is_refused_and_the_rest_is_the_same(decode: Any, text: str) -> None:
    try:
        expected = by_json(text)
    except ValueError:
        with pytest.raises(ValueError):
            decode(text)
        return
    found = decode(text)
    assert found == expected or (isinstance(expected, float) and math.isinf(expected))


@given(VALUES)
def test_what_is_written_is_what_json_reads(value: Any) -> None:
    assert json.loads(jsontext.encode(value)) == value
    assert json.loads(jsontext.encode(value, ascii_only=True)) == value
    assert jsontext.encode(value, ascii_only=True).isascii()


@given(TEXT)
def test_strings_are_written_alike(text: str) -> None:
    assert json.loads(jsonplain.encode_basestring(text)) == text
    assert jsonplain.encode_basestring_ascii(text) == json.dumps(text)


def test_nesting_without_end_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        plain("[" * 100_000)


def test_an_interpreter_without_json_and_its_c_module_will_do() -> None:
    """As Debian's python3-minimal is."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('_json', 'json')))\n"
        f"sys.path.insert(0, {str(harness.ROOT / 'lib')!r})\n"
        "from buildcore.core.protocol import requests\n"
        "request = requests.Request('make', ['é', chr(0xdcff)], '/', env={'A': '\"'})\n"
        "reader = requests.RequestReader(); reader.receive_data(requests.encode_request(request))\n"
        "assert reader.next_event() == request\n"
        "print('json' in sys.modules and sys.modules['json'])\n"
    )
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("None\n", "")
