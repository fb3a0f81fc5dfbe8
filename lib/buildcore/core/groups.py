"""Which groups a caller and its account have in common, and which the caller has beyond: sets in, sets out.

`identity` brings what the kernel and the user database say. Must never make a group up: whatever comes out was in both.
"""

from __future__ import annotations

from collections.abc import Collection


def in_common(
    gid: int, groups: Collection[int], account_gid: int, login: Collection[int]
) -> tuple[int, tuple[int, ...]] | None:
    """Return the gid and the supplementary groups of a build that has what its caller and its account have in common.

    `gid` and `groups` are the caller's, `account_gid` is the account's own group, `login` are all that a login of it
    would have, that one included. The gid is the caller's where the account is in that group, else the account's own
    where the caller is in that; None where neither is so.
    """
    supplementary = tuple(sorted(set(groups).intersection(login)))
    if gid in login:
        return gid, supplementary
    return (account_gid, supplementary) if account_gid in supplementary else None


def beyond(gid: int, groups: Collection[int], login: Collection[int], first_gid: int) -> tuple[int, ...]:
    """Return the caller's groups below `first_gid`, the host's own ones, that its account is not in."""
    return tuple(sorted({each for each in (gid, *groups) if each < first_gid}.difference(login)))
