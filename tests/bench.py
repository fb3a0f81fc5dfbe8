"""The benchmark, `make bench`: what the service costs beside make itself, measured side by side in one run.

Prints a no-op build's time (medians, taken in turns), what descriptors add to it that the caller passes, the throughput
of 300 MB of output, of 30 MB to a terminal, and the memory of the idle daemon and of each of 50 running builds. As root
the caller is a test user in the private world of harness_world, as an ordinary user the single-user service serves that
user. It changes nothing outside of its temporary directories.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import harness
import harness_world
import static_client
from daemon import Service, running_service
from harness import BIN, TREE, Process
from terminal import Terminal
from wire import RawCaller

ROUNDS = 30
REQUESTS = 300
OUTPUT_BYTES = 300_000_000
SHOWN_BYTES = 30_000_000
TERMINALS = 5
BUILDS = 50
AIM_OVER_START_MS = 20.0
"""The issue's aim: a no-op build within one interpreter start and this of direct make."""

AIM_STATIC_MS = 3.0
"""The aim for the client in C: an empty build within this of the request's own time."""

LINE = "gcc -O2 -Wall -Iinclude -c -o build/objects/module_0001.o source/module_0001.c"
MAKEFILE = f"""nothing:
\t@:
text:
\t@yes '{LINE}' | head -c {OUTPUT_BYTES}
shown:
\t@yes '{LINE}' | head -c {SHOWN_BYTES}
binary:
\t@for i in $$(seq {OUTPUT_BYTES // 1_000_000}); do cat random; done
wait:
\t@exec 3< gate; echo running; cat <&3
"""

Command = Sequence["str | os.PathLike[str]"]


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Prints rows with columns as wide as they need to be; the first one is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths))
        print("  ".join(["", first.strip().ljust(widths[0]), *others]).rstrip(), flush=True)


def start_times(service: Service, dist: Path) -> None:
    """A no-op build each way, in turns, so that a busy moment of the machine hits all alike."""
    python = os.path.join(harness.python_directory(), "python3")
    socket = ["--socket", service.daemon.socket]
    commands: dict[str, Command] = {
        "bare interpreter (python3 -I -S -c pass)": [python, "-I", "-S", "-c", "pass"],
        "make, direct": ["make", "nothing"],
        "make, through the service (dist/build-cli)": [dist / "build-cli", *socket, "make", "nothing"],
        "make, through the service (bin/build-cli)": [BIN / "build-cli", *socket, "make", "nothing"],
        "make, through the service (build-cli-static)": [dist / "build-cli-static", *socket, "make", "nothing"],
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    requests = []

    def milliseconds_of(command: Command) -> float:
        start = time.perf_counter()
        done = harness.run_as(service.caller, command, service.workspace)
        assert done.returncode == 0, done
        return 1000 * (time.perf_counter() - start)

    for command in commands.values():  # the first start compiles and fills caches
        milliseconds_of(command)
    for _ in range(ROUNDS):
        for name, command in commands.items():
            samples[name].append(milliseconds_of(command))
        requests.append(request_ms(service))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    bare, direct, deployed, _, static = medians.values()
    rows = [["", "median ms", "fastest", "over direct make"]]
    for name, median in medians.items():
        over = f"{median - direct:+.1f}" if "service" in name else ""
        rows.append([name, f"{median:.1f}", f"{min(samples[name]):.1f}", over])
    table(f"A no-op build, {ROUNDS} times each in turns", rows)
    over_start = deployed - direct - bare
    print(f"  over direct make and one interpreter start: {over_start:+.1f} ms (aim: {AIM_OVER_START_MS:.0f})")
    alone = statistics.median(requests)
    over_request = f"build-cli-static over it: {static - alone:+.1f} ms (aim: {AIM_STATIC_MS:.0f})"
    print(f"  the request alone: {alone:.1f} ms; {over_request}")


def request_ms(service: Service) -> float:
    """From connect(2) to the exit of a no-op build, without any client's process."""
    start = time.perf_counter()
    with RawCaller(service) as caller:
        caller.ask("nothing")
        assert caller.exit()["code"] == 0, caller.text()
    return 1000 * (time.perf_counter() - start)


def descriptors(service: Service) -> None:
    """From the request to the exit of a no-op build, without descriptors and with them, in turns."""
    ways = {"no descriptor": 0, "stdin": 1, "stdin, stdout, stderr": 3}
    streams = ["stdin", "stdout", "stderr"]
    samples: dict[str, list[float]] = {name: [] for name in ways}
    with open(os.devnull, "r+b") as null:
        for _ in range(REQUESTS):
            for name, count in ways.items():
                with RawCaller(service) as caller:
                    start = time.perf_counter()
                    if count:
                        caller.hand_over([null.fileno()] * count, "nothing", descriptors=streams[:count])
                    else:
                        caller.ask("nothing")
                    assert caller.exit()["code"] == 0, caller.text()
                    samples[name].append(1000 * (time.perf_counter() - start))
    none, *_ = samples.values()
    rows = [["", "median ms", "added, median of pairs"]]
    for name, values in samples.items():
        added = statistics.median(value - without for value, without in zip(values, none))
        rows.append([name, f"{statistics.median(values):.2f}", f"{added:+.2f}" if values is not none else ""])
    table(f"Passing descriptors: a request's time, {REQUESTS} times each in turns", rows)


def terminal(service: Service, dist: Path) -> None:
    """Text to a terminal whose other end takes what comes, directly and through the service, in turns."""
    client = [dist / "build-cli", "--socket", service.daemon.socket]
    commands: dict[str, Command] = {"direct": ["make", "shown"], "service": [*client, "make", "shown"]}
    speeds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(TERMINALS):
        for name, command in commands.items():
            start = time.perf_counter()
            with Terminal(service.caller, command, {}, service.workspace) as shown:
                text, code = shown.end()
            speeds[name].append(SHOWN_BYTES / 1e6 / (time.perf_counter() - start))
            assert code == 0 and len(text.replace("\r", "")) == SHOWN_BYTES
    rows = [["", "median MB/s"]]
    rows += [[name, f"{statistics.median(values):.1f}"] for name, values in speeds.items()]
    pairs = [through / direct for direct, through in zip(*speeds.values())]
    table(f"{SHOWN_BYTES // 10**6} MB of text to a terminal, {TERMINALS} times each in turns", rows)
    print(f"  service to direct, median of pairs: {statistics.median(pairs):.2f}")


def throughput(service: Service, dist: Path) -> None:
    """300 MB of text and of random bytes, into a file and into a pipe."""
    client = [str(dist / "build-cli"), "--socket", str(service.daemon.socket)]
    rows = [["", "> file", "| cat >/dev/null"]]
    for target in ("text", "binary"):
        for name, make in (("direct", ["make"]), ("service", [*client, "make"])):
            command = " ".join([*make, target])
            speeds = []
            for sink in ("> output", "| cat > /dev/null"):
                start = time.perf_counter()
                run = harness.run_as(service.caller, ["sh", "-c", f"{command} {sink}"], service.workspace, timeout=600)
                speeds.append(OUTPUT_BYTES / 1e6 / (time.perf_counter() - start))
                assert run.returncode == 0, run
                output = service.workspace / "output"
                if output.exists():
                    assert output.stat().st_size == OUTPUT_BYTES, f"{command}: {output.stat().st_size} bytes"
                    output.unlink()
            rows.append([f"{target}, {name}", *(f"{speed:.0f} MB/s" for speed in speeds)])
    table(f"{OUTPUT_BYTES // 10**6} MB of output", rows)


def memory_kib(found: set[Process]) -> tuple[int, int]:
    """(PSS, RSS) of the processes in KiB; PSS counts a page that n processes share as 1/n each."""
    pss = rss = 0
    for process in found:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("Pss:", "Rss:"))}
        pss += values["Pss"]
        rss += values["Rss"]
    return pss, rss


def of_the_service(service: Service) -> set[Process]:
    """The processes of the daemon without the builds: they run what the arbiter runs."""
    table = harness.processes()
    program = os.readlink(f"/proc/{service.daemon.pid}/exe")
    below = harness.descendants(service.daemon.pid, table) | {table[service.daemon.pid]}
    return {process for process in below if process.state != "Z" and os.readlink(f"/proc/{process.pid}/exe") == program}


def memory(service: Service, dist: Path) -> None:
    """The daemon idle, and again while builds run that wait at a FIFO."""
    idle = of_the_service(service)
    idle_pss, idle_rss = memory_kib(idle)
    gate = service.workspace / "gate"
    os.mkfifo(gate)
    harness.give(gate, service.caller)
    gate_keeper = os.open(gate, os.O_RDWR)  # while it is open, the builds find the gate open and nothing to read
    command: Command = [dist / "build-cli", "--socket", service.daemon.socket, "make", "wait"]
    with ExitStack() as stack:
        clients = []
        for _ in range(BUILDS):
            client = harness.popen_as(service.caller, command, service.workspace, stdout=subprocess.PIPE)
            clients.append(stack.enter_context(client))
        for client in clients:
            assert client.stdout is not None
            harness.read_until(client.stdout.fileno(), "running\n")
        busy = of_the_service(service)
        busy_pss, busy_rss = memory_kib(busy)
        below = harness.processes()
        client_pss, client_rss = memory_kib({below[client.pid] for client in clients})
        os.close(gate_keeper)
        for client in clients:
            assert client.wait(harness.PATIENCE_SEC) == 0
    rows = [["", "processes", "PSS MiB", "RSS MiB"]]

    def row(name: str, count: float, pss: float, rss: float) -> None:
        rows.append([name, f"{count:g}", f"{pss / 1024:.2f}", f"{rss / 1024:.2f}"])

    row("daemon, idle", len(idle), idle_pss, idle_rss)
    row(f"daemon, {BUILDS} builds running", len(busy), busy_pss, busy_rss)
    row(
        "each build, in the daemon",
        (len(busy) - len(idle)) / BUILDS,
        (busy_pss - idle_pss) / BUILDS,
        (busy_rss - idle_rss) / BUILDS,
    )
    row("each build, its client", 1, client_pss / BUILDS, client_rss / BUILDS)
    table("Memory, without make and what it starts", rows)


def main() -> None:
    flavour = "root" if harness_world.inside() else "user"
    with running_service(flavour) as service:
        dist = service.daemon.directory / "dist"
        subprocess.run(
            [os.path.join(harness.python_directory(), "python3"), TREE / "etc/packaging/dist.py", "--output", dist],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        static_client.make(dist)
        harness.write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
        (service.workspace / "random").write_bytes(os.urandom(1_000_000))
        (service.workspace / "random").chmod(0o644)
        print(f"{flavour} flavour: the daemon is {service.daemon.user.name}, the caller {service.caller.name}")
        start_times(service, dist)
        descriptors(service)
        throughput(service, dist)
        terminal(service, dist)
        memory(service, dist)


if __name__ == "__main__":
    harness_world.restart_inside()
    main()
