"""Puts faults into copies of this tree, one at a time, and sees whether the tests notice: `make mutate`.

`tests/mutate.py [WORD]...` takes those of tests/mutants that a word picks: a number, a range of them (12-20), or a
pattern in the promise or in the fault's own line. Each fault is put into a fresh copy, where the tests that hold its
promise run as `make test` runs them; without any fault these have to pass first. A fault that no test notices is a
survivor: it is printed at the end, and the exit code is 1. Neither this checkout nor anything else of the machine is
changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import harness
from mutants import MUTANTS, Mutant, places_of_tests

ROOT = Path(__file__).resolve().parent.parent

LEFT_OUT = (".git", ".venv", ".hypothesis", "*_cache", "__pycache__", "build", "dist", "*.egg-info")
"""What no test needs of a checkout, or makes itself."""

TEST_SEC = 60
"""How long one test may take with a fault: conftest.py fails it then, and ends what it started."""

PATIENCE_SEC = 15
"""How long a test waits for what a fault may keep from coming; elsewhere it is twice as long (harness.py)."""

RUN_SEC = 240
"""How long all tests of one fault may take."""

BASELINE_SEC = 1800
"""How long all of them may take without any fault."""

REPORT = "mutate.xml"

KILLED, SURVIVED, HUNG, BROKEN, UNTRIED = "killed", "SURVIVED", "killed by time", "BROKEN", "not tried"
"""What comes of a fault: its tests fail, pass, or do not end; do not run at all; or are skipped on this machine."""


class Result(NamedTuple):
    """What one run of tests came to: pytest's exit code (None: it did not end), and the functions that passed and that
    did not."""

    code: int | None
    passed: frozenset[str]
    failed: tuple[str, ...]
    said: str


class Outcome(NamedTuple):
    """What came of a fault, and which test noticed it."""

    kind: str
    test: str = ""
    said: str = ""


def main(words: Sequence[str]) -> int:
    """Try the faults that the words pick, all without any; return the exit code."""
    chosen = list(picked(MUTANTS, words))
    if not chosen:
        print(f"no fault of tests/mutants is picked by {' '.join(words)}", file=sys.stderr)
        return 1
    harness.become_subreaper()  # so that nothing of a run gets away
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # as ^C does: the copies go
    start = time.monotonic()
    with copy_of(ROOT) as sources:  # once, so that whoever goes on working here changes nothing of the run
        places = places_of_tests(sources)
        tests = sorted({test for _, mutant in chosen for test in mutant.tests})
        with copy_of(sources) as tree:
            control = run_tests(tree, tests, places, BASELINE_SEC)
        print(f"without any fault: {len(control.passed)} tests pass, in {time.monotonic() - start:.0f} s", flush=True)
        if control.code != 0:
            print(control.said, file=sys.stderr)
            print("the tests do not pass as they are: no fault was tried", file=sys.stderr)
            return 1
        print("\n| | promise | fault | what came of it | s |\n|---|---|---|---|---|", flush=True)
        outcomes: dict[int, Outcome] = {}
        for number, mutant in chosen:
            begun = time.monotonic()
            outcomes[number] = outcome = tried(mutant, sources, control.passed, places)
            seconds = time.monotonic() - begun
            came = f"{outcome.kind}: `{outcome.test}`" if outcome.test else outcome.kind
            print(f"| {number} | {mutant.promise} | {mutant.name} | {came} | {seconds:.1f} |", flush=True)
    return summary(dict(chosen), outcomes, time.monotonic() - start)


def picked(mutants: Sequence[Mutant], words: Sequence[str]) -> Iterator[tuple[int, Mutant]]:
    """Those that one of the words picks, with their numbers, from 1."""
    for number, mutant in enumerate(mutants, start=1):
        if not words or any(_picks(word, number, mutant) for word in words):
            yield number, mutant


def _picks(word: str, number: int, mutant: Mutant) -> bool:
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
    if numbers:
        return int(numbers[1]) <= number <= int(numbers[2] or numbers[1])
    return bool(re.search(word, f"{mutant.promise}: {mutant.name}"))


def tried(
    mutant: Mutant, sources: Path, passing: frozenset[str], places: Mapping[str, Sequence[str]]
) -> Outcome:
    """Put the fault into a copy of `sources` and run its tests there; `passing` are those that pass without it."""
    tests = [test for test in mutant.tests if test.partition("[")[0] in passing]
    if not tests:
        return Outcome(UNTRIED)
    with copy_of(sources) as tree:
        path = tree / mutant.file
        path.write_text(mutant.applied(path.read_text()))
        result = run_tests(tree, tests, places, RUN_SEC)
    if result.code is None:
        return Outcome(HUNG)
    if result.code == 0:
        return Outcome(SURVIVED)
    return Outcome(KILLED, result.failed[0]) if result.failed else Outcome(BROKEN, said=result.said)


def run_tests(tree: Path, tests: Iterable[str], places: Mapping[str, Sequence[str]], seconds: float) -> Result:
    """Run tests of `tree`, named by their functions, to the first that fails; nothing of it is left running."""
    nodes = [f"{place}::{test}" for test in tests for place in places[test.partition("[")[0]]]
    options = ["-x", "-q", "--tb=short", f"--junit-xml={REPORT}"]
    process = subprocess.Popen(
        [sys.executable, "-B", "tests/run.py", *options, *nodes],
        cwd=tree,
        env={**os.environ, "BUILD_TEST_LIMIT_SEC": str(TEST_SEC), "BUILD_TEST_PATIENCE_SEC": str(PATIENCE_SEC)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    code: int | None = None
    try:
        said, _ = process.communicate(timeout=seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        said = f"it did not end within {seconds:.0f} s"
    finally:
        harness.end_all(lambda: harness.descendants(os.getpid()))
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return Result(code, *_cases(tree / REPORT), said)


def _cases(report: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """The functions that passed, and the tests that did not, in their order."""
    if not report.exists():
        return frozenset(), ()
    passed, failed = set(), []
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        if not len(case):
            passed.add(name.partition("[")[0])
        elif case.find("skipped") is None and name.startswith("test_"):  # else a file that cannot be collected
            failed.append(name)
    return frozenset(passed), tuple(failed)


@contextmanager
def copy_of(tree: Path) -> Iterator[Path]:
    """A fresh copy of the sources, so that no compiled file of another fault is taken for this one's."""
    with tempfile.TemporaryDirectory(prefix="build-service-mutant-") as directory:
        copy = Path(directory) / "tree"
        shutil.copytree(tree, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        yield copy


def summary(chosen: Mapping[int, Mutant], outcomes: Mapping[int, Outcome], seconds: float) -> int:
    """Print how many were noticed, and which were not; return the exit code."""
    missed = {number: outcome for number, outcome in outcomes.items() if outcome.kind not in (KILLED, HUNG)}
    print(f"\nall: {len(outcomes)} faults, {len(outcomes) - len(missed)} noticed, in {seconds / 60:.0f} min")
    for number, outcome in missed.items():
        mutant = chosen[number]
        print(f"{outcome.kind}: {number}, {mutant.name} ({mutant.file})", file=sys.stderr)
        print(outcome.said[-2000:], end="", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
