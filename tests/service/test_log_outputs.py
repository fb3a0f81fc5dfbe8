"""Where the log goes: files that are rotated, moved, full or not to be opened, and consoles that nobody reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from buildcore.core.settings import Logging
from buildcore.service import log_channel, log_outputs, logs
from own_log import (
    LINE,
    Console,
    dropped,
    files,
    finish,
    forked,
    messages,
    opened,
    standard_error,
    stop,
    wait,
    without_reports,
)

NOBODY = 65534


# --- rotation -----------------------------------------------------------------------------------------------------


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


# --- a log that cannot be opened ----------------------------------------------------------------------------------


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


# --- a file that cannot be written --------------------------------------------------------------------------------


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


# --- the console --------------------------------------------------------------------------------------------------


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
