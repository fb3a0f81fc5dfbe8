"""What a fault of this list is, and the promises that they break."""

from __future__ import annotations

from typing import NamedTuple

PROMISES = {
    "ids": "a build has exactly the caller's uid, gid and groups, however many",
    "connected": "whoever connected is who builds, whatever it becomes or hands on",
    "drop": "a drop that goes wrong at any step starts no build, and no service",
    "refused": "root, uids without account, and system accounts below `build.min_uid` build nothing",
    "common": "of groups in common, both caller and account have each; one of the host's own that the account is "
    "not in is named",
    "untouched": "nothing of a caller reaches its session, the arbiter or others' builds",
    "isolated": "no program loads code that its environment names",
    "socket": "who connects is whom the socket's group and mode let in, from the moment that it is made",
    "units": "the unit gives the service the rights that it needs, and no more",
    "request": "a request starts what the configuration allows, in its caller's workspace",
    "variables": "no variable reaches a build that the allowlist does not name or match, and none is left out in "
    "silence",
    "directory": "the directory that was checked is the one that is entered",
    "same": "a build runs in the very directory of its caller, whatever that is called on either side, or nowhere",
    "walkers": "the walkers find the path options that the tools find",
    "bytes": "bytes from callers and services, whatever they are, are one line or an answer",
    "proportion": "a request costs time in proportion to its length, and none once its caller has gone",
    "shown": "what shows a log or an answer takes nothing in a value for anything else, and shows no control character",
    "log": "the log is its administrator's alone to read",
    "waiting": "one caller cannot keep others waiting",
    "turned over": "a user's refusals and long lines have a tenth of the log at most in a day; no budget leaves out a "
    "build, and what is left out is told. Only the number of its builds can turn it over",
    "faults": "a faulty machine costs a build at most, never the service",
    "reload": "a reload, a restart and an upgrade lose no caller",
    "ends": "a timeout, a cancel, a hang-up and the service's end end everything of a build, from its fork on; what "
    "cannot be ended is named",
    "heard": "a signal for a build reaches all of it, whatever /proc hides from the service, and nobody else, whatever "
    "pids are used again",
    "keys": "builds share no keys, with each other or with the service",
    "audit": "a build is on its caller's account in the audit trail",
    "memory": "when memory runs out the service lives",
    "inherited": "what else a build inherits was set for it on purpose",
    "left": "nothing is left behind",
}
"""A word for each promise of the table in docs/SECURITY.md, and the promise as it stands there."""


class Mutant(NamedTuple):
    """A fault: the word for the promise that it breaks, what is wrong in a few words, the edit, and the tests that must
    notice.

    `tests` are names of test functions, with one case in brackets behind it where the others take their time.
    """

    promise: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return the text of the file with the fault in it. Raises LookupError where the edit does not fit."""
        count = text.count(self.old)
        if count != 1:
            raise LookupError(f"{self.file}: what {self.name!r} takes away is there {count} times, not once")
        return text.replace(self.old, self.new)
