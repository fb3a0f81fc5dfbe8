"""The list of faults that `make mutate` puts into copies of this tree: that it still fits, and what comes of a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mutate
from harness_world import ROOT
from mutants import MUTANTS, PROMISES, Mutant, places_of_tests
from mutate import HUNG, KILLED, SURVIVED, UNTRIED, Outcome, picked, run_tests, summary, tried

IDS = [f"{mutant.promise}: {mutant.name}" for mutant in MUTANTS]
BY_HAND = ("tests/systemd/", "tests/container/")
"""Tests that tests/run.py does not run."""

PLACES = places_of_tests(ROOT)


@pytest.mark.parametrize("mutant", MUTANTS, ids=IDS)
def test_a_fault_still_fits_the_file_that_it_is_for(mutant: Mutant) -> None:
    text = mutant.applied((ROOT / mutant.file).read_text())  # LookupError where it does not
    assert mutant.old != mutant.new
    if mutant.file.endswith(".py") or mutant.file.startswith("bin/"):
        compile(text, mutant.file, "exec", dont_inherit=True)


def test_the_tests_of_each_fault_are_there_and_are_run() -> None:
    missing = {test for mutant in MUTANTS for test in mutant.tests if test.partition("[")[0] not in PLACES}
    assert not missing
    assert all(mutant.tests for mutant in MUTANTS)
    cases = {test for mutant in MUTANTS for test in mutant.tests if "[" in test}
    several = {test for test in cases if len(PLACES[test.partition("[")[0]]) > 1}
    assert not several  # of one case it has to be clear whose
    of_all = {place for mutant in MUTANTS for test in mutant.tests for place in PLACES[test.partition("[")[0]]}
    assert not [place for place in of_all if place.startswith(BY_HAND)]


def test_the_cases_of_tests_that_are_named_are_there() -> None:
    cases = {test for mutant in MUTANTS for test in mutant.tests if "[" in test}
    nodes = sorted(f"{PLACES[test.partition('[')[0]][0]}::{test}" for test in cases)
    command = [sys.executable, "-B", "-m", "pytest", "--collect-only", "-qq", "-p", "no:randomly", *nodes]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    collected = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stdout + collected.stderr


def test_no_fault_is_there_twice() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_each_promise_of_the_security_page_has_a_fault_that_breaks_it_and_none_has_another() -> None:
    page = (ROOT / "docs/SECURITY.md").read_text()
    table = page.partition("\n| promise | held by |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [re.split(r" \| ", line.strip("| "), maxsplit=1)[0] for line in table.splitlines()]
    assert sorted(PROMISES.values()) == sorted(rows)
    assert {mutant.promise for mutant in MUTANTS} == set(PROMISES)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [1, 2, 3]),
        (["2"], [2]),
        (["2-3"], [2, 3]),
        (["keys"], [2]),
        (["no .*group", "3"], [1, 3]),
        (["nothing of it"], []),
    ],
)
def test_faults_are_picked_by_number_and_by_pattern(words: list[str], numbers: list[int]) -> None:
    faults = [
        Mutant("ids", "a build has no groups", "x", "1", "2", ()),
        Mutant("keys", "a key of others", "x", "1", "3", ()),
        Mutant("left", "a file", "x", "1", "4", ()),
    ]
    assert [number for number, _ in picked(faults, words)] == numbers


SOURCE = "def answer():\n    return 42\n"
TESTS = """
import os, time
from answers import answer
import pytest

def test_it():
    assert answer() == 42

def test_anything():
    pass

def test_an_end():
    while answer() != 42:
        time.sleep(60)

@pytest.mark.skip
def test_never():
    pass
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of a module and its tests."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "tests/answers.py").write_text(SOURCE)
    (tmp_path / "tests/test_answers.py").write_text(TESTS)
    (tmp_path / "tests/run.py").write_text("import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))")
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    return tmp_path


def outcome(tree: Path, new: str, *tests: str) -> Outcome:
    mutant = Mutant("ids", "wrong", "tests/answers.py", "return 42", new, tests)
    return tried(mutant, tree, frozenset({"test_it", "test_anything", "test_an_end"}), places_of_tests(tree))


def test_a_fault_that_a_test_notices_is_killed_by_it(tree: Path) -> None:
    assert outcome(tree, "return 43", "test_anything", "test_it") == Outcome(KILLED, "test_it")
    assert (tree / "tests/answers.py").read_text() == SOURCE


def test_one_that_none_notices_survives(tree: Path) -> None:
    assert outcome(tree, "return 43", "test_anything").kind == SURVIVED


def test_one_with_which_a_test_does_not_end_is_killed_by_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutate, "RUN_SEC", 3)
    assert outcome(tree, "return 43", "test_an_end") == Outcome(HUNG)


def test_one_that_stops_the_tests_from_running_is_broken_and_says_why(tree: Path) -> None:
    found = outcome(tree, "return 42\nimport nothing_of_this_name", "test_it")
    assert found.kind == mutate.BROKEN
    assert "No module named 'nothing_of_this_name'" in found.said


def test_one_whose_tests_are_skipped_here_is_not_tried(tree: Path) -> None:
    control = run_tests(tree, ["test_it", "test_never"], places_of_tests(tree), 60)
    assert (control.code, control.passed, control.failed) == (0, {"test_it"}, ())
    mutant = Mutant("ids", "wrong", "tests/answers.py", "return 42", "return 43", ("test_never",))
    assert tried(mutant, tree, control.passed, places_of_tests(tree)).kind == UNTRIED


@pytest.mark.parametrize("kind", [KILLED, HUNG, SURVIVED, UNTRIED, mutate.BROKEN])
def test_a_fault_that_was_not_noticed_is_named_and_the_run_fails(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    good, other = (Mutant("ids", name, "x.py", "1", "2", ()) for name in ("good", "other"))
    code = summary({1: good, 7: other}, {1: Outcome(KILLED, "test_it"), 7: Outcome(kind)}, 120)
    out, err = capsys.readouterr()
    noticed = kind in (KILLED, HUNG)
    assert code == (0 if noticed else 1)
    assert out == f"\nall: 2 faults, {1 + noticed} noticed, in 2 min\n"
    assert err == ("" if noticed else f"{kind}: 7, other (x.py)\n")


def test_a_pattern_that_picks_none_is_told() -> None:
    assert mutate.main(["no fault has this name"]) == 1
