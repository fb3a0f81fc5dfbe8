"""Faults that the tests have to notice: the list that `make mutate` (tests/mutate.py) goes through.

Each file here holds those of one part of the service; one more file is one more word in MODULES. A fault is one small
edit of one file, in a line that holds a promise of docs/SECURITY.md: `old` has to stand in the file exactly once, and
each of `tests` is among those that notice. test_mutants.py holds the list to the tree, so that it cannot rot: who
changes a line of it changes the fault as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from mutants.mutant import PROMISES, Mutant

MODULES = ("identity", "proof", "sessions", "requests", "waits", "surroundings")

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant for module in MODULES for mutant in import_module(f"mutants.{module}").MUTANTS
)
"""All of them; their numbers are their places here, from 1."""

__all__ = ["MUTANTS", "PROMISES", "Mutant", "places_of_tests"]


def places_of_tests(root: Path) -> Mapping[str, Sequence[str]]:
    """Each test function of the tree, and the files that have one of that name."""
    found: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE):
            found.setdefault(name, []).append(str(path.relative_to(root)))
    return found
