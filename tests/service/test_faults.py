"""A faulty machine, for real: calls that fail, a full disk, a log writer that dies, a clock that jumps, a reader that
stops. Whatever happens, one clear line says so, nobody else notices, and the next build works.

Calls are made to fail in the running service by fault_shim.c, which gcc compiles here, and by its resource limits.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import mmap
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
import tools
from daemon import Service
from harness import PATIENCE_SEC, await_exit, descendants, read_until, write_tree
from harness_world import inside
from wire import (
    WAITING,
    Gate,
    RawCaller,
    assert_ended,
    at_rest,
    foreign_processes,
    limit,
    log_writer,
    parent_of,
    sleeps,
    waiting_make,
)

StartService = Callable[..., Service]

FLAVOUR = "root" if inside() else "user"
"""Where both flavours run the same code."""

STALL_MIB = int(os.environ.get("BUILD_TEST_STALL_MIB", "64"))
STALL_SEC = float(os.environ.get("BUILD_TEST_STALL_SEC", "1"))
"""How much comes out of the build whose reader stops for a while, and for how long that is."""

SESSION_GROWTH_KIB = 8 << 10
"""How much larger than the arbiter a session may ever be, with all that it holds for a slow reader."""

CLOCK_JUMP_SEC = 36000

MOST_CALLS = 8
"""So many calls of a function are made to fail in turn: a look at all processes has one for each of them."""

MAKEFILE = f"""quick:
\t@echo quick
leave:
\t@setsid sleep 50 & sleep 51 & echo left
slow:
{WAITING}"""

PLAN = struct.Struct("24s6iq")
"""`struct plan` of fault_shim.c: function, error, pid, skip, times, hits, later_sec, clock_shift_sec."""


class Faults:
    """What fails in a service that has the shim: the file that all of its processes read."""

    def __init__(self, directory: Path) -> None:
        shim = directory / "fault_shim.so"
        source = Path(__file__).with_name("fault_shim.c")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        path = directory / "plan"
        path.write_bytes(bytes(PLAN.size))
        path.chmod(0o666)
        with open(path, "r+b") as file:
            self._plan = mmap.mmap(file.fileno(), PLAN.size)
        self.env = {"LD_PRELOAD": str(shim), "FAULT_PLAN": str(path)}

    def close(self) -> None:
        self._plan.close()

    @contextmanager
    def failing(self, function: str, error: int, pid: int, skip: int = 0, times: int = 1) -> Iterator[None]:
        """In the process `pid`, `function` fails `times` times with `error`, after `skip` calls that succeed."""
        self._plan[:] = PLAN.pack(b"", error, pid, skip, times, 0, 0, 0)
        self._plan[:24] = function.encode().ljust(24, b"\0")  # last: from here on it counts
        try:
            yield
        finally:
            self._plan[:24] = bytes(24)

    def hits(self) -> int:
        """How often a call failed since `failing` began."""
        return int(PLAN.unpack(self._plan[:])[5])

    def move_clock(self, seconds: int) -> None:
        """Moves CLOCK_REALTIME of every process of the service."""
        self._plan[:] = PLAN.pack(b"", 0, 0, 0, 0, 0, 0, seconds)

    def let_pass(self, seconds: int) -> None:
        """Has so much time gone by, by CLOCK_MONOTONIC of every process of the service. Who sleeps is not woken."""
        self._plan[:] = PLAN.pack(b"", 0, 0, 0, 0, 0, seconds, 0)


@pytest.fixture
def faults() -> Iterator[Faults]:
    tools.need(*tools.TO_COMPILE)
    directory = harness.open_directory()
    made = Faults(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@pytest.fixture
def faulty(faults: Faults, start_service: StartService) -> Service:
    service = start_service(FLAVOUR, {"build": {"timeouts": {"grace_sec": 0}}}, env=faults.env)
    write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
    return service


@contextmanager
def undisturbed(service: Service) -> Iterator[None]:
    """A build that runs meanwhile and ends well, an arbiter that stays, and a next build that works."""
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as caller:
        caller.ask("slow").await_output("waits\n")
        yield
        gate.open()
        assert caller.exit()["code"] == 0
        assert caller.text().endswith("done\n")
    assert service.run("make", "quick").stdout == "quick\n"
    await_session_ahead(service)
    assert at_rest(service.daemon)
    assert "Traceback" not in service.daemon.errors()


def sessions_ahead(service: Service) -> list[int]:
    """The pids of the sessions that wait for their caller, once nothing runs in the others."""
    busy = {parent_of(process.pid) for process in foreign_processes(service.daemon)}
    children = {process.pid for process in descendants(service.daemon.pid) if process.parent == service.daemon.pid}
    return sorted(children - busy - {log_writer(service)})


def await_session_ahead(service: Service) -> int:
    """The one session that waits for its caller. No event tells of the fork, so this looks again and again."""
    deadline = time.monotonic() + PATIENCE_SEC
    while not (sleeps(service.daemon) and len(found := sessions_ahead(service)) == 1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def lines_about(service: Service, request_id: str) -> list[str]:
    """What the log says of a build: the kinds of its lines, once the last of them is there."""
    service.daemon.await_log(f"build (completed|timed out|cancelled|refused) .*request_id={request_id}$")
    found = [re.search(rf"build ([a-z ]+) \S+=.*request_id={request_id}$", line) for line in service.daemon.log_lines()]
    return [match[1] for match in found if match]


# --- calls that fail --------------------------------------------------------------------------------------------------

SCARCE = {"fork": [errno.EAGAIN, errno.ENOMEM], "epoll_ctl": [errno.ENOSPC, errno.ENOMEM]}
"""What a call says when the machine has no more of it; others: too many open files, here or in all, and no memory."""

NO_MORE = [errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@pytest.mark.parametrize("function", ["fork", "pipe2", "open", "opendir", "epoll_create1", "epoll_ctl"])
def test_a_call_that_fails_in_a_session_is_one_line_or_nothing_and_leaves_nothing(
    function: str, faulty: Service, faults: Faults
) -> None:
    """Each call in turn, the first, the second and so on, through a build that leaves something to be ended."""
    errors = itertools.cycle(SCARCE.get(function, NO_MORE))
    refused = 0
    with undisturbed(faulty):
        for number in range(MOST_CALLS):
            error, request_id = next(errors), f"{function}-{number}"
            session = await_session_ahead(faulty)
            with faults.failing(function, error, session, skip=number):
                with RawCaller(faulty) as caller:
                    exit_ = caller.ask("leave", features=[], request_id=request_id).exit()
                assert await_exit(session)
            if not faults.hits():
                assert exit_["code"] == 0 and (refused or function.startswith("open") or number == 1)
                break
            if "error" in exit_ or exit_["code"] == 1:
                refused += 1
                assert os.strerror(error) in caller.text() and caller.text().count("\n") == 1, caller.text()
                faulty.daemon.await_log(f"(WARN|ERROR) build_service: .*{os.strerror(error)}")
            else:
                assert (exit_["code"], caller.text()) == (0, "left\n")
                assert lines_about(faulty, request_id) == ["started", "completed"]


@pytest.mark.parametrize("function", ["opendir", "open"])
@pytest.mark.parametrize("times", [1, 1_000_000], ids=["once", "for good"])
def test_a_build_times_out_though_its_processes_cannot_be_looked_for(
    times: int, function: str, faulty: Service, faults: Faults
) -> None:
    session = await_session_ahead(faulty)
    with Gate(faulty.workspace, faulty.caller), RawCaller(faulty) as caller:
        caller.ask("slow", features=[], timeout_sec=1, request_id="late")
        make = waiting_make(caller.await_output("waits\n"))
        with faults.failing(function, errno.EMFILE, session, times=times):
            exit_ = caller.exit()
            assert faults.hits()
            assert (exit_["code"], exit_["timed_out"]) == (124, True)
            assert_ended(make)
            assert await_exit(session)
    assert lines_about(faulty, "late") == ["started", "timed out"]
    assert "survivors" not in faulty.daemon.await_log("build timed out .*request_id=late")
    assert at_rest(faulty.daemon)


def test_what_a_session_could_not_end_is_ended_by_the_arbiter(faulty: Service, faults: Faults) -> None:
    away = "setsid sh -c 'trap \"\" TERM; echo away $$$$; exec 3<gate; read x <&3'"
    write_tree(faulty.workspace, {"Makefile": f"all:\n\t@{away} & read x < gate\n{MAKEFILE}"}, faulty.caller)
    session = await_session_ahead(faulty)
    with Gate(faulty.workspace, faulty.caller), RawCaller(faulty) as caller:
        caller.ask(timeout_sec=1, request_id="unseen")
        pid = int(re.findall(r"away (\d+)", caller.await_output(r"away \d+\n"))[0])
        with faults.failing("opendir", errno.ENFILE, session, times=1_000_000):
            assert await_exit(session)
        assert_ended(pid)
    faulty.daemon.await_log(r'build timed out .*survivors=\["unknown: Too many open files in system"\]')
    faulty.daemon.await_log("ended what a killed session left running processes=.*sh")
    assert faulty.run("make", "quick").stdout == "quick\n"
    assert at_rest(faulty.daemon)


AHEAD = "WARN build_service: cannot fork a session ahead reason="
ACCEPT = "ERROR build_service: cannot accept a caller reason="


@pytest.mark.parametrize(
    ("function", "error", "line"),
    [
        ("fork", errno.EAGAIN, AHEAD),
        ("fork", errno.ENOMEM, AHEAD),
        ("socketpair", errno.EMFILE, AHEAD),
        ("socketpair", errno.ENFILE, AHEAD),
        ("accept4", errno.ENFILE, ACCEPT),
        ("accept4", errno.ENOMEM, ACCEPT),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else str(value).split(":")[0],
)
def test_a_call_that_fails_in_the_arbiter_is_one_line_and_the_caller_is_served(
    function: str, error: int, line: str, faulty: Service, faults: Faults
) -> None:
    with undisturbed(faulty):
        await_session_ahead(faulty)
        with faults.failing(function, error, faulty.daemon.pid):
            assert faulty.run("make", "quick").stdout == "quick\n"
            faulty.daemon.await_log(f'{line}"?{os.strerror(error)}"?$')
        assert faulty.run("make", "quick").stdout == "quick\n"
        assert sum(line in each for each in faulty.daemon.log_lines()) == 1


def test_a_caller_that_cannot_be_handed_over_gets_a_session_of_its_own(faulty: Service, faults: Faults) -> None:
    with undisturbed(faulty):
        await_session_ahead(faulty)
        with faults.failing("sendmsg", errno.ENOMEM, faulty.daemon.pid):
            assert faulty.run("make", "quick").stdout == "quick\n"
            assert faults.hits()


@pytest.mark.parametrize("function", ["memfd_create", "posix_spawn", "execve"])
@pytest.mark.parametrize("error", [errno.ENOMEM, errno.EMFILE], ids=["ENOMEM", "EMFILE"])
def test_a_reload_that_the_machine_cannot_make_is_refused_and_the_next_one_works(
    error: int, function: str, faulty: Service, faults: Faults
) -> None:
    with undisturbed(faulty):
        with faults.failing(function, error, faulty.daemon.pid):
            os.kill(faulty.daemon.pid, signal.SIGHUP)
            said = rf'reload refused, everything stays as it was fault="cannot run /.*: {os.strerror(error)}"'
            faulty.daemon.await_log(said)
        assert faulty.run("make", "quick").stdout == "quick\n"
        os.kill(faulty.daemon.pid, signal.SIGHUP)
        faulty.daemon.await_log("build-service listens", count=2)


@pytest.mark.parametrize(
    ("function", "error"), [("fork", errno.EAGAIN), ("opendir", errno.EMFILE)], ids=["fork", "opendir"]
)
def test_what_a_killed_session_left_is_ended_as_soon_as_it_can_be_looked_for(
    function: str, error: int, faulty: Service, faults: Faults
) -> None:
    with undisturbed(faulty), RawCaller(faulty) as caller:
        make = waiting_make(caller.ask("slow").await_output("waits\n"))
        await_session_ahead(faulty)
        with faults.failing(function, error, faulty.daemon.pid if function == "fork" else 0):
            os.kill(parent_of(make), signal.SIGKILL)
            said = "ERROR build_service: cannot look for what a killed session left running reason="
            faulty.daemon.await_log(f"{said}.{os.strerror(error)}")
        faulty.daemon.await_log("ended what a killed session left running processes=.*make")
        assert_ended(make)


def test_a_log_writer_that_cannot_be_started_is_started_later(faulty: Service, faults: Faults) -> None:
    with undisturbed(faulty):
        await_session_ahead(faulty)
        with faults.failing("fork", errno.EAGAIN, faulty.daemon.pid):
            os.kill(log_writer(faulty), signal.SIGKILL)
            faulty.daemon.await_log("the log writer had ended and was started again")
            assert faults.hits()


def test_whatever_number_of_descriptors_is_left_a_caller_is_told_the_true_reason(start_service: StartService) -> None:
    service = start_service(FLAVOUR, {"service": {"prefork": 0}})
    write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
    free = (number for number in itertools.count() if not os.path.exists(f"/proc/{service.daemon.pid}/fd/{number}"))
    with Gate(service.workspace, service.caller) as gate, RawCaller(service) as running:
        running.ask("slow").await_output("waits\n")
        before, refused = limit(service, "RLIMIT_NOFILE"), 0
        for room in range(1 + next(free), 64):
            limit(service, "RLIMIT_NOFILE", room)
            with RawCaller(service) as caller:
                exit_ = caller.ask("quick").exit()
            if caller.text() == "quick\n":
                break
            if exit_["code"] == 1:
                refused += 1
                assert re.fullmatch("[^\n]*Too many open files[^\n]*\n", caller.text()), (room, caller.text())
        limit(service, "RLIMIT_NOFILE", before)
        assert refused > 3
        gate.open()
        assert running.exit()["code"] == 0
    assert service.run("make", "quick").stdout == "quick\n"
    assert at_rest(service.daemon, prefork=0)


# --- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_builds_go_on_while_the_disk_under_the_log_is_full_and_the_log_says_how_many_lines_it_lost(
    start_service: StartService,
) -> None:
    directory = harness.open_directory()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory], check=True)
    try:
        service = start_service("root", {"logging": {"directory": str(directory)}})
        write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
        builds = 30
        ballast = directory / "ballast"
        with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left on device"):
            while True:
                file.write(bytes(4096))
        for number in range(builds):
            with RawCaller(service) as caller:
                assert caller.ask("quick", request_id=f"full-{number}").exit()["code"] == 0
        service.daemon.await_error("cannot write the log file, lines are dropped path=.*No space left on device")
        assert at_rest(service.daemon)
        ballast.unlink()
        with RawCaller(service) as caller:
            assert caller.ask("quick", request_id="roomy").exit()["code"] == 0
        assert lines_about(service, "roomy") == ["started", "completed"]
        service.daemon.stop()
        log = "\n".join(service.daemon.log_lines())
        missing = 2 * builds - len(re.findall(r"build (?:started|completed) .*request_id=full-\d+$", log, re.MULTILINE))
        dropped = sum(map(int, re.findall(r"(\d+) log lines? dropped$", log, re.MULTILINE)))
        assert missing > 0
        assert dropped - missing in (0, 1)  # 1: all of a line but its end was there
        assert service.daemon.errors().count("lines are dropped") == 1
    finally:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


def test_a_log_writer_that_is_killed_again_and_again_loses_at_most_the_line_in_its_hands(
    start_service: StartService,
) -> None:
    service = start_service(FLAVOUR)
    write_tree(service.workspace, {"Makefile": MAKEFILE}, service.caller)
    kills, builds = 3, 0
    for kill in range(kills):
        os.kill(log_writer(service), signal.SIGKILL)
        for _ in range(20):
            with RawCaller(service) as caller:
                assert caller.ask("quick", request_id=f"build-{builds}").exit()["code"] == 0
            builds += 1
        service.daemon.await_log("the log writer had ended and was started again", count=kill + 1)
    assert at_rest(service.daemon)
    service.daemon.stop()
    log = "\n".join(service.daemon.log_lines())
    found = re.findall(r"build (started|completed) .*request_id=(build-\d+)$", log, re.MULTILINE)
    assert len(found) == len(set(found))
    assert 2 * builds - len(found) <= kills
    assert "dropped" not in log


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [CLOCK_JUMP_SEC, -CLOCK_JUMP_SEC], ids=["forwards", "backwards"])
def test_a_clock_that_jumps_changes_no_timeout(jump: int, faulty: Service, faults: Faults) -> None:
    with Gate(faulty.workspace, faulty.caller), RawCaller(faulty) as caller:
        caller.ask("slow", features=[], timeout_sec=2, request_id="jump").await_output("waits\n")
        faults.move_clock(jump)
        exit_ = caller.exit()
        assert (exit_["code"], exit_["timed_out"]) == (124, True)
        assert 2000 <= exit_["duration_ms"] < 2000 + 1000 * PATIENCE_SEC
    start = faulty.daemon.await_log("build started .*request_id=jump")
    end = faulty.daemon.await_log("build timed out .*request_id=jump")
    seconds = [time.mktime(time.strptime(line[:19], "%Y-%m-%dT%H:%M:%S")) for line in (start, end)]
    assert abs(seconds[1] - seconds[0] - jump) < 2 * PATIENCE_SEC  # it did jump
    assert 2 <= float(re.findall(r"duration_sec=([0-9.]+)", end)[0]) < 2 + PATIENCE_SEC


# --- a reader that stops ----------------------------------------------------------------------------------------------


def memory_kib(pid: int, what: str) -> int:
    return int(re.findall(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def await_blocked_write(pid: int) -> None:
    """Waits until the process stands in a write to a full pipe. Nothing tells of it, so this looks again and again."""
    deadline = time.monotonic() + PATIENCE_SEC
    seen, written = 0, ""
    while seen < 3:
        assert time.monotonic() < deadline, "the build goes on writing though nobody reads"
        now = re.findall(r"wchar: \d+", Path(f"/proc/{pid}/io").read_text())[0]
        stands = "pipe" in Path(f"/proc/{pid}/wchan").read_text()
        seen, written = seen + 1 if stands and now == written else 0, now
        time.sleep(0.05)


def test_a_client_that_stops_in_the_middle_and_goes_on_gets_every_byte_and_the_session_holds_little(
    start_service: StartService,
) -> None:
    service = start_service(FLAVOUR)
    write_tree(service.workspace, {"Makefile": f"all:\n{WAITING}\t@exec cat {'data ' * STALL_MIB}\n"}, service.caller)
    piece = os.urandom(512 << 10) + (b"gcc -c -o module.o module.c #\n" * (1 << 15))[: 512 << 10]
    (service.workspace / "data").write_bytes(piece)
    (service.workspace / "data").chmod(0o644)
    got = hashlib.sha256()
    with Gate(service.workspace, service.caller) as gate, service.popen("make") as client:
        assert client.stdout
        first = read_until(client.stdout.fileno(), "waits\n")
        make = waiting_make(first)
        session = parent_of(make)
        gate.open()
        seen = 0
        while seen < STALL_MIB << 19:
            data = os.read(client.stdout.fileno(), 1 << 16)
            got.update(data)
            seen += len(data)
        client.send_signal(signal.SIGSTOP)
        cat = next(process.pid for process in descendants(make) if process.name == "cat")
        await_blocked_write(cat)
        select.select([], [], [], STALL_SEC)  # the stop itself
        await_blocked_write(cat)
        most = memory_kib(session, "VmHWM") - memory_kib(service.daemon.pid, "VmRSS")
        client.send_signal(signal.SIGCONT)
        while data := os.read(client.stdout.fileno(), 1 << 16):
            got.update(data)
        assert client.wait(PATIENCE_SEC) == 0
    wanted = hashlib.sha256(b"done\n")
    for _ in range(STALL_MIB):
        wanted.update(piece)
    assert got.digest() == wanted.digest()
    assert most < SESSION_GROWTH_KIB
    service.daemon.await_log("build completed .*exit_code=0 ")
