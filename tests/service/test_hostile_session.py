"""The caller against its own session: what it may send, trace, read or slow down, and builds that will not end.

Timeout and cancellation end everything of a build, however it hides, ignores, stops, traces or multiplies; what even
SIGKILL does not end is named in the log.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import harness
from daemon import Service, running_service
from harness import popen_as, run_as, write_tree
from harness_world import DEV1
from hostile import first_process, pid_namespace
from wire import WAITING, Gate, RawCaller, assert_ended, at_rest, foreign_processes, parent_of, waiting_make

pytestmark = pytest.mark.needs_root

StartService = Callable[..., Service]

GRACE_SEC = 1
BOMB_PROCESSES = 100
"""How many processes a fork bomb of these tests may have."""

ALL_READY_SEC = 4
"""The timeout of a build that has to get ready, on a busy machine, beside all the others."""


def settings() -> dict[str, object]:
    """Any program for the builds, and little patience with them."""
    python = f"{harness.python_directory()}/python3"
    return {"build": {"commands": {"python3": python, "make": "/usr/bin/make"}, "timeouts": {"grace_sec": GRACE_SEC}}}


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


# --- builds that will not end -----------------------------------------------------------------------------------------

PRELUDE = """
import ctypes, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
CLONE_VM, CLONE_VFORK, CLONE_PARENT, CLONE_NEWUSER, CLONE_NEWPID = 0x100, 0x4000, 0x8000, 0x10000000, 0x20000000
PTRACE_CONT, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_O_TRACEEXIT = 7, 0x4206, 0x4207, 0x40
os.set_inheritable(os.open("alive", os.O_WRONLY), True)  # whoever lives holds it: the last one ends the stream

def ready():
    os.write(1, b"ready\\n")

def wait():
    while True:
        signal.pause()

def ignore_everything():
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33):
            signal.signal(number, signal.SIG_IGN)

def child(*works):
    pid = os.fork()
    if pid == 0:
        try:
            for work in works:
                work()
        finally:
            os._exit(0)
    return pid

def name(text):
    libc.prctl(PR_SET_NAME, text, 0, 0, 0)

def clone(flags):  # a child that sleeps for ever
    stack = ctypes.create_string_buffer(1 << 16)
    top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack)) & ~15)
    return libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, flags | signal.SIGCHLD, None)

def state(pid):
    return open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0]

def once(found):
    while not found():
        time.sleep(0.001)

def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, ctypes.c_ulong(0), ctypes.c_ulong(data)) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
"""

HOSTILE = {
    "ignores every signal": "ignore_everything(); ready(); wait()",
    "is stopped, and so are its children": """
ignore_everything()
stopped = child(lambda: os.kill(os.getpid(), signal.SIGSTOP), wait)
child(lambda: once(lambda: state(stopped) == state(os.getppid()) == "T"), ready, wait)
os.kill(os.getpid(), signal.SIGSTOP)
wait()
""",
    "forks daemons with other names": """
def daemon(text):
    return lambda: (os.setsid(), child(ignore_everything, lambda: name(text), lambda: os.chdir("/"), wait))
for text in (b"kworker/0:1", b") S 1 (", b"python3", b"build-service", b""):
    os.waitpid(child(daemon(text)), 0)
ready()
wait()
""",
    "has sessions and groups of its own": """
for leave in (os.setsid, lambda: os.setpgid(0, 0)) * 3:
    child(leave, ignore_everything, lambda: child(leave, wait), wait)
ready()
wait()
""",
    "sends its orphans signals at its death": """
def die_with(number):
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGUSR1):
    child(ignore_everything, lambda: die_with(number), lambda: child(lambda: die_with(number), wait), wait)
ready()
wait()
""",
    "takes its orphans itself": """
ignore_everything()
libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for _ in range(5):
    os.waitpid(child(lambda: child(os.setsid, wait)), 0)
ready()
wait()
""",
    "has children that are not its own": """
ignore_everything()
for _ in range(3):
    clone(CLONE_PARENT)
ready()
wait()
""",
    "answers SIGTERM with more processes": """
def more(number, frame):
    for _ in range(5):
        child(os.setsid, ignore_everything, wait)
signal.signal(signal.SIGTERM, more)
ready()
wait()
""",
    "waits for a vforked child": """
pid = os.getpid()
child(lambda: once(lambda: state(pid) == "D"), ready, ignore_everything, wait)
ignore_everything()
clone(CLONE_VFORK | CLONE_VM)
""",
    "holds its children by ptrace": """
ignore_everything()
traced = [child(ignore_everything, wait), child(os.setsid, ignore_everything, wait)]
for pid in traced:
    ptrace(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXIT)
    ptrace(PTRACE_INTERRUPT, pid)
once(lambda: all(state(pid) == "t" for pid in traced))
ready()
wait()
""",
    "is held by its child's ptrace": """
ignore_everything()
def hold():
    ignore_everything()
    ptrace(PTRACE_SEIZE, os.getppid(), PTRACE_O_TRACEEXIT)
    ptrace(PTRACE_INTERRUPT, os.getppid())
    once(lambda: state(os.getppid()) == "t")
child(hold, ready, wait)
wait()
""",
    "hides in a pid namespace": """
ignore_everything()
libc.unshare(CLONE_NEWUSER | CLONE_NEWPID)  # where the machine lets its users have one
child(os.setsid, lambda: child(os.setsid, ignore_everything, wait), ignore_everything, ready, wait)
wait()
""",
    "fills its limit of processes": f"""
resource.setrlimit(resource.RLIMIT_NPROC, ({BOMB_PROCESSES}, {BOMB_PROCESSES}))
for _ in range({BOMB_PROCESSES}):
    try:
        child(os.setsid, ignore_everything, wait)
    except BlockingIOError:
        break
ready()
wait()
""",
    "is a fork bomb": f"""
resource.setrlimit(resource.RLIMIT_NPROC, ({BOMB_PROCESSES}, {BOMB_PROCESSES}))
ignore_everything()
first = os.getpid()
told = False
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            name(b"bomb")
    except BlockingIOError:
        if os.getpid() == first and not told:
            told = True
            ready()
        time.sleep(0.001)
""",
}
"""Builds by what they do: each says that it is ready, and none means to end."""


class HostileBuild:
    """A build of HOSTILE in a directory of its own, and the means to see that nothing of it lives."""

    def __init__(self, service: Service, caller: RawCaller, name: str) -> None:
        self.caller = caller
        self.directory = service.workspace / re.sub(r"\W+", "-", name)
        write_tree(self.directory, {"build.py": PRELUDE + HOSTILE[name]}, DEV1)
        fifo = self.directory / "alive"
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
        harness.give(fifo, DEV1)
        harness.give(self.directory, DEV1)
        self._alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def ask(self, **fields: object) -> None:
        self.caller.ask("-I", "build.py", command="python3", cwd=str(self.directory), **fields)

    def await_nothing_lives(self) -> None:
        """The end of the stream that every process of the build holds open."""
        poll = select.poll()
        poll.register(self._alive, 0)
        assert poll.poll(harness.PATIENCE_SEC * 1000), f"something of {self.directory.name!r} lives"

    def close(self) -> None:
        os.close(self._alive)


@contextmanager
def hostile_build(service: Service, name: str) -> Iterator[HostileBuild]:
    with RawCaller(service) as caller:
        build = HostileBuild(service, caller, name)
        try:
            yield build
        finally:
            build.close()


def ending_of(service: Service, build: HostileBuild, how: str) -> str:
    return service.daemon.await_log(rf"build {how} .*cwd={re.escape(str(build.directory))} ")


def test_when_their_callers_go_away_nothing_is_left_of_any_of_them_all_at_once(one: Service) -> None:
    with ExitStack() as stack:
        builds = [stack.enter_context(hostile_build(one, name)) for name in HOSTILE]
        for build in builds:
            build.ask()
        for build in builds:
            build.caller.await_output("ready\n")
        for build in builds:
            build.caller.close()
        for build in builds:
            build.await_nothing_lives()
            assert "survivors" not in ending_of(one, build, "cancelled")
    assert at_rest(one.daemon)


def test_a_timeout_leaves_nothing_of_any_of_them_all_at_once(one: Service) -> None:
    with ExitStack() as stack:
        builds = [stack.enter_context(hostile_build(one, name)) for name in HOSTILE]
        for build in builds:
            build.ask(timeout_sec=ALL_READY_SEC)
        for build in builds:
            exit_ = build.caller.exit()
            assert (exit_["code"], exit_["timed_out"]) == (124, True), (build.directory.name, build.caller.text())
            assert "ready\n" in build.caller.text(), (build.directory.name, build.caller.text())
            build.await_nothing_lives()
            assert "survivors" not in ending_of(one, build, "timed out")
    assert at_rest(one.daemon)


def test_a_build_that_ends_well_leaves_nothing_either(one: Service) -> None:
    """What the daemons do that its main process left."""
    with hostile_build(one, "forks daemons with other names") as build:
        script = (build.directory / "build.py").read_text().rpartition("wait()")[0]
        write_tree(build.directory, {"build.py": script}, DEV1)
        build.ask()
        assert build.caller.exit()["code"] == 0
        build.await_nothing_lives()
        assert "survivors" not in ending_of(one, build, "completed")
    assert at_rest(one.daemon)


# --- what cannot be ended ---------------------------------------------------------------------------------------------

HOLD = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_O_TRACEEXIT = 0x4206, 0x40
for pid in map(int, sys.argv[1:]):
    if libc.ptrace(PTRACE_SEIZE, pid, ctypes.c_ulong(0), ctypes.c_ulong(PTRACE_O_TRACEEXIT)) != 0:
        sys.exit("ptrace: %d" % ctypes.get_errno())
print("held", flush=True)
input()
"""
"""Holds processes by a stop at their exit, which outlives SIGKILL until the tracer lets go (ptrace(2), BUGS)."""


def test_what_even_sigkill_does_not_end_is_named_in_the_log_and_holds_its_caller_no_longer_than_the_ladder(
    one: Service,
) -> None:
    """The tracer is the caller's as well, and no part of the build."""
    script = "import os, signal\nprint(os.getpid(), os.fork() or os.getpid(), 'ready', flush=True)\nsignal.pause()\n"
    write_tree(one.workspace, {"held.py": script}, DEV1)
    python = f"{harness.python_directory()}/python3"
    with RawCaller(one) as caller:
        text = caller.ask("-I", "held.py", command="python3", timeout_sec=1, cwd=str(one.workspace))
        said = text.await_output(r"ready\n[^\n]*ready\n")
        pids = sorted(set(re.findall(r"\d+", said)), key=int)
        assert len(pids) == 2, said
        hold = popen_as(DEV1, [python, "-I", "-c", HOLD, *pids], "/", stdin=-1, stdout=subprocess.PIPE)
        with hold as tracer:
            assert tracer.stdout
            harness.read_until(tracer.stdout.fileno(), "held\n")
            exit_ = caller.exit()
            assert (exit_["code"], exit_["timed_out"]) == (124, True)
            line = one.daemon.await_log(r"build timed out .* args=\[.*held.py.*survivors=")
            assert {f"python3[{pid}]" for pid in pids} == set(re.findall(r"python3\[\d+\]", line)), line
            tracer.communicate(b"\n")
    assert_ended(*map(int, pids))
    assert at_rest(one.daemon)


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
