"""The log: nothing is lost unseen, no sender ever waits, and the writer survives what happens to files and
consoles.

Real forks, sockets, files and signals throughout. `close` and `wait_writer` are the barrier of most tests:
when the writer has ended, everything is written. Where a test needs to know that the writer has come to some
line while it goes on, the log has a console that the test reads: a line goes to the file first, then to the
console.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buildcore.core.settings import Logging
from buildcore.service import log_channel, log_outputs, logs

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (ERROR| WARN| INFO|DEBUG|TRACE) build_service: (.*)"
)
DROPPED = re.compile(r"(?:at least )?(\d+) log lines? dropped")
NOBODY = 65534


def opened(directory: Path, **settings: object) -> logs.Log:
    return logs.start(Logging(directory=str(directory), **settings))  # type: ignore[arg-type]


def finish(log: logs.Log) -> int:
    """Close the log here and wait for its writer; return the writer's exit status."""
    log.close()
    return wait(log.writer_pid)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(function: Callable[[], None]) -> int:
    """Run `function` in a forked process that then ends with status 0, or 1 when it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def files(directory: Path) -> list[Path]:
    """The log's files, the oldest first."""
    found = sorted(directory.iterdir(), key=lambda path: int(path.suffix[1:]) if path.suffix != ".log" else 0)
    return found[::-1]


def messages(directory: Path) -> list[str]:
    """Level and message of all lines, the oldest first; every line has to be whole and well-formed."""
    data = b"".join(path.read_bytes() for path in files(directory))
    assert data == b"" or data.endswith(b"\n")
    found = [LINE.fullmatch(line) for line in data.decode().split("\n")[:-1]]
    assert all(found)
    return [match[2] for match in found if match]


def dropped(lines: list[str]) -> int:
    return sum(int(match[1]) for match in map(DROPPED.fullmatch, lines) if match)


def without_reports(lines: list[str]) -> list[str]:
    return [line for line in lines if not DROPPED.fullmatch(line)]


def stop(pid: int) -> None:
    """Stop a process and return when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


@contextlib.contextmanager
def standard_error(descriptor: int) -> Iterator[None]:
    """Let `descriptor` be the standard error of this process, and of what it forks, for a while."""
    saved = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


class Console:
    """A log whose console is a pipe that the test reads."""

    def __init__(self, directory: Path | None, console: bool = True, **settings: object) -> None:
        read_end, write_end = os.pipe()
        with standard_error(write_end):
            name = str(directory) if directory else ""
            self.log = logs.start(Logging(directory=name, console=console, **settings))  # type: ignore[arg-type]
        os.close(write_end)
        self.lines = os.fdopen(read_end, encoding="utf-8")

    def next_message(self) -> str:
        match = LINE.fullmatch(self.lines.readline().rstrip("\n"))
        assert match
        return match[2]

    def finish(self) -> list[str]:
        """Close the log, wait for the writer, and return the messages that the console had not yet read."""
        self.log.close()
        rest = self.lines.read().splitlines()
        self.lines.close()
        assert wait(self.log.writer_pid) == 0
        return [match[2] for match in map(LINE.fullmatch, rest) if match]


# lines and files


def test_a_line_has_the_requirements_form_and_the_senders_time(tmp_path: Path) -> None:
    log = opened(tmp_path)
    before = time.time()
    log.info("build started", user="dev1", cwd="/home/dev1/workspace/app", args=["-j4", "all"])
    after = time.time()
    finish(log)
    line = (tmp_path / "build-service.log").read_text()
    stamp, rest = line[:24], line[24:]
    assert rest == (
        '  INFO build_service: build started user=dev1 cwd=/home/dev1/workspace/app args=["-j4","all"]\n'
    )
    seconds, milliseconds = stamp[:-1].split(".")
    assert [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in (before, after)].count(
        seconds
    )
    assert len(milliseconds) == 3


def test_each_level_has_its_name_and_those_below_the_configured_one_are_not_sent(tmp_path: Path) -> None:
    known = {"trace": "ERROR  WARN  INFO DEBUG TRACE", "warn": "ERROR  WARN", "error": "ERROR"}
    for level, expected in known.items():
        directory = tmp_path / level
        log = opened(directory, level=level)
        for send in (log.error, log.warn, log.info, log.debug, log.trace):
            send("m")
        finish(log)
        lines = (directory / "build-service.log").read_text().splitlines()
        assert " ".join(line[25:30] for line in lines) == expected


def test_what_a_caller_sent_cannot_forge_a_line(tmp_path: Path) -> None:
    log = opened(tmp_path)
    forged = "2026-01-14T12:00:00.000Z  INFO build_service: forged"
    log.info("build started", args=[f"x\n{forged}", "\x1b[2J", "\udcff"])
    finish(log)
    assert len(messages(tmp_path)) == 1
    assert (tmp_path / "build-service.log").read_bytes().replace(b"\n", b"").decode().isprintable()


def test_file_and_directory_are_private_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        log = opened(tmp_path / "log")
    finally:
        os.umask(mask)
    log.info("m")
    finish(log)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "log" / "build-service.log").stat().st_mode) == 0o600


def test_a_relative_directory_is_the_one_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = logs.start(Logging(directory="log"))
    log.info("m")
    finish(log)
    assert messages(tmp_path / "log") == ["m"]


def test_a_new_start_goes_on_with_the_file(tmp_path: Path) -> None:
    for number in range(3):
        log = opened(tmp_path)
        log.info(f"run {number}")
        finish(log)
    assert messages(tmp_path) == ["run 0", "run 1", "run 2"]


def test_half_a_line_that_a_crash_left_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "build-service.log").write_text("2026-01-14T12:00:00.000Z  INFO build_ser")
    log = opened(tmp_path)
    log.info("next")
    finish(log)
    first, second = (tmp_path / "build-service.log").read_text().splitlines()
    assert first.endswith("build_ser")
    assert second.endswith(" next")


def test_after_close_logging_does_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    finish(log)
    log.info("m")
    log.close()
    log.wait_writer()
    assert messages(tmp_path) == []


# many processes


def test_lines_of_several_processes_never_mix_and_each_keeps_its_order(tmp_path: Path) -> None:
    log = opened(tmp_path)

    def send(name: int) -> Callable[[], None]:
        def session() -> None:
            log.in_child()
            for number in range(500):
                log.info("m", name=name, number=number, args=["x" * (number * 7 % 3000)])

        return session

    assert [wait(pid) for pid in [forked(send(name)) for name in range(4)]] == [0] * 4
    assert finish(log) == 0
    lines = messages(tmp_path)
    for name in range(4):
        sent = re.compile(rf'm name={name} number=(\d+) args=\["x*"\]')
        numbers = [int(match[1]) for match in map(sent.fullmatch, lines) if match]
        assert numbers == sorted(numbers)
    assert len(without_reports(lines)) + dropped(lines) == 2000
    assert os.geteuid() != 0 or dropped(lines) == 0  # only root gets a queue that is sure to hold all of them


def test_the_writer_ends_with_the_last_sender_and_its_lines_are_there(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wake_end, sleep_end = socket.socketpair()

    def session() -> None:
        log.in_child()
        wake_end.close()
        sleep_end.recv(1)
        log.info("last")

    pid = forked(session)
    log.info("arbiter ends")
    log.close()
    wake_end.close()
    sleep_end.close()
    assert wait(pid) == 0
    assert wait(log.writer_pid) == 0
    assert messages(tmp_path) == ["arbiter ends", "last"]


def test_signals_to_the_process_group_do_not_end_the_writer(tmp_path: Path) -> None:
    console = Console(tmp_path)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGTTOU"):
        signum = signal.Signals[name]
        os.kill(console.log.writer_pid, signum)
        console.log.info(signum.name)
        assert console.next_message() == signum.name
    assert console.finish() == []


def test_a_signal_that_comes_before_the_writer_is_ready_does_not_end_it_either(tmp_path: Path) -> None:
    for _ in range(20):
        log = opened(tmp_path)
        os.kill(log.writer_pid, signal.SIGTERM)
        assert finish(log) == 0


def test_no_handler_of_the_arbiter_runs_in_the_writer(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    previous = signal.signal(signal.SIGUSR2, lambda *_: ran.touch())
    try:
        log = opened(tmp_path / "log")
    finally:
        signal.signal(signal.SIGUSR2, previous)
    os.kill(log.writer_pid, signal.SIGUSR2)
    assert finish(log) == -signal.SIGUSR2
    assert not ran.exists()


def test_the_writer_holds_nothing_of_the_arbiter(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, open(tmp_path / "held", "w"):
        console = Console(tmp_path / "log")
        console.log.info("m")
        console.next_message()
        directory = Path(f"/proc/{console.log.writer_pid}")
        held = sorted(os.readlink(path) for path in (directory / "fd").iterdir())
        assert held[:2] == ["/dev/null", "/dev/null"]
        assert held[2] == str(tmp_path / "log" / "build-service.log")
        assert [re.sub(r"\d+", "", name) for name in held[3:]] == ["pipe:[]"] * 5 + ["socket:[]"]
        assert f"socket:[{os.fstat(listener.fileno()).st_ino}]" not in held
        assert os.readlink(directory / "cwd") == "/"
        assert re.search(r"^Umask:\s*0077$", (directory / "status").read_text(), re.MULTILINE)
        console.finish()


# a writer that does not write


def test_a_stopped_writer_blocks_no_sender_and_reports_exactly_what_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 64 << 10)
    log = opened(tmp_path)
    stop(log.writer_pid)

    def session() -> None:
        log.in_child()
        for number in range(5000):
            log.info("from a session", number=number)

    pids = [forked(session) for _ in range(2)]
    for number in range(5000):
        log.info("from the arbiter", number=number)
    assert [wait(pid) for pid in pids] == [0, 0]
    os.kill(log.writer_pid, signal.SIGCONT)
    assert finish(log) == 0
    lines = messages(tmp_path)
    assert 0 < len(without_reports(lines)) < 15000
    assert len(without_reports(lines)) + dropped(lines) == 15000


def test_drops_are_reported_while_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 4096)
    console = Console(tmp_path)
    stop(console.log.writer_pid)
    for _ in range(100):
        console.log.info("m")
    os.kill(console.log.writer_pid, signal.SIGCONT)
    written = 0
    while (message := console.next_message()) == "m":
        written += 1
    assert message == f"{100 - written} log lines dropped"
    console.finish()


def test_more_drops_than_can_be_counted_are_reported_as_at_least_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_channel, "QUEUE_BYTES", 4096)
    monkeypatch.setattr(log_channel, "DROP_PIPE_BYTES", 4096)
    log = opened(tmp_path)
    stop(log.writer_pid)
    for _ in range(6000):
        log.info("m")
    os.kill(log.writer_pid, signal.SIGCONT)
    finish(log)
    assert [line for line in messages(tmp_path) if line != "m"] == ["at least 4096 log lines dropped"]


def test_a_killed_writer_is_replaced_and_loses_nothing_that_was_queued(tmp_path: Path) -> None:
    log = opened(tmp_path)
    stop(log.writer_pid)
    log.info("to the first writer")
    os.kill(log.writer_pid, signal.SIGKILL)
    assert wait(log.writer_pid) == -signal.SIGKILL

    def session() -> None:
        log.in_child()
        log.info("from a session while there is no writer")

    assert wait(forked(session)) == 0
    first = log.writer_pid
    assert log.restart_writer() == log.writer_pid != first
    log.info("to the second writer")
    assert finish(log) == 0
    assert messages(tmp_path) == [
        "to the first writer",
        "from a session while there is no writer",
        "to the second writer",
    ]


def test_without_arbiter_and_writer_a_session_goes_on_even_with_the_default_sigpipe(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wake_end, sleep_end = socket.socketpair()

    def session() -> None:
        log.in_child()
        wake_end.close()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sleep_end.recv(1)
        log.info("nobody hears this")

    pid = forked(session)
    os.kill(log.writer_pid, signal.SIGKILL)
    finish(log)
    wake_end.close()
    sleep_end.close()
    assert wait(pid) == 0


# rotation


def test_rotation_keeps_so_many_files_of_at_most_that_size(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=2000, max_files=4)
    for number in range(300):
        log.info("m", number=number)
    finish(log)
    names = [path.name for path in files(tmp_path)]
    assert names == [f"build-service.log.{number}" for number in (3, 2, 1)] + ["build-service.log"]
    assert all(1900 < path.stat().st_size <= 2000 for path in files(tmp_path)[:-1])
    assert (tmp_path / "build-service.log").stat().st_size <= 2000
    kept = messages(tmp_path)
    assert kept == [f"m number={number}" for number in range(300 - len(kept), 300)]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_single_file_begins_anew(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=1000, max_files=1)
    for number in range(100):
        log.info("m", number=number)
    finish(log)
    assert [path.name for path in files(tmp_path)] == ["build-service.log"]
    assert (tmp_path / "build-service.log").stat().st_size <= 1000
    assert messages(tmp_path)[-1] == "m number=99"


def test_fewer_files_than_before_are_kept_when_the_setting_says_so(tmp_path: Path) -> None:
    for max_files in (5, 2):
        log = opened(tmp_path, max_bytes=1000, max_files=max_files)
        for _ in range(200):
            log.info("m")
        finish(log)
        assert len(files(tmp_path)) == max_files


def test_a_line_longer_than_a_file_may_be_stands_alone(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=1000, max_files=3)
    for message in ("before", "x" * 3000, "after"):
        log.info(message)
    finish(log)
    assert messages(tmp_path) == ["before", "x" * 3000, "after"]
    assert len(files(tmp_path)) == 3


def test_two_daemons_on_one_file_lose_no_line_and_rotate_once(tmp_path: Path) -> None:
    daemons = [opened(tmp_path, max_bytes=8000, max_files=1000) for _ in range(2)]

    def send(name: int) -> Callable[[], None]:
        def session() -> None:
            daemons[name].in_child()
            for number in range(1500):
                daemons[name].info("m", name=name, number=number)

        return session

    pids = [forked(send(name)) for name in range(2)]
    assert [wait(pid) for pid in pids] == [0, 0]
    assert [finish(log) for log in daemons] == [0, 0]
    lines = messages(tmp_path)
    assert len(without_reports(lines)) + dropped(lines) == 3000
    assert len(set(without_reports(lines))) == len(without_reports(lines))
    # Rotated twice for one full file, there would be one with hardly anything in it.
    assert all(path.stat().st_size > 7000 for path in files(tmp_path)[:-1])


def test_a_file_that_the_other_daemon_has_just_rotated_is_not_rotated_again(tmp_path: Path) -> None:
    one, other = (log_outputs.File(Logging(directory=str(tmp_path), max_bytes=100)) for _ in range(2))
    for file in (one, other):
        file.write(b"x" * 59 + b"\n")
    assert [path.name for path in files(tmp_path)] == ["build-service.log.1", "build-service.log"]
    one._rotate()  # it still has the file that is .1 now
    one.close()
    other.close()
    assert [path.name for path in files(tmp_path)] == ["build-service.log.1", "build-service.log"]


def test_a_lock_that_somebody_holds_does_not_stop_the_log(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=1000)
    with open(tmp_path / "build-service.log") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for number in range(100):
            log.info("m", number=number)
        finish(log)
    assert messages(tmp_path) == [f"m number={number}" for number in range(100)]


@pytest.mark.parametrize("remove", [os.unlink, lambda path: os.rename(path, f"{path}.moved"), None])
def test_a_file_that_somebody_moved_or_removed_is_made_again(
    tmp_path: Path, remove: Callable[[str], None] | None
) -> None:
    console = Console(tmp_path / "log")
    console.log.info("before")
    assert console.next_message() == "before"
    if remove:
        remove(str(tmp_path / "log" / "build-service.log"))
    else:
        shutil.rmtree(tmp_path / "log")
    console.log.info("after")
    console.finish()
    assert (tmp_path / "log" / "build-service.log").read_text().endswith(" after\n")
    assert "before" not in (tmp_path / "log" / "build-service.log").read_text()


# a log that cannot be opened


def blocked_by_a_missing_parent(directory: Path) -> str:
    directory.rmdir()
    directory.parent.rmdir()
    return "No such file or directory"


def blocked_by_a_file(directory: Path) -> str:
    directory.rmdir()
    directory.touch()
    return "Not a directory"


def blocked_by_a_directory(directory: Path) -> str:
    (directory / "build-service.log").mkdir()
    return "Is a directory"


def blocked_by_a_link(directory: Path) -> str:
    (directory / "build-service.log").symlink_to(directory / "elsewhere")
    return "it is a symbolic link"


def blocked_by_a_fifo(directory: Path) -> str:
    os.mkfifo(directory / "build-service.log")
    return "it is not a regular file"


@pytest.mark.parametrize(
    "block",
    [
        blocked_by_a_missing_parent,
        blocked_by_a_file,
        blocked_by_a_directory,
        blocked_by_a_link,
        blocked_by_a_fifo,
    ],
)
def test_a_log_that_cannot_be_opened_is_one_clear_line(tmp_path: Path, block: Callable[[Path], str]) -> None:
    directory = tmp_path / "parent" / "log"
    directory.mkdir(parents=True)
    reason = block(directory)
    with pytest.raises(logs.LogError) as caught:
        opened(directory)
    assert str(caught.value) == f"cannot open the log file {directory}/build-service.log: {reason}"


def test_a_directory_that_may_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    def user() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
        with pytest.raises(logs.LogError, match=r"^cannot open the log file [^\n]*: Permission denied$"):
            opened(tmp_path)

    pid = forked(user)
    status = wait(pid)
    tmp_path.chmod(0o700)
    assert status == 0


# a file that cannot be written


def test_a_file_at_its_limit_loses_lines_says_so_once_and_counts_them(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes write(2) fail as a full disk does, for any user."""
    console = Console(tmp_path, console=False)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stop(console.log.writer_pid)
    resource.prlimit(console.log.writer_pid, resource.RLIMIT_FSIZE, (1000, hard))
    for number in range(50):
        console.log.info("m", number=number)
    os.kill(console.log.writer_pid, signal.SIGCONT)
    complaint = console.next_message()
    assert complaint == (
        "cannot write the log file, lines are dropped "
        f'path={tmp_path}/build-service.log error="File too large"'
    )
    resource.prlimit(console.log.writer_pid, resource.RLIMIT_FSIZE, (hard, hard))
    console.log.info("again")
    assert console.finish() == []
    data = (tmp_path / "build-service.log").read_bytes()
    written, rest = data[:1000], data[1000:]
    assert rest.startswith(b"\n")  # the line that broke off at byte 1000 is ended there
    whole = written.decode().split("\n")[:-1]
    after = [match[2] for match in map(LINE.fullmatch, rest.decode().split("\n")) if match]
    assert after[-1] == "again"
    assert len(whole) + len(without_reports(after)) + dropped(after) == 51


@pytest.mark.needs_root
def test_a_full_disk_loses_lines_counts_them_and_the_log_recovers(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        str(tmp_path),
        sys.executable,
        __file__,
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def full_disk(directory: Path) -> None:
    """The test above, inside its mount namespace; `directory` is a small file system of its own."""
    console = Console(directory / "log")
    for number in range(10):
        console.log.info("m", number=number)
        assert console.next_message() == f"m number={number}"
    ballast = os.open(directory / "ballast", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(ballast, bytes(4096))
    for number in range(10, 1000):
        console.log.info("m", number=number)
    seen = [console.next_message() for _ in range(990 + 1)]
    complaints = [message for message in seen if not message.startswith("m ")]
    assert complaints == [
        "cannot write the log file, lines are dropped "
        f'path={directory}/log/build-service.log error="No space left on device"'
    ]
    os.ftruncate(ballast, 0)
    os.close(ballast)
    console.log.info("m", number=1000)
    assert console.finish() == ["m number=1000"]
    # The full disk may have let a piece of one line in: it stands alone.
    lines = (directory / "log" / "build-service.log").read_text().splitlines()
    texts = [match[2] for match in map(LINE.fullmatch, lines) if match]
    assert len(lines) - len(texts) <= 1
    whole = {f"m number={number}" for number in range(1001)} & set(texts)
    assert texts[0] == "m number=0"
    assert texts[-1] == "m number=1000"
    assert 0 < dropped(texts) <= 1001 - 11
    assert len(whole) + dropped(texts) in (1001, 1002)  # 1002: the piece was a whole line of another number


# the console


def test_file_and_console_get_the_same_lines(tmp_path: Path) -> None:
    console = Console(tmp_path)
    for number in range(20):
        console.log.info("größe", number=number)
    assert console.finish() == messages(tmp_path)


def test_without_a_directory_there_is_the_console_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    console = Console(None, console=False)
    console.log.info("m")
    assert console.finish() == ["m"]
    assert list(tmp_path.iterdir()) == []


def console_pipe() -> tuple[int, int]:
    return os.pipe()


def console_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize("make", [console_pipe, console_socket, pty.openpty])
def test_a_console_that_nobody_reads_does_not_stop_the_file(
    tmp_path: Path, make: Callable[[], tuple[int, int]]
) -> None:
    reader, writer = make()
    with standard_error(writer):
        log = opened(tmp_path, console=True)
    for number in range(1000):
        log.info("m", number=number, args=["x" * 900])
    assert finish(log) == 0
    lines = messages(tmp_path)
    assert len(without_reports(lines)) + dropped(lines) == 1000
    assert os.get_blocking(writer), "the console's flags are shared with whoever started the service"
    os.close(writer)
    os.close(reader)


def test_a_console_that_went_away_does_not_stop_the_file(tmp_path: Path) -> None:
    console = Console(tmp_path)
    console.lines.close()
    for number in range(10):
        console.log.info("m", number=number)
    assert finish(console.log) == 0
    assert messages(tmp_path) == [f"m number={number}" for number in range(10)]


def test_a_console_that_is_read_again_is_told_what_it_missed() -> None:
    def writer() -> None:
        read_end, write_end = os.pipe()
        console = log_outputs.Counted(log_outputs.Console(write_end), lambda exc: None)
        for number in range(1000):
            console.put(log_channel.record("info", "m", {"number": number, "args": ["x" * 100]}))
        before = os.read(read_end, 1 << 20)
        console.put(log_channel.record("info", "read again", {}))
        after = os.read(read_end, 1 << 20).decode()
        shown = before.count(b'x"]\n')
        assert 100 < shown < 1000
        # The line that the full pipe cut is ended before the report.
        texts = [match[2] for match in map(LINE.fullmatch, after.lstrip("\n").splitlines()) if match]
        assert texts == [f"{1000 - shown} log lines dropped", "read again"]

    assert wait(forked(writer)) == 0


def test_a_regular_file_as_console_is_appended_to_where_it_stands(tmp_path: Path) -> None:
    with open(tmp_path / "stderr", "wb") as file:
        file.write(b"before\n")
        file.flush()
        with standard_error(file.fileno()):
            log = logs.start(Logging(directory="", console=True))
        log.info("m")
        finish(log)
        file.write(b"after\n")
    assert [line[-6:] for line in (tmp_path / "stderr").read_text().splitlines()] == [
        "before",
        "ice: m",
        "after",
    ]


def test_a_service_without_standard_descriptors_logs_to_its_file_only(tmp_path: Path) -> None:
    script = (
        "import sys; from buildcore.service import logs; from buildcore.core import settings\n"
        "log = logs.start(settings.Logging(directory=sys.argv[1], console=True))\n"
        "log.info('m'); log.close(); log.wait_writer()\n"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment).returncode == 0
    assert messages(tmp_path) == ["m"]


if __name__ == "__main__":
    full_disk(Path(sys.argv[1]))
