"""The soak, `make soak BUILDS=500`: mixed builds of several users at once, and after them nothing more than before.

Starts a service and WORKERS callers beside it, each a process of its user that asks for one build after the other:
good, failing, timing out, cancelled, hung up on, large, silent, refused ones and ones that leave something running.
While a first fifth of the builds runs, the service is reloaded again and again; from then on its memory must stay.
Ends with exit code 1 and a line for each thing that is not as it must be. As root the callers are the test users in
the private world of harness_world; an ordinary user's service serves that user. It changes nothing outside of its
temporary directories, but for a control group of its own that is gone at the end.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import harness
import harness_world
from bench import table
from daemon import Daemon, Service
from harness import TREE
from harness_world import BUILDERS_GID, DEV1, DEV2, OUTSIDER, User
from wire import RawCaller, at_rest

OF_THIS_HOST = ": this host does not keep builds apart in all reason="
"""What a service says at its start where root has not every capability; it is no fault of a build."""

BUILDS = 500
WORKERS = 8
BUILDS_PER_RELOAD = 40
"""So many builds end between two reloads, or more: each reload is waited for."""

SAMPLES = 50
"""How often the arbiter's memory is read."""

GROWTH_KIB = 256
"""How much more memory the arbiter may hold after all builds than it did after a fifth of them."""

LARGE_BYTES = 5_000_000
STUCK_SEC = 120.0
"""No build of these takes so long."""

MAKEFILE = f"""ok:
\t@echo built
fail:
\t@echo broken >&2; exit 3
wait:
\t@echo waits; exec sleep 60
large:
\t@yes 'gcc -O2 -Wall -c -o module.o module.c' | head -c {LARGE_BYTES}
silent:
\t@:
background:
\t@setsid sleep 60 & sleep 61 & echo left
"""

# Each kind of build, how many of 20 are of it, and what the log says when it ends.
KINDS = {
    "ok": (5, "completed"),
    "failing": (3, "completed"),
    "timing out": (1, "timed out"),
    "cancelled by ^C": (1, "cancelled"),
    "hung up on": (1, "cancelled"),
    "large output": (1, "completed"),
    "silent": (3, "completed"),
    "left children": (2, "completed"),
    "by the client": (1, "completed"),
    "refused": (2, "refused"),
}

ENDS = re.compile(r"build_service: build (started|completed|timed out|cancelled|refused) .*request_id=(soak-\S+)")


class Done(NamedTuple):
    """What a worker says of one build: its kind, its request id, and what was wrong with it, if anything."""

    kind: str
    request_id: str
    problem: str


# --- a worker: one user's process that builds ------------------------------------------------------------------------


def build(kind: str, request_id: str, service: Service) -> None:
    """One build of that kind; AssertionError where it does not end as it must."""
    if kind in ("cancelled by ^C", "by the client"):
        by_client(kind, request_id, service)
        return
    target, code, text = {
        "ok": ("ok", 0, b"built\n"),
        "failing": ("fail", 2, b""),
        "timing out": ("wait", 124, b"waits\n"),
        "hung up on": ("wait", 0, b"waits\n"),
        "large output": ("large", 0, b""),
        "silent": ("silent", 0, b""),
        "left children": ("background", 0, b"left\n"),
        "refused": ("ok", 1, b""),
    }[kind]
    fields: dict[str, object] = {"request_id": request_id}
    if kind == "timing out":
        fields["timeout_sec"] = 1
    if kind == "refused":
        fields.update(random.choice([{"command": "sh"}, {"cwd": "/etc"}, {"args": ["-C", "/"]}]))
    with RawCaller(service) as caller:
        caller.ask(**{"args": [target], **fields})
        if kind == "hung up on":
            caller.await_output("waits\n")
            return
        exit_ = caller.exit()
    out = caller.output("stdout")
    assert exit_["code"] == code, (exit_, caller.text()[:1000])
    assert len(out) == LARGE_BYTES if kind == "large output" else out == text, out[:1000]


def by_client(kind: str, request_id: str, service: Service) -> None:
    target = "wait" if kind == "cancelled by ^C" else "ok"
    argv = service.argv("--request-id", request_id, "make", target)
    with subprocess.Popen(argv, cwd=service.workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        if target == "wait":
            assert client.stdout
            harness.read_until(client.stdout.fileno(), "waits\n")
            client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=STUCK_SEC)
    assert (client.returncode == 0) == (target == "ok") and b"Traceback" not in err, (client.returncode, out, err)


def work(daemon: Daemon, user: User, number: int, builds: int, groups: list[int]) -> None:
    """In a forked process: become the user, build so often, and write a line on stdout for each build."""
    os.setgroups(groups) if os.geteuid() == 0 else None
    if os.geteuid() != user.uid:
        os.setgid(user.gid)
        os.setuid(user.uid)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would the clients
    service = Service(daemon, user, daemon.workspace_of(user))
    os.environ.clear()
    os.environ.update(harness.environment_of(user))
    kinds = [kind for kind, (share, _) in KINDS.items() for _ in range(share)]
    chance = random.Random(number)
    for count in range(builds):
        if count % len(kinds) == 0:
            chance.shuffle(kinds)
        kind, request_id = kinds[count % len(kinds)], f"soak-{number}-{count}"
        try:
            build(kind, request_id, service)
            problem = ""
        except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as exc:
            problem = f"{type(exc).__name__}: {exc}"[:2000]
        os.write(1, json.dumps(Done(kind, request_id, problem)).encode() + b"\n")  # whole: less than PIPE_BUF


@contextmanager
def workers(daemon: Daemon, builds: int) -> Iterator[int]:
    """So many builds, spread over the workers; yields where their lines are read, until the last worker ended."""
    users = [DEV1, DEV2, OUTSIDER] if harness_world.inside() else [harness.current_user()]
    reader, writer = os.pipe()
    pids = []
    for number in range(WORKERS):
        user = users[number % len(users)]
        share = builds // WORKERS + (number < builds % WORKERS)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.dup2(writer, 1)
                os.close(reader)
                os.close(writer)
                work(daemon, user, number, share, [user.gid, BUILDERS_GID])
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)
        for pid in pids:
            if not harness.await_exit(pid):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# --- what is there, before and after ---------------------------------------------------------------------------------


def inventory(daemon: Daemon) -> dict[str, Counter[str]]:
    """Everything that a service could pile up, by what it is and how often it is there."""
    table_ = harness.processes()
    below = harness.descendants(daemon.pid, table_)
    writer = next(process.pid for process in below if str(daemon.log_path) in descriptors(process.pid))
    return {
        "processes": Counter(process.name for process in below if process.state != "Z"),
        "zombies": Counter(process.name for process in below if process.state == "Z"),
        "descriptors of the arbiter": descriptors(daemon.pid),
        "descriptors of the log writer": descriptors(writer),
        "sockets of the machine's that are the service's": unix_sockets(daemon),
        "control groups": control_groups(daemon.pid),
        "files": files(daemon),
    }


def settled_inventory(daemon: Daemon, before: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """What is there when the last session has been reaped and the next one forked ahead, of which nothing tells."""
    deadline = time.monotonic() + harness.GRACE_SEC
    while (after := inventory(daemon)) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    return after


def descriptors(pid: int) -> Counter[str]:
    """The open files of a process by kind or path; the numbers of sockets and pipes change."""
    directory = f"/proc/{pid}/fd"
    return Counter(re.sub(r":\[\d+\]", "", os.readlink(f"{directory}/{name}")) for name in os.listdir(directory))


def unix_sockets(daemon: Daemon) -> Counter[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return Counter(str(daemon.socket) for line in lines if line.endswith(" " + str(daemon.socket)))


def control_groups(pid: int) -> Counter[str]:
    """The control groups of builds that are below the service's own one."""
    mount, path = cgroup_mount(), re.search(r"^0::(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
    if mount is None or path is None or path[1] == "/":
        return Counter()
    return Counter(inner.name for inner in (mount / path[1].lstrip("/")).iterdir() if inner.is_dir())


def cgroup_mount() -> Path | None:
    """Where cgroup v2 is mounted, if it is (proc(5), mountinfo)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return next((Path(line.split(" ")[4]) for line in lines if " - cgroup2 " in line), None)


@contextmanager
def delegated_group() -> Iterator[Path | None]:
    """A control group for the service, marked as delegated as systemd does it; None where there can be none."""
    mount = cgroup_mount() if harness_world.inside() else None
    if mount is None or not os.access(mount, os.W_OK):
        yield None
        return
    group = mount / f"build-service-soak-{os.getpid()}"
    group.mkdir()
    try:
        os.setxattr(group, "trusted.delegate", b"1")
        yield group
    finally:
        group.rmdir()


def files(daemon: Daemon) -> Counter[str]:
    """Every file where the service or a build could leave one."""
    places = [daemon.directory, Path("/dev/shm")]
    places += [Path("/run"), Path("/tmp"), Path("/home")] if harness_world.inside() else []
    found: set[str] = set()
    for place in places:
        for directory, names, others in os.walk(place):
            names[:] = [name for name in names if Path(directory, name) != TREE]
            found.update(os.path.join(directory, name) for name in (*names, *others))
    return Counter(path for path in found if "/__pycache__" not in path)


# --- the run ----------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """The arbiter's memory after so many builds, in KiB: all that is resident, and that without what files back.

    Neither depends on how many sessions share its pages just then, as its PSS does.
    """

    builds: int
    resident: int
    anonymous: int


def sample(daemon: Daemon, builds: int) -> Sample:
    lines = Path(f"/proc/{daemon.pid}/smaps_rollup").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return Sample(builds, values["Rss"], values["Anonymous"])


def run(daemon: Daemon, builds: int, lines: int) -> tuple[list[Done], list[Sample], int]:
    """Reads what the workers say, and meanwhile reloads the service and reads its memory."""
    done: list[Done] = []
    samples: list[Sample] = []
    reloads, rest = 0, b""
    while select.select([lines], [], [], STUCK_SEC)[0] and (data := os.read(lines, 65536)):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            done.append(Done(*json.loads(line)))
            if len(done) % max(1, builds // SAMPLES) == 0:
                samples.append(sample(daemon, len(done)))
            if len(done) < builds // 5 and len(done) % BUILDS_PER_RELOAD == 0:
                reloads += 1
                os.kill(daemon.pid, signal.SIGHUP)
                daemon.await_log("build-service listens", count=1 + reloads)
            if done[-1].problem:
                print(f"{done[-1].kind}, {done[-1].request_id}: {done[-1].problem}", flush=True)
    return done, samples, reloads


def log_faults(text: str, done: list[Done]) -> Iterator[str]:
    """What is wrong with the log: each build has one line for its start and one for its end."""
    expected: Counter[tuple[str, str]] = Counter()
    for one in done:
        end = KINDS[one.kind][1]
        expected.update((what, one.request_id) for what in ([end] if end == "refused" else ["started", end]))
    found = Counter((match[1], match[2]) for match in map(ENDS.search, text.splitlines()) if match)
    missing, surplus = expected - found, found - expected
    left_out = sum(map(int, re.findall(r"further lines of a caller were left out .*lines=(\d+)", text)))
    refusals = [key for key in missing if key[0] == "refused"]
    if len(refusals) != left_out:
        yield f"{len(refusals)} refusals have no line, and the log says that {left_out} were left out"
    yield from (f"no log line: {what} {request_id}" for what, request_id in missing if what != "refused")
    yield from (f"a log line too many: {what} {request_id}" for what, request_id in surplus)
    for line in text.splitlines():
        if re.search(r"dropped|cannot|Traceback|was killed|reload refused|had ended|survivors", line):
            if OF_THIS_HOST not in line:
                yield f"in the log: {line}"


def soak(daemon: Daemon, builds: int) -> list[str]:
    """The whole soak; prints its tables, returns what is wrong."""
    for user in (DEV1, DEV2, OUTSIDER) if harness_world.inside() else (harness.current_user(),):
        workspace = daemon.workspace_of(user)
        harness.write_tree(workspace, {"Makefile": MAKEFILE}, user)
    daemon.await_log("build-service listens")  # so that the writer has its file open
    assert at_rest(daemon)
    before = inventory(daemon)
    started = time.monotonic()
    with workers(daemon, builds) as lines:
        done, samples, reloads = run(daemon, builds, lines)
    seconds = time.monotonic() - started
    faults = [f"{one.kind} {one.request_id}: {one.problem}" for one in done if one.problem]
    if len(done) != builds:
        faults.append(f"{len(done)} builds of {builds} came to an end")
    if not at_rest(daemon):
        faults.append("the service did not come to rest")
    after = settled_inventory(daemon, before)
    for what, items in after.items():
        faults += [f"{what}: {count} more of {name}" for name, count in (items - before[what]).items()]
    samples.append(sample(daemon, builds))
    settled = [one for one in samples if one.builds >= builds // 5]
    for name in ("resident", "anonymous"):
        first, last = getattr(settled[0], name), getattr(settled[-1], name)
        if last - first > GROWTH_KIB:
            faults.append(f"the arbiter's {name} memory grew from {first} to {last} KiB")
    daemon.stop()
    faults += log_faults(daemon.log_path.read_text(errors="replace"), done)
    count = Counter(one.kind for one in done)
    table("Builds", [["kind", "count", "ends as"], *([kind, str(count[kind]), KINDS[kind][1]] for kind in KINDS)])
    rate = len(done) / seconds
    print(f"  {len(done)} builds in {seconds:.0f} s, {rate:.1f} a second, {WORKERS} at once; {reloads} reloads")
    rows = [[f"after {one.builds} builds", str(one.resident), str(one.anonymous)] for one in (settled[0], settled[-1])]
    most = max(one.resident for one in settled), max(one.anonymous for one in settled)
    rows.append(["most between", *map(str, most)])
    table("The arbiter's memory", [["", "resident KiB", "anonymous KiB"], *rows])
    more = ", ".join(f"{what} {sum((items - before[what]).values()):+d}" for what, items in after.items())
    print(f"\n  before and after: {more}")
    return faults


def main(builds: int) -> int:
    with delegated_group() as group:
        launcher = ["sh", "-c", 'echo 0 >"$0" && exec "$@"', f"{group}/cgroup.procs"] if group else []
        with Daemon(launcher=launcher) as daemon:
            faults = soak(daemon, builds)
    print(f"  builds ran {'each in a control group of its own' if group else 'without control groups'}")
    for fault in faults[:100]:
        print(f"FAULT {fault}")
    print(f"  faults: {len(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    harness_world.restart_inside()
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else BUILDS))
