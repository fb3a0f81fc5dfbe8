"""Nobody passes as a descendant, however processes come, go and take over numbers while they are read one by one.

A made-up machine with few numbers forks, ends and goes on between any two reads. It knows who is below whom in truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import example, find, given, settings
from hypothesis import strategies as st

from buildcore.core.descent import Process, Sighting, believed, candidates

INIT, ANCESTOR = 1, 2
PIDS = range(3, 10)
"""Few, so that they are used again and again."""

IN_FULL = 4000
"""Examples of the test that all hangs on."""


@dataclass
class Live:
    """A process of the made-up machine, and what it is in truth."""

    pid: int
    start: int
    parent: int
    below: bool
    in_group: bool


@dataclass
class Machine:
    """Numbers, who has them, and a clock that stands still most of the time. Events are drawn from `seed`."""

    seed: int
    busy: int
    clock: int = 0
    live: dict[int, Live] = field(default_factory=dict)
    last_start: dict[int, int] = field(default_factory=dict)
    truth: dict[tuple[int, int], Live] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.live[INIT] = Live(INIT, 0, 0, False, False)
        self.live[ANCESTOR] = Live(ANCESTOR, 0, INIT, False, False)
        for _ in range(len(PIDS)):
            self.fork()

    def fork(self) -> None:
        parent = self._random.choice([*self.live.values()])
        number = self._random.choice(PIDS)
        if number in self.live or self.last_start.get(number) == self.clock:
            return  # no number is given away twice within a tick
        below = parent.below or parent.pid == ANCESTOR
        grouped = parent.in_group if parent.below else below and self._random.random() < 0.7
        made = Live(number, self.clock, parent.pid, below, grouped)
        self.live[number] = self.truth[number, self.clock] = made
        self.last_start[number] = self.clock

    def end(self) -> None:
        ended = self._random.choice([*self.live])
        if ended in (INIT, ANCESTOR):
            return
        below = self.live.pop(ended).below
        for process in self.live.values():
            if process.parent == ended:
                process.parent = ANCESTOR if below else INIT

    def tick(self) -> None:
        self.clock += 1

    def go_on(self) -> None:
        """Lets some time pass."""
        for _ in range(self._random.randrange(self.busy + 1)):
            self._random.choice([self.fork, self.end, self.tick])()

    def read(self, pid: int) -> Sighting | None:
        self.go_on()
        seen = self.live.get(pid)
        return None if seen is None else Sighting(Process(pid, seen.parent, seen.start, "x"), 0, 0, False)

    def read_all(self, pids: Collection[int]) -> list[Sighting]:
        return [seen for pid in pids if (seen := self.read(pid)) is not None]

    def members(self) -> set[int]:
        self.go_on()
        return {process.pid for process in self.live.values() if process.in_group}

    def is_below(self, seen: Sighting) -> bool:
        return self.truth[seen.process.pid, seen.process.start].below


Machines = st.builds(Machine, seed=st.integers(0, 2**32), busy=st.integers(1, 12))


def look(machine: Machine, grouped: bool, order: Callable[[list[Sighting]], list[Sighting]]) -> list[Sighting]:
    """What is believed, where what may be below is read the second time in this order."""
    table = machine.read_all(range(10))
    members = machine.members() if grouped else set()
    maybe = candidates(table, ANCESTOR, members)
    again = machine.read_all([seen.process.pid for seen in order(maybe)])
    return believed(table, again, ANCESTOR, members)


def children_first(maybe: list[Sighting]) -> list[Sighting]:
    return maybe[::-1]


@given(Machines, st.booleans())
@settings(max_examples=IN_FULL)
def test_what_is_believed_is_below_in_truth(machine: Machine, grouped: bool) -> None:
    assert all(machine.is_below(seen) for seen in look(machine, grouped, children_first))


@given(Machines, st.booleans(), st.integers(0, 2**32))
def test_in_whatever_order_the_second_reading_goes(machine: Machine, grouped: bool, seed: int) -> None:
    def shuffled(maybe: list[Sighting]) -> list[Sighting]:
        return random.Random(seed).sample(maybe, len(maybe))

    assert all(machine.is_below(seen) for seen in look(machine, grouped, shuffled))


@given(Machines, st.booleans())
@example(Machine(0, 0), False)
def test_where_nothing_moves_all_that_is_below_is_believed(machine: Machine, grouped: bool) -> None:
    machine.busy = 0
    found = look(machine, grouped, children_first)
    assert {seen.process.pid for seen in found} == {each.pid for each in machine.live.values() if each.below}
    seen_pids = {ANCESTOR}
    for seen in found:
        assert seen.process.parent in seen_pids
        seen_pids.add(seen.process.pid)


def test_one_reading_alone_takes_strangers_for_descendants() -> None:
    """What the second one is for: the made-up machine does what has to be withstood."""

    def fooled(seed: int) -> bool:
        machine = Machine(seed, 6)
        table = machine.read_all(range(10))
        return not all(machine.is_below(seen) for seen in candidates(table, ANCESTOR))

    find(st.integers(0, 2**32), fooled, settings=settings(max_examples=IN_FULL, database=None))


def test_the_order_of_the_second_reading_counts() -> None:
    """A parent that was read before its child, both times, may be another by the time that the child tells of it."""
    stranger, number = 5, 7
    table = [sighting(stranger, number, 3), sighting(number, ANCESTOR, 2)]
    late, early = sighting(number, ANCESTOR, 2), sighting(stranger, number, 3)
    assert believed(table, [early, late], ANCESTOR) == [late, early]
    assert believed(table, [late, early], ANCESTOR) == [late]


def sighting(pid: int, parent: int, start: int) -> Sighting:
    return Sighting(Process(pid, parent, start, ""), pid, pid, False)


@pytest.mark.parametrize(
    ("again", "why"),
    [
        ([sighting(5, 6, 3), sighting(6, 2, 2)], "all as before"),
        ([sighting(5, 6, 3), sighting(6, 2, 4)], "another has the parent's number"),
        ([sighting(5, 6, 4), sighting(6, 2, 2)], "another has the child's number"),
        ([sighting(5, 1, 3), sighting(6, 2, 2)], "it has another parent"),
        ([sighting(5, 6, 3)], "the parent is gone"),
        ([sighting(5, 6, 3), sighting(6, 1, 2)], "the parent is not below"),
    ],
)
def test_a_child_is_believed_only_with_a_parent_that_is_seen_unchanged_after_it(
    again: list[Sighting], why: str
) -> None:
    table = [sighting(5, 6, 3), sighting(6, 2, 2)]
    assert (again[0] in believed(table, again, ANCESTOR)) == (why == "all as before")


def test_a_parent_that_is_younger_than_its_child_is_none() -> None:
    table = [sighting(5, 6, 3), sighting(6, 2, 4)]
    assert believed(table, table, ANCESTOR) == [table[1]]


def test_what_is_in_the_control_group_is_believed_whoever_its_parent_is_and_only_as_long_as_it_is_the_same() -> None:
    table = [sighting(5, 1, 3), sighting(6, 5, 4), sighting(7, 1, 4)]
    assert candidates(table, ANCESTOR, {5}) == table[:2]
    assert believed(table, [table[1], table[0]], ANCESTOR, {5}) == [table[0], table[1]]
    assert believed(table, [table[1], sighting(5, 1, 9)], ANCESTOR, {5}) == []


def test_members_come_behind_their_parents_too() -> None:
    table = [sighting(3, 9, 5), sighting(8, 1, 3), sighting(9, 8, 4)]
    assert [seen.process.pid for seen in candidates(table, ANCESTOR, {3, 8, 9})] == [8, 9, 3]


@given(st.lists(st.builds(sighting, st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=12))
def test_whatever_a_table_shows_comes_to_an_end_and_each_comes_once(table: list[Sighting]) -> None:
    for found in (candidates(table, ANCESTOR, {3, 4}), believed(table, table, ANCESTOR, {3, 4})):
        pids = [seen.process.pid for seen in found]
        assert len(pids) == len(set(pids))
        assert ANCESTOR not in pids


def test_a_spared_child_is_left_out_with_all_below() -> None:
    table = [sighting(3, 2, 1), sighting(4, 3, 1), sighting(5, 2, 1)]
    assert candidates(table, ANCESTOR, is_spared=lambda child: child.process.pid == 3) == [table[2]]
