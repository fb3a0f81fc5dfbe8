"""How long a build may stand still: never longer than allowed, and no time is lost or won."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.pauses import Pauses

SECONDS = st.integers(0, 100)


@given(SECONDS, st.lists(st.tuples(SECONDS, SECONDS)))
def test_a_deadline_moves_by_what_was_paused_and_by_no_more_than_allowed(
    most: int, phases: list[tuple[int, int]]
) -> None:
    pauses, now, deadline, paused = Pauses(most), 0, 1000.0, 0
    for runs, stands in phases:
        now += runs
        deadline += pauses.begin(now)
        assert pauses.is_paused()
        assert deadline == 1000 + most  # what holds if it never goes on
        now += stands
        paused += stands
        deadline -= pauses.end(now)
        assert not pauses.is_paused()
        assert deadline == 1000 + min(paused, most)
