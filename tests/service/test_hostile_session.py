"""The caller against its own session and everybody else's: what it may send, trace, read, signal or take away."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from daemon import Service, running_service
from harness import popen_as, run_as, write_tree
from harness_world import DEV1
from hostile import first_process, pid_namespace, settings
from wire import WAITING, Gate, RawCaller, at_rest, foreign_processes, parent_of, waiting_make

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]


@pytest.fixture(scope="module")
def one() -> Iterator[Service]:
    """A service for all tests: each of them leaves it at rest."""
    with running_service("root", settings()) as service:
        yield service


# --- what a caller may do to its session ------------------------------------------------------------------------------

ATTEMPTS = """
import ctypes, fcntl, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
pid = int(sys.argv[1]) or os.getppid()
SIGNALS = [number for number in range(1, 65) if number not in (32, 33)]
FAR = ctypes.c_void_p(0x10000)
buffer = ctypes.create_string_buffer(64)
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
here, there = Piece(ctypes.addressof(buffer), 8), Piece(0x10000, 8)
zero = ctypes.c_ulong(0)

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def attempt(name, call, *arguments):
    try:
        call(*arguments)
    except OSError as exc:
        print(name, exc.errno)
    except AttributeError:  # a C library that does not know the call
        print(name, 38)
    else:
        print(name, "done")

def syscall(*arguments):
    return checked(libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]))

def pidfd():
    return syscall(434, pid, 0)

def with_pidfd(call):
    fd = pidfd()
    try:
        return call(fd)
    finally:
        os.close(fd)

def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

for number in SIGNALS:
    attempt("kill %d" % number, os.kill, pid, number)
for number in (9, 15, 17, 19, 64):
    attempt("tgkill %d" % number, lambda: checked(libc.tgkill(pid, pid, number)))
    attempt("sigqueue %d" % number, lambda: checked(libc.sigqueue(pid, number, zero)))
    attempt("pidfd_send_signal %d" % number, with_pidfd, lambda fd: syscall(424, fd, number, None, 0))
group = os.getpgid(pid)  # 0 if its leader is outside of this pid namespace; kill(2) takes that, and 1, for others
attempt("killpg", os.killpg, group if group > 1 else pid, 9)
for request, name in ((16, "attach"), (0x4206, "seize")):
    attempt("ptrace " + name, lambda: checked(libc.ptrace(request, pid, zero, zero)))
for name in ("process_vm_readv", "process_vm_writev"):
    call = getattr(libc, name)
    attempt(name, lambda: checked(call(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)))
attempt("process_madvise", with_pidfd, lambda fd: syscall(440, fd, ctypes.byref(there), 1, 21, 0))
attempt("process_mrelease", with_pidfd, lambda fd: syscall(448, fd, 0))
for fd_there in range(12):
    attempt("pidfd_getfd %d" % fd_there, with_pidfd, lambda fd: os.close(syscall(438, fd, fd_there, 0)))
    attempt("fd/%d" % fd_there, os.readlink, "/proc/%d/fd/%d" % (pid, fd_there))
    attempt("open fd/%d" % fd_there, lambda: os.close(os.open("/proc/%d/fd/%d" % (pid, fd_there), os.O_RDONLY)))
for name in ("fd", "fdinfo", "map_files", "task/%d/fd" % pid):
    attempt(name, os.listdir, "/proc/%d/%s" % (pid, name))
for name in ("cwd", "root", "exe", "ns/mnt", "ns/pid"):
    attempt(name, os.readlink, "/proc/%d/%s" % (pid, name))
READS = "mem environ maps smaps pagemap auxv io stack syscall personality timerslack_ns"
for name in READS.split():
    attempt(name, lambda: open("/proc/%d/%s" % (pid, name), "rb").read(1))
WRITES = {"mem": "x", "oom_score_adj": "1000", "oom_adj": "15", "clear_refs": "1", "coredump_filter": "255",
          "timerslack_ns": "1000000000", "loginuid": "0", "comm": "x", "attr/current": "x", "setgroups": "deny",
          "uid_map": "0 0 1", "autogroup": "19", "sched": "0"}
for name, text in WRITES.items():
    if os.path.exists("/proc/%d/%s" % (pid, name)):
        attempt("write " + name, write, "/proc/%d/%s" % (pid, name), text)
limits = (ctypes.c_uint64 * 2)(0, 0)
for kind in range(16):
    attempt("prlimit %d" % kind, lambda: checked(libc.prlimit64(pid, kind, limits, None)))
    attempt("prlimit look %d" % kind, lambda: checked(libc.prlimit64(pid, kind, None, limits)))
attempt("nice", os.setpriority, os.PRIO_PROCESS, pid, 19)
attempt("scheduler", os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
attempt("affinity", os.sched_setaffinity, pid, {0})
attempt("setpgid", os.setpgid, pid, pid)
attempt("setns", with_pidfd, lambda fd: syscall(308 if os.uname().machine == "x86_64" else 268, fd, 0x20000))
attempt("migrate_pages", lambda: syscall(256 if os.uname().machine == "x86_64" else 238, pid, 64, zero, zero))

reader, writer = os.pipe()  # a pipe that signals whom it is told to (F_SETOWN, fcntl(2)): no error, and no effect
fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
fcntl.fcntl(reader, 10, signal.SIGKILL)  # F_SETSIG
fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(writer, b"x")
print("end", 1)
"""
"""What one process may try against another, 0 for its parent; prints `name errno` or `name done`."""

REFUSED = {"1", "13", "3", "22", "30", "38"}
"""EPERM and EACCES; ESRCH (setpgid on no child), EINVAL, EROFS and ENOSYS from kernels that know no such thing."""


def attempts(text: str) -> dict[str, str]:
    found = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert "end" in found and len(found) > 150, text
    return found


def attempts_on(pid: int) -> dict[str, str]:
    """What the attempts of a process beside the service come to; it has a process group of its own to lose."""
    python = f"{harness.python_directory()}/python3"
    done = run_as(DEV1, [python, "-I", "-c", ATTEMPTS, str(pid)], Path("/"), start_new_session=True)
    assert done.returncode == 0, done.stderr
    return attempts(done.stdout)


def granted(found: dict[str, str]) -> dict[str, str]:
    return {name: answer for name, answer in found.items() if answer not in REFUSED}


def test_the_attempts_succeed_on_a_process_of_the_same_user() -> None:
    """The control: what the next tests find refused is refused for whom it is tried on, not for how."""
    python = f"{harness.python_directory()}/python3"
    gentle = ATTEMPTS.replace("range(1, 65) if number not in (32, 33)", "(18, 28)")
    gentle = gentle.replace("(9, 15, 17, 19, 64)", "(18,)")
    with popen_as(DEV1, [python, "-I", "-c", "input()"], "/", stdin=subprocess.PIPE, start_new_session=True) as victim:
        done = run_as(DEV1, [python, "-I", "-c", gentle, str(victim.pid)], Path("/"))
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    for name in ("kill 18", "tgkill 18", "sigqueue 18", "pidfd_send_signal 18", "killpg", "nice", "scheduler"):
        assert found[name] == "done", (name, found)


def test_nothing_that_a_caller_tries_from_outside_reaches_any_process_of_the_service(one: Service) -> None:
    write_tree(one.workspace, {"Makefile": f"all:\n{WAITING}"}, DEV1)
    with Gate(one.workspace, DEV1) as gate, RawCaller(one) as caller:
        session = parent_of(waiting_make(caller.ask().await_output("waits\n")))
        foreign = {process.pid for process in foreign_processes(one.daemon)}
        service = {process.pid for process in harness.descendants(one.daemon.pid)} - foreign | {one.daemon.pid}
        assert session in service and len(service) >= 4  # the arbiter, the log writer, an idle session
        for pid in service:
            assert granted(attempts_on(pid)) == {}, harness.processes()[pid]
        assert {harness.processes()[pid].state for pid in service} <= set("SRD")
        gate.open()
        assert caller.exit()["code"] == 0


def test_nothing_that_a_build_tries_reaches_its_session(one: Service) -> None:
    write_tree(one.workspace, {"attempts.py": ATTEMPTS}, DEV1)
    with RawCaller(one) as caller:
        assert caller.ask("-I", "attempts.py", "0", command="python3").exit()["code"] == 0
        assert granted(attempts(caller.text())) == {}


EVERYBODY = """
import os, sys
signum = int(sys.argv[1])
print("ready", flush=True)
os.kill(-1, signum)
for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    if pid != os.getpid():
        try:
            os.kill(pid, signum)
        except OSError:
            continue
print("sent")
"""


@pytest.mark.parametrize("signum", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_signals_everybody_harms_builds_of_its_user_alone(
    signum: signal.Signals, start_service: StartService
) -> None:
    """In a pid namespace: those whom a signal to -1 reaches (kill(2)) are all of this service and its builds."""
    service = start_service("root", settings(), launcher=pid_namespace())
    daemon = first_process(service.daemon.pid)
    files = {"everybody.py": EVERYBODY, "Makefile": f"all:\n{WAITING}quick:\n\t@echo quick\n"}
    write_tree(service.workspace, files, DEV1)
    with Gate(service.workspace, DEV1), RawCaller(service) as victim, RawCaller(service) as caller:
        victim.ask(timeout_sec=2).await_output("waits\n")
        assert caller.ask("-I", "everybody.py", str(int(signum)), command="python3").exit()["code"] == 0
        assert caller.text() == "ready\nsent\n"
        stopped = {each.name for each in harness.descendants(daemon) if each.state in "Tt"}
        assert stopped == ({"make", "sh"} if signum == signal.SIGSTOP else set())
        assert victim.exit()["timed_out"] is (signum == signal.SIGSTOP)
    with RawCaller(service) as caller:
        assert caller.ask("quick").exit()["code"] == 0
    service.daemon.await_log("build completed", count=2)
    assert not [line for line in service.daemon.log_lines() if "was killed" in line or "started again" in line]


# --- a pipe that is not the session's alone ---------------------------------------------------------------------------

FILL = """
import os, select
os.set_blocking(1, False)
while select.select([], [1], [], 0.5)[1]:  # until nobody reads any more
    try:
        os.write(1, b"x" * 65536)
    except BlockingIOError:
        pass
with open("full", "w") as file:
    print(os.getpid(), file=file)
open("gate").readline()
"""

THIEF = """
import os, sys
pipe = os.open("/proc/%s/fd/1" % sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
print("open", flush=True)
input()
stolen = 0
try:
    while True:
        stolen += len(os.read(pipe, 65536))
except BlockingIOError:
    print("stole", stolen, flush=True)
input()
"""
"""Takes what is in the pipe of a build's output, and keeps both of its ends open (proc(5), fd)."""


def test_output_that_another_process_takes_away_keeps_nobody_waiting_for_it(one: Service) -> None:
    write_tree(one.workspace, {"fill.py": FILL}, DEV1)
    full = one.workspace / "full"
    full.unlink(missing_ok=True)
    python = f"{harness.python_directory()}/python3"
    with Gate(one.workspace, DEV1) as gate, RawCaller(one) as caller:
        caller.ask("-I", "fill.py", command="python3", request_id="robbed")
        command = [python, "-I", "-c", THIEF, harness.await_file(full).strip()]
        with popen_as(DEV1, command, "/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as thief:
            assert thief.stdin and thief.stdout
            harness.read_until(thief.stdout.fileno(), "open\n")
            gate.open()
            one.daemon.await_log("build completed .*request_id=robbed")
            thief.stdin.write(b"\n")
            assert "stole 0\n" not in harness.read_until(thief.stdout.fileno(), r"stole \d+\n")
            assert caller.exit()["code"] == 0
            thief.communicate(b"\n")
    assert at_rest(one.daemon)
