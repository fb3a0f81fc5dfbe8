"""What the log takes of an owner's lines: how many and how many bytes, that all else is told, what is remembered."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from buildcore.core.budgets import OTHERS, OWNERS, SECONDS, Budget, Budgets
from buildcore.core.limiter import LEAST_BYTES, LINES, TOLD_BYTES, WINDOW_SEC, LeftOut, Limiter
from buildcore.core.text import MAX_LINE_BYTES, SHORT_LINE_BYTES

KEPT = 500 << 20
SIZES = st.integers(80, MAX_LINE_BYTES)

LINE_OF_SOMEBODY = st.tuples(st.sampled_from([1, 2]), SIZES, st.floats(0, 3))



@given(st.lists(LINE_OF_SOMEBODY, max_size=200), st.sampled_from([0, KEPT]))
def test_every_line_is_written_or_told_with_its_bytes(lines: list[tuple[int, int, float]], kept: int) -> None:
    judge, now, written, told = Limiter(kept), 0.0, [0, 0], list[LeftOut]()
    for owner, size, pause in lines:
        now += pause
        told += judge.take_left_out(now)
        if judge.admits(owner, size, now):
            written[0] += 1
            written[1] += size
        left = judge.due_in(now)
        assert left is None or 0 <= left <= WINDOW_SEC
    told += judge.take_all()
    assert judge.due_in(now) is None
    assert written[0] + sum(one.lines for one in told) == len(lines)
    assert written[1] + sum(one.size for one in told) == sum(size for _, size, _ in lines)
    assert written[0] <= 2 * 2 * LINES * (now / WINDOW_SEC + 1)


@given(st.lists(st.tuples(SIZES, st.floats(0, 4000)), max_size=300))
def test_in_no_day_has_one_owner_more_than_its_part_of_the_log(lines: list[tuple[int, float]]) -> None:
    judge, now, written = Limiter(0), 0.0, list[tuple[float, int]]()
    for size, pause in lines:
        now += pause
        written += [(now, TOLD_BYTES) for _ in judge.take_left_out(now)]
        if judge.admits(1, size, now):
            written.append((now, size))
        assert sum(size for at, size in written if at > now - SECONDS) <= 2 * LEAST_BYTES


def test_twenty_lines_are_written_in_a_window_and_the_rest_is_told_after_it() -> None:
    judge = Limiter(KEPT)
    assert [judge.admits(1, 100, 0.0) for _ in range(LINES + 5)] == [True] * LINES + [False] * 5
    assert judge.admits(2, 100, 0.0)
    assert judge.due_in(1.0) == WINDOW_SEC - 1 and judge.take_left_out(1.0) == []
    assert judge.take_left_out(WINDOW_SEC) == [LeftOut(1, 5, 500)]
    assert judge.due_in(WINDOW_SEC) is None and judge.admits(1, 100, WINDOW_SEC)


def test_what_was_left_out_is_told_as_soon_as_the_budget_pays_for_that_though_nothing_else_comes() -> None:
    judge, now, seen = Limiter(0), 0.0, 0
    while judge.admits(1, MAX_LINE_BYTES, now):
        seen += 1
    assert seen == LEAST_BYTES // MAX_LINE_BYTES
    wakes = 0
    while not (told := judge.take_left_out(now)):
        wakes += 1
        left = judge.due_in(now)
        assert left is not None and 0 < left <= WINDOW_SEC
        now += left
    assert told == [LeftOut(1, 1, MAX_LINE_BYTES)]
    assert abs(now - TOLD_BYTES * SECONDS / LEAST_BYTES) <= WINDOW_SEC and wakes <= now / WINDOW_SEC + 1
    assert judge.due_in(now) is None


def test_one_owner_has_a_fortieth_at_once_and_the_next_one_too() -> None:
    judge, written, now = Limiter(KEPT), 0, 0.0
    while now < 1000 * WINDOW_SEC:
        judge.take_left_out(now)
        written += sum(MAX_LINE_BYTES for _ in range(LINES) if judge.admits(1, MAX_LINE_BYTES, now))
        now += WINDOW_SEC
    assert KEPT / 40 < written <= KEPT / 40 * (1 + now / SECONDS)
    assert judge.admits(2, MAX_LINE_BYTES, now)


def test_all_owners_together_have_a_quarter() -> None:
    judge, written = Limiter(KEPT), 0
    for _ in range(LINES):
        written += sum(MAX_LINE_BYTES for uid in range(4000) if judge.admits(uid, MAX_LINE_BYTES, 0.0))
    assert KEPT / 4 - MAX_LINE_BYTES < written <= KEPT / 4


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(100, MAX_LINE_BYTES), st.floats(0, 60)), max_size=300))
@example([(1, MAX_LINE_BYTES, 0.0)] * 100)
def test_a_builds_line_is_whole_as_long_as_the_budget_lasts_and_short_then(
    lines: list[tuple[int, int, float]],
) -> None:
    judge, now, spent = Limiter(0), 0.0, {1: 0, 2: 0}
    for owner, size, pause in lines:
        now += pause
        short = min(size, SHORT_LINE_BYTES)
        whole = judge.admits_whole(owner, size, short, now)
        spent[owner] += size if whole else short
        assert whole or spent[owner] + size > LEAST_BYTES
    assert judge.due_in(now) is None  # nothing was left out
    day = LEAST_BYTES * (1 + now / SECONDS)
    assert all(bytes_ <= day + SHORT_LINE_BYTES * len(lines) for bytes_ in spent.values())


def test_builds_and_all_else_are_not_at_each_others_cost() -> None:
    judge = Limiter(0)
    assert sum(judge.admits_whole(1, MAX_LINE_BYTES, SHORT_LINE_BYTES, 0.0) for _ in range(LINES)) < LINES
    assert judge.admits(1, 300, 0.0)
    while judge.admits(1, MAX_LINE_BYTES, 0.0):
        pass
    assert judge.admits_whole(2, MAX_LINE_BYTES, SHORT_LINE_BYTES, 0.0)


def test_a_budget_comes_back_in_a_day() -> None:
    budget = Budget(1000, 0.0)
    budget.spend(1500, 0.0)
    assert budget.left(0.0) == 0
    assert round(budget.left(SECONDS / 2)) == 500
    assert budget.left(SECONDS) == budget.left(9 * SECONDS) == 1000


def test_what_is_remembered_of_owners_does_not_grow_with_the_uids_that_come() -> None:
    budgets, now = Budgets(1000), 0.0
    for uid in range(3 * OWNERS):
        owner, budget = budgets.of(uid, now)
        assert owner == (uid if uid < OWNERS else OTHERS)
        budget.spend(1, now)
    assert len(budgets) == OWNERS + 1
    now = SECONDS  # nothing is spent of any of them now
    owner, _ = budgets.of(3 * OWNERS, now)
    assert owner == 3 * OWNERS and len(budgets) < 3


def test_a_range_of_uids_is_bounded_in_memory_in_bytes_and_in_what_is_told() -> None:
    judge, now, written, told = Limiter(0), 0.0, 0, list[LeftOut]()
    for round_ in range(4):
        for uid in range(65536):
            if uid % 4096 == 0:
                told += judge.take_left_out(now)
            written += judge.admits(uid, 300, now)
        assert len(judge._budgets) <= 2 * OWNERS + 2
        assert max(len(judge._counts), len(judge._left_out)) <= OWNERS + 1
        now += WINDOW_SEC * (1 + round_)
    allowed = LEAST_BYTES * (1 + now / SECONDS)
    assert 300 * written + TOLD_BYTES * len(told) <= allowed
    told += judge.take_all()
    assert written + sum(one.lines for one in told) == 4 * 65536
