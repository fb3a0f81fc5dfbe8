"""The inputs that are kept for each target: corpus/TARGET.txt, one input a line, written as Python writes bytes.

run.py starts the fuzzer from them and test_fuzz_corpus.py replays them. An input that is there for a reason, above all
one that once broke something, stands behind a `#` line with that reason, and `keep` never drops it.
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
"""How much of what the fuzzer found is kept for a target, besides what is there for a reason."""

Jump = tuple[str, int, int]
"""A file of the library, and two of its lines that ran one after the other."""


def load(name: str) -> list[bytes]:
    """The inputs of a target."""
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def keep(name: str, target: Callable[[bytes], None], inputs: Iterable[bytes]) -> None:
    """Rewrite a target's file: what is there for a reason, then the shortest of `inputs` that together run every jump
    between two lines of the library that all of them run, as far as KEPT_BYTES go."""
    path = CORPUS / f"{name}.txt"
    reasoned, reason = [], ""
    for line in path.read_text(encoding="ascii").splitlines():
        reasoned += [reason, line] if reason else []
        reason = line if line.startswith("#") else ""
    chosen, seen, room = [], set[Jump](), KEPT_BYTES
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = jumps(target, data) - seen
        if new and len(data) <= room and repr(data) not in reasoned:
            chosen.append(data)
            seen |= new
            room -= len(data)
    path.write_text("".join(f"{line}\n" for line in [*reasoned, *map(repr, chosen)]), encoding="ascii")


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
