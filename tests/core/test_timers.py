"""What is to be done later: it is given when it is due, once, and not when it was called off."""

from __future__ import annotations

from buildcore.core.timers import LONGEST_WAIT_SEC, Timers


def first() -> None: ...


def second() -> None: ...


def test_it_waits_for_the_first_that_is_due() -> None:
    timers = Timers()
    assert timers.wait_sec(now=100) is None
    timers.set(first, 105)
    timers.set(second, 103)
    assert timers.wait_sec(now=100) == 3
    assert timers.wait_sec(now=200) == 0
    timers.set(second, 1e9)
    assert timers.wait_sec(now=100) == 5
    timers.cancel(first)
    assert timers.wait_sec(now=100) == LONGEST_WAIT_SEC


def test_what_is_due_is_given_once() -> None:
    timers = Timers()
    timers.set(first, 1)
    timers.set(second, 3)
    assert list(timers.take_due(now=2)) == [first]
    assert first not in timers and second in timers
    assert list(timers.take_due(now=2)) == []


def test_what_one_before_it_called_off_is_not_given() -> None:
    timers = Timers()
    timers.set(first, 1)
    timers.set(second, 2)
    for action in timers.take_due(now=2):
        assert action is first
        timers.cancel(second)


def test_what_is_set_while_others_are_done_waits_for_the_next_time() -> None:
    timers = Timers()
    timers.set(first, 1)
    for action in timers.take_due(now=2):
        timers.set(action, 1)
    assert list(timers.take_due(now=2)) == [first]
