"""The argument walkers against the real make, ninja, cmake and ctest, with many more command lines than `make test`.

`make differential COUNT=20000` runs it: the properties are those of test_arguments_make.py, _tools.py and _builders.py,
which make up the command lines and compare; this file shares COUNT out among them, counts what the real programs
were started with, and fails when any of them disagrees with a walker. It must never count what was not run.
"""

from __future__ import annotations

import collections
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
PROPERTIES = (
    "core/test_arguments_make.py",
    "core/test_arguments_tools.py::test_ninja_reads_the_file_that_the_walker_found",
    "core/test_arguments_tools.py::test_whatever_cmake_reads_or_builds_in_the_walker_found",
    "core/test_arguments_builders.py::test_whatever_ctest_reads_the_walker_found",
)
TOOLS = {tool: f"{tool.upper()}_UNDER_TEST" for tool in ("make", "ninja", "cmake", "ctest")}
SHARES = 3 + 1 + 2 / 10
"""Three properties of make and one of ninja get ARGUMENTS_EXAMPLES command lines each, cmake and ctest a tenth."""

DEFAULT_COUNT = 20_000


class Tally:
    """A plugin of pytest that counts the tests which found a disagreement."""

    def __init__(self) -> None:
        self.passed = 0
        self.disagreements = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed
        self.disagreements += report.failed


def count_starts(programs: dict[str, str], starts: dict[str, collections.Counter[object]]) -> None:
    """Count into `starts` what this process starts from now on, by tool and by command line (MAKEFLAGS included)."""

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            executable, args, _, environment = details
            if executable in programs and list(args[1:]) != ["--version"]:
                makeflags = (environment or {}).get("MAKEFLAGS", "")
                starts[programs[executable]][(makeflags, *args[1:])] += 1

    sys.addaudithook(hook)


def version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_COUNT
    os.environ["ARGUMENTS_EXAMPLES"] = str(math.ceil(count / SHARES))
    programs = {os.environ.get(variable, tool): tool for tool, variable in TOOLS.items()}
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    tally = Tally()
    starts: dict[str, collections.Counter[object]] = {tool: collections.Counter() for tool in TOOLS}
    count_starts(programs, starts)
    began = time.monotonic()
    # Without conftest.py, whose limit for one test is meant for the small counts of `make test`.
    pytest.main(["--noconftest", "-q", *(str(TESTS / name) for name in PROPERTIES)], plugins=[tally])
    print(f"\n{'tool':6} {'command lines':>13} {'of them distinct':>16}  version")
    total = 0
    for program, tool in programs.items():
        started = sum(starts[tool].values())
        total += started
        print(f"{tool:6} {started:13} {len(starts[tool]):16}  {version(program)}")
    print(f"{'all':6} {total:13} {sum(map(len, starts.values())):16}  in {time.monotonic() - began:.0f} s")
    print(f"tests passed: {tally.passed}, disagreements: {tally.disagreements}")
    return int(tally.disagreements > 0 or total < count)


if __name__ == "__main__":
    sys.exit(main())
