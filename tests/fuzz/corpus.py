"""The inputs that are kept for each target: corpus/TARGET.txt, one input a line, written as Python writes bytes.

run.py starts the fuzzer from them and test_fuzz_corpus.py replays them. An input that once broke something is added
by hand, with a `#` line before it that says what it broke; `keep` never drops these.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import buildcore

CORPUS = Path(__file__).resolve().parent / "corpus"
LIBRARY = str(Path(buildcore.__file__).parent)
KEPT_BYTES = 4096
"""How much of what the fuzzer found is kept for a target, findings aside."""

Jump = tuple[str, int, int]
"""A file of the library, and two of its lines that ran one after the other."""


def load(name: str) -> list[bytes]:
    """The inputs of a target."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def keep(name: str, target: Callable[[bytes], None], inputs: Iterable[bytes]) -> int:
    """Rewrite a target's file: its findings, then the shortest of `inputs` that together run every jump between two
    lines of the library that all of them run, as far as KEPT_BYTES go. Returns how many there are."""
    path = CORPUS / f"{name}.txt"
    findings, comment = [], ""
    for line in path.read_text(encoding="ascii").splitlines():
        findings += [comment, line] if comment else []
        comment = line if line.startswith("#") else ""
    chosen, seen, room = [], set[Jump](), KEPT_BYTES
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = jumps(target, data) - seen
        if new and len(data) <= room and repr(data) not in findings:
            chosen.append(data)
            seen |= new
            room -= len(data)
    path.write_text("".join(f"{line}\n" for line in [*findings, *map(repr, chosen)]), encoding="ascii")
    return len(chosen)


def jumps(target: Callable[[bytes], None], data: bytes) -> set[Jump]:
    """What of the library `target` runs for `data`."""
    found = set[Jump]()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(LIBRARY):
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            found.add((file, before, frame.f_lineno))
            before = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return found
