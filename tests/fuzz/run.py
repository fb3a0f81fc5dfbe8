"""Coverage-guided fuzzing of the parsers with atheris (libFuzzer): `make fuzz SECONDS=60`.

    run.py SECONDS          every target in turn, SECONDS of processor time in all, shared out evenly; one busy process
                            at a time. Prints a row for each, and fails on a finding with the way to run it again.
    run.py --keep SECONDS   the same, and then corpus/ is rewritten with the best of what was found
    run.py TARGET FILE...   a target with the bytes of these files, without atheris; so a finding is run again

It must never hide a finding: a target that ends in another way than the time being up makes it fail.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FINDINGS = ROOT / "build" / "fuzz"
LONGEST_INPUT_BYTES = 1024
SLOWEST_INPUT_SEC = 10
MOST_MEMORY_MB = 512

SLOWDOWN = 20
"""A machine so busy that a second of processor time takes longer than this many seconds ends a target as well."""

EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
STATUS = re.compile(r"^#\d+\s.* cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
"""What libFuzzer says whenever one of these grows: edges, features, inputs worth keeping."""

TOKEN = re.compile(rb"[A-Za-z0-9_.=-]{2,24}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one target."""

    executions: int
    edges: int
    features: int
    inputs: int
    cpu_sec: float
    findings: list[Path]
    failed: bool


def fuzz(name: str, seconds: int, options: list[str]) -> None:
    """Become the fuzzer of one target for so many seconds of processor time. Does not return."""
    import json  # noqa: F401  (with its module in C, for the targets to compare with)

    import atheris

    atheris.enabled_hooks.add("str")
    sys.modules["_json"] = None  # type: ignore[assignment]
    with atheris.instrument_imports(include=["buildcore", "tomllib", "tomli"]):
        # Without _json the library reads JSON by its own code, whose branches guide the fuzzer.
        from fuzz.targets import TARGETS, config

        config.parse("")  # which imports the reader of TOML
    del sys.modules["_json"]
    target = TARGETS[name]

    def one_input(data: bytes) -> None:
        target(data)
        if time.process_time() > seconds:
            signal.raise_signal(signal.SIGUSR1)  # libFuzzer then ends in order, with 0

    atheris.Setup([name, *options], one_input)
    atheris.Fuzz()


def run(name: str, seconds: int, scratch: Path) -> Outcome:
    """Fuzz one target for that long, from its corpus; what is found besides stays in `scratch`/grown."""
    from fuzz import corpus

    seeds, grown, dictionary = scratch / "seeds", scratch / "grown", scratch / "dictionary"
    seeds.mkdir()
    grown.mkdir()
    inputs = corpus.load(name)
    for number, data in enumerate(inputs):
        (seeds / str(number)).write_bytes(data)
    words = sorted(set(TOKEN.findall(b"\n".join(inputs))))
    dictionary.write_text("".join(f'"{word.decode("ascii")}"\n' for word in words))
    log = FINDINGS / f"{name}.log"
    options = [
        f"-max_total_time={seconds * SLOWDOWN}", f"-timeout={SLOWEST_INPUT_SEC}", f"-max_len={LONGEST_INPUT_BYTES}",
        f"-rss_limit_mb={MOST_MEMORY_MB}", f"-dict={dictionary}", f"-artifact_prefix={FINDINGS}/{name}-",
        "-print_final_stats=1",
        str(grown), str(seeds),
    ]
    before = set(FINDINGS.glob(f"{name}-*"))
    with open(log, "wb") as output:
        command = [sys.executable, "-B", __file__, "--fuzz", name, str(seconds), *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace")
    executions = sum(map(int, EXECUTIONS.findall(said)))
    edges, features, kept = max([(0, 0, 0), *(tuple(map(int, numbers)) for numbers in STATUS.findall(said))])
    findings = sorted(set(FINDINGS.glob(f"{name}-*")) - before)
    failed = process.returncode != 0 or not executions or bool(findings)
    return Outcome(executions, edges, features, kept, usage.ru_utime + usage.ru_stime, findings, failed)


def shown(outcome: Outcome) -> str:
    return "YES" if outcome.findings else "DID NOT RUN" if outcome.failed else "none"


def explain(name: str, outcome: Outcome) -> None:
    print(f"\n{name}: {shown(outcome)}; what was said is in {(FINDINGS / name).relative_to(ROOT)}.log")
    for path in outcome.findings:
        print(f"  run it again:  PYTHONPATH=lib:tests {sys.executable} -m fuzz.run {name} {path.relative_to(ROOT)}")
        print(f"  keep it, with a # line before it, in tests/fuzz/corpus/{name}.txt:  {path.read_bytes()!r}\n")


def run_all(seconds: int, keep: bool) -> int:
    from fuzz import corpus
    from fuzz.targets import TARGETS

    FINDINGS.mkdir(parents=True, exist_ok=True)
    each = max(seconds // len(TARGETS), 1)
    print(f"{len(TARGETS)} targets, {each} s of processor time each")
    print(f"{'target':16}{'executions':>12}{'CPU s':>8}{'edges':>8}{'features':>10}{'inputs':>8}  findings", flush=True)
    outcomes = {}
    for name, target in TARGETS.items():
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            outcome = outcomes[name] = run(name, each, Path(scratch))
            if keep and not outcome.failed:
                grown = [path.read_bytes() for path in (Path(scratch) / "grown").iterdir()]
                corpus.keep(name, target, [*corpus.load(name), *grown])
        seen = f"{outcome.edges:8}{outcome.features:10}{outcome.inputs:8}  {shown(outcome)}"
        print(f"{name:16}{outcome.executions:12}{outcome.cpu_sec:8.0f}{seen}", flush=True)
    executions = sum(outcome.executions for outcome in outcomes.values())
    print(f"{'all':16}{executions:12}{sum(outcome.cpu_sec for outcome in outcomes.values()):8.0f}")
    for name, outcome in outcomes.items():
        if outcome.failed:
            explain(name, outcome)
    return int(any(outcome.failed for outcome in outcomes.values()))


def replay(name: str, paths: list[str]) -> None:
    from fuzz.targets import TARGETS

    for path in paths:
        TARGETS[name](Path(path).read_bytes())
        print(f"{path}: nothing wrong")


def main(args: list[str]) -> int:
    if args[:1] == ["--fuzz"]:
        fuzz(args[1], int(args[2]), args[3:])
    elif args and args[-1].isdigit() and args[:-1] in ([], ["--keep"]):
        return run_all(int(args[-1]), keep=len(args) > 1)
    elif len(args) > 1:
        replay(args[0], args[1:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
