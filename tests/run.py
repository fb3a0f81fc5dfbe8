"""Runs the tests: `make test` calls it, `tests/run.py [PYTEST-ARGUMENT]...` does the same by hand.

As root the tests run in the private world of harness_world, so that they may use other users and leave nothing on the
machine; as an ordinary user they run as they are, and what needs root is skipped and counted (conftest.py). What will
be skipped, for that or for a tool that is missing (tools.py), is said first.
"""

from __future__ import annotations

import os
import signal
import sys

import harness_world
import tools


def main() -> None:
    harness_world.enter()
    for number in (signal.SIGINT, signal.SIGQUIT):  # which a shell has ignored by what it runs in the background
        signal.signal(number, signal.SIG_DFL)
    os.chdir(harness_world.ROOT)
    print(*tools.report(), sep="\n", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])


if __name__ == "__main__":
    main()
