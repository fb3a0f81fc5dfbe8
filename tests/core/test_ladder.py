"""The ladder by which a build is ended: its order, its patience, its end."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from buildcore.core.ladder import KILL_ATTEMPTS, KILL_WAIT_SEC, Ladder

TERM, KILL, INT, HUP = signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP
KILLS = [(KILL, KILL_WAIT_SEC)] * KILL_ATTEMPTS


def climbed(ladder: Ladder) -> list[tuple[int, float]]:
    rungs = []
    while (rung := ladder.climb()) is not None:
        rungs.append(rung)
    return rungs


def test_it_begins_with_term_and_ends_with_kills() -> None:
    ladder = Ladder(grace_sec=5)
    ladder.start(TERM)
    assert climbed(ladder) == [(TERM, 5), *KILLS]


def test_a_gentler_signal_comes_before() -> None:
    ladder = Ladder(grace_sec=5)
    ladder.start(INT)
    assert climbed(ladder) == [(INT, 5), (TERM, 5), *KILLS]


def test_without_patience_the_next_rung_is_due_at_once() -> None:
    ladder = Ladder(grace_sec=0)
    ladder.start(TERM)
    assert climbed(ladder) == [(TERM, 0), *KILLS]


def test_who_asks_for_more_goes_on_and_who_asks_for_less_is_passed_over() -> None:
    ladder = Ladder(grace_sec=5)
    assert not ladder.begun and ladder.leads_to(INT)
    ladder.start(INT)
    ladder.climb()
    assert ladder.begun and ladder.leads_to(TERM) and not ladder.leads_to(INT) and not ladder.leads_to(HUP)
    ladder.climb()
    assert not ladder.leads_to(TERM) and ladder.leads_to(KILL)


@given(st.lists(st.sampled_from([INT, HUP, TERM, None])))
def test_whatever_is_asked_for_in_between_it_only_climbs_and_ends(asked: list[signal.Signals | None]) -> None:
    ladder, sent = Ladder(grace_sec=1), []
    for signum in asked:
        if signum is not None and ladder.leads_to(signum):
            ladder.start(signum)
        if ladder.begun:
            sent += [rung[0] for rung in [ladder.climb()] if rung]
    if ladder.leads_to(KILL):
        ladder.start(KILL)
    sent += [rung[0] for rung in climbed(ladder)]
    heights = [{INT: 0, HUP: 0, TERM: 1, KILL: 2}[signum] for signum in sent]
    assert heights == sorted(heights)
    assert sent.count(TERM) <= 1 and sent.count(INT) + sent.count(HUP) <= 1
    assert 1 <= sent.count(KILL) <= KILL_ATTEMPTS
