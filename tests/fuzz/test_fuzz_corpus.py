"""What fuzzing found worth keeping goes through its parser in every `make test`, without atheris (tests/fuzz)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import corpus
from fuzz.targets import TARGETS


def assert_holds(name: str, data: bytes) -> None:
    try:
        TARGETS[name](data)
    except Exception as exc:
        raise AssertionError(f"for {data!r}") from exc


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_that_was_kept_goes_through_its_target(name: str) -> None:
    inputs = corpus.load(name)
    assert inputs
    for data in inputs:
        assert_holds(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_two_inputs_grown_together_go_through_their_target(name: str) -> None:
    inputs = st.sampled_from(corpus.load(name))
    places = st.floats(0, 1)

    @given(inputs, places, st.binary(max_size=3), inputs, places)
    def check(first: bytes, end: float, between: bytes, second: bytes, begin: float) -> None:
        assert_holds(name, first[: int(end * len(first))] + between + second[int(begin * len(second)) :])

    check()


def test_every_corpus_has_its_target() -> None:
    assert {path.stem for path in corpus.CORPUS.iterdir()} == set(TARGETS)
