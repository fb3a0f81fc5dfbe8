"""What caller and account have in common is in both, whatever either has; what a uid_map says of a container's root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildcore.core import groups, namespaces

GIDS = st.integers(0, 8)
SETS = st.sets(GIDS)


@given(GIDS, SETS, GIDS, SETS, st.integers(0, 9))
def test_what_is_in_common_is_in_both_and_what_is_beyond_in_one(
    gid: int, supplementary: set[int], own: int, others: set[int], first_gid: int
) -> None:
    caller, login = {gid, *supplementary}, {own, *others}
    found = groups.in_common(gid, supplementary, own, login)
    if found is None:
        assert gid not in login and own not in supplementary
    else:
        assert {found[0], *found[1]} <= caller & login
        assert list(found[1]) == sorted(supplementary & login)
    beyond = groups.beyond(gid, supplementary, login, first_gid)
    assert list(beyond) == sorted(each for each in caller - login if each < first_gid)


def test_the_gid_is_the_caller_s_where_the_account_is_in_that_group_else_the_account_s_own() -> None:
    assert groups.in_common(5, (5, 7), 6, (5, 6, 7)) == (5, (5, 7))
    assert groups.in_common(4, (6, 7), 6, (5, 6, 7)) == (6, (6, 7))
    assert groups.in_common(4, (5, 7), 6, (5, 6, 7)) is None


@pytest.mark.parametrize(
    ("uid_map", "found"),
    [
        ("         0          0 4294967295\n", True),
        ("         0       1000          1\n         1     100000      65536\n", False),
        ("         0          1       1000\n      1000          0          1\n", False),
        ("         0          0      65536\n", False),
        ("", False),
    ],
)
def test_whose_root_a_container_has(uid_map: str, found: bool) -> None:
    assert namespaces.has_the_host_s_uids(uid_map) is found
