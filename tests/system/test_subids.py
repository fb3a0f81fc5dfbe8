"""Whose a uid is where the ranges of /etc/subuid lie in each other, or are of a name that is no account's."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from buildcore.system import subids

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 20), st.integers(1000, 1009)), max_size=8)


@given(RANGES, st.integers(0, 70))
@example([(0, 20, 1000), (5, 1, 1001)], 10)
def test_a_uid_is_the_owners_of_the_range_around_it_that_begins_last(
    ranges: list[tuple[int, int, int]], uid: int
) -> None:
    around = [one for one in sorted(ranges) if one[0] <= uid < one[0] + one[1]]
    assert subids.Owners(ranges).owner_of(uid) == (around[-1][2] if around else uid)


def test_a_range_of_a_name_without_account_is_one_user_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("no-such-account:2147483647:2147483648\n")
    owners = subids.load(str(path))
    assert {owners.owner_of(uid) for uid in (1 << 31, 3_000_000_000, (1 << 32) - 2)} == {2147483647}
    assert owners.owner_of(2147483646) == 2147483646


def test_one_range_of_very_many_is_found_at_once() -> None:
    owners = subids.Owners([(100000 + 65536 * number, 65536, number) for number in range(50000)])
    assert [owners.owner_of(100000 + 65536 * number + 65535) for number in (0, 49999)] == [0, 49999]
