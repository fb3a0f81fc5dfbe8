"""The inputs that are kept for each target: corpus/TARGET.txt, one input a line, written as Python writes bytes.

run.py starts the fuzzer from them and test_fuzz_corpus.py replays them. What stands above the line FOUND was put there
by hand, above all what once broke something (a `#` line says what); below it is what `keep` chose.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import buildcore

CORPUS = Path(__file__).resolve().parent / "corpus"
LIBRARY = str(Path(buildcore.__file__).parent)
FOUND = "# found by the fuzzer"
KEPT_BYTES = 3072
"""How much of what the fuzzer found is kept for a target."""

Feature = tuple[str, int, int, int]
"""A file of the library, two of its lines that ran one after the other, and about how often (as a power of two)."""


def load(name: str) -> list[bytes]:
    """The inputs of a target."""
    return [ast.literal_eval(line) for line in inputs_in((CORPUS / f"{name}.txt").read_text(encoding="ascii"))]


def inputs_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def keep(name: str, target: Callable[[bytes], None], inputs: Iterable[bytes]) -> None:
    """Rewrite the lower part of a target's file with those of `inputs`, the shortest first, that show a feature which
    those before them do not, as far as KEPT_BYTES go."""
    path = CORPUS / f"{name}.txt"
    top = path.read_text(encoding="ascii").partition(FOUND)[0]
    by_hand = {ast.literal_eval(line) for line in inputs_in(top)}
    seen = set[Feature]().union(*(features(target, data) for data in by_hand))
    chosen, room = [], KEPT_BYTES
    for data in sorted(set(inputs) - by_hand, key=lambda data: (len(data), data)):
        new = features(target, data) - seen
        if new and len(data) <= room:
            chosen.append(repr(data))
            seen |= new
            room -= len(data)
    path.write_text("\n".join([top + FOUND, *chosen, ""]), encoding="ascii")


def features(target: Callable[[bytes], None], data: bytes) -> set[Feature]:
    """What of the library `target` runs for `data`."""
    jumps = Counter[tuple[str, int, int]]()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(LIBRARY):
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            jumps[file, before, frame.f_lineno] += 1
            before = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return {(*jump, times.bit_length()) for jump, times in jumps.items()}
