"""How many callers are served at once, in all and of one user, and who makes room where there are too many.

Pure: the arbiter counts with it. A place is taken by a caller whose build runs, or is yet to be asked for. Who only
waits for the rest of its output, with nothing running, has a delivery instead. There are as many deliveries as places;
one more ends another, of the user who has the most, and never keeps a caller out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """So many at once, in all and of one user: places, and again so many deliveries."""

    in_all: int
    of_a_user: int


def refusal(serving: Collection[int], uid: int, limits: Limits) -> str | None:
    """Return why one more caller of `uid` has no place beside those that are served (their uids); None when it has."""
    own = list(serving).count(uid)
    if len(serving) >= limits.in_all:
        return f"{limits.in_all} callers are served already (service.max_connections)"
    if own >= limits.of_a_user:
        return f"{own} of your builds run already (service.max_connections_per_user)"
    return None


def one_too_many(deliveries: Mapping[int, int], limits: Limits) -> int | None:
    """Return which of the deliveries, a uid each, has to end, of those that began first; None while all have room."""
    counts = Counter(deliveries.values())
    if not counts:
        return None
    uid, most = counts.most_common(1)[0]
    if most <= limits.of_a_user and len(deliveries) <= limits.in_all:
        return None
    return next(key for key, owner in deliveries.items() if owner == uid)
