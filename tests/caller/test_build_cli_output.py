"""What a build writes comes out of build-cli as it went in, and at once; who reads no more ends both."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from pathlib import Path

import pytest

import harness
from clients import makefile, shell, told
from daemon import Service
from harness import read_until
from wire import Gate, assert_ended, at_rest, foreign_processes, waiting_make


def test_a_line_shows_while_the_build_goes_on(service: Service) -> None:
    recipe = "@echo first; read x < gate; echo second >&2; read x < gate; printf third; read x < gate"
    makefile(service, f"all:\n\t{recipe}\n")
    with Gate(service.workspace, service.caller) as gate:
        process = service.popen("make")
        assert process.stdout and process.stderr
        for pipe, line in ((process.stdout, "first\n"), (process.stderr, "second\n"), (process.stdout, "third")):
            assert read_until(pipe.fileno(), line) == line
            assert process.poll() is None
            gate.open()
        assert process.communicate() == (b"", b"")
        assert process.returncode == 0


def test_every_byte_value_comes_out_as_it_went_in(service: Service) -> None:
    data = bytes(range(256)) * 3 + b"\xc3" + b"\xf0\x9f\x98\x80\xf0\x9f" + b"\xed\xa0\x80\n\r\n\0"
    (service.workspace / "data").write_bytes(data)
    makefile(service, "all:\n\t@cat data; cat data >&2\n")
    done = service.run("make")
    assert done.stdout.encode("utf-8", "surrogateescape") == data
    assert done.stderr.encode("utf-8", "surrogateescape") == data


def test_a_character_that_is_written_in_pieces_is_not_lost_nor_held_back_at_the_end(service: Service) -> None:
    makefile(service, "all:\n\t@printf '\\303'; read x < gate; printf '\\251'; read x < gate; printf '\\342\\202'\n")
    with Gate(service.workspace, service.caller) as gate:
        gate.open(2)
        assert service.run("make").stdout == "é" + "\udce2\udc82"


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_fifty_megabytes_come_through_unchanged_and_in_order(kind: str, service: Service) -> None:
    path = service.workspace / "big"
    if kind == "binary":
        path.write_bytes(random.Random(17).randbytes(50 << 20))
    else:
        path.write_text("".join(f"gcc -c -o größe{number}.o größe{number}.c\n" for number in range(1_200_000)))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    harness.give(path, service.caller)
    makefile(service, "all:\n\t@cat big\n\t@tail -c 1000000 big >&2\n")
    tail = path.read_bytes()[-1_000_000:]
    with open(service.daemon.directory / "out", "w+b") as out, open(service.daemon.directory / "err", "w+b") as err:
        done = service.run("make", stdout=out, stderr=err)
        out.seek(0)
        err.seek(0)
        assert hashlib.sha256(out.read()).hexdigest() == expected
        assert err.read() == tail
    assert done.returncode == 0
    path.unlink()


def test_bytes_that_are_no_utf8_reach_the_build_in_arguments_directory_and_environment(service: Service) -> None:
    odd = b"d\xff\xe9 \xc3\xa9"
    directory = os.path.join(os.fsencode(service.workspace), odd)
    os.makedirs(directory, exist_ok=True)
    recipe = "all:\n\t@printf '%s|' '$(VAR)' \"$$CFLAGS\" \"$$PWD\" \"$${PWD##*/}\"; basename \"`pwd`\"\n"
    with open(os.path.join(directory, b"Makefile"), "w") as file:
        file.write(recipe)
    for locale in ("C", "C.UTF-8", "POSIX"):
        env = {"CFLAGS": os.fsdecode(b"-D\xe9=\xc3\xa9"), "LC_ALL": locale}
        done = service.run("make", os.fsdecode(b"VAR=\xfe\x80\xc3\xa9"), cwd=Path(os.fsdecode(directory)), env=env)
        out = done.stdout.encode("utf-8", "surrogateescape")
        real = os.path.realpath(directory)
        assert out == b"\xfe\x80\xc3\xa9|-D\xe9=\xc3\xa9|" + real + b"|" + odd + b"|" + odd + b"\n", done
        assert (done.stderr, done.returncode) == ("", 0)


def test_a_reader_that_goes_away_ends_the_client_quietly_and_the_build_with_it(service: Service) -> None:
    makefile(service, "all:\n\t@echo make $$PPID waits; yes\n")
    process = service.popen("--request-id", "headless", "make")
    assert process.stdout and process.stderr
    make = waiting_make(read_until(process.stdout.fileno(), "waits\n"))
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == -signal.SIGPIPE
    process.stderr.close()
    assert_ended(make)
    service.daemon.await_log("build cancelled .*request_id=headless")
    assert not foreign_processes(service.daemon)


def test_head_gets_its_line_and_the_shell_sees_sigpipe(one: Service) -> None:
    makefile(one, "all:\n\t@echo first; yes\n")
    done = shell(one, "{ CLIENT make; echo $? >&2; } | head -n 1")
    assert told(done) == ("first\n", f"{128 + signal.SIGPIPE}\n", 0)
    one.daemon.await_log("build cancelled ")


def test_a_full_disk_is_one_line_and_ends_the_build(one: Service) -> None:
    makefile(one, "all:\n\t@echo first; yes\n")
    done = shell(one, "CLIENT make > /dev/full")
    assert told(done) == ("", "build-cli: No space left on device\n", 1)
    one.daemon.await_log("build cancelled ")
    assert at_rest(one.daemon)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_no_traceback(closed: str, one: Service) -> None:
    makefile(one, "all:\n\t@echo out; echo err >&2\n")
    done = shell(one, f"CLIENT make {closed}")
    if ">&-" in closed.split():
        assert told(done) == ("", "build-cli: Bad file descriptor\n" * ("2>&-" not in closed), 1)
    elif "2>&-" in closed:
        assert done.returncode == 1 and done.stderr == ""
    else:
        assert told(done) == ("out\n", "err\n", 0)
    assert at_rest(one.daemon)


def test_a_stdout_that_does_not_block_gets_every_byte(one: Service) -> None:
    makefile(one, "all:\n\t@head -c 3000000 /dev/zero; echo end >&2\n")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = one.popen("make", stdout=writer)
    os.close(writer)
    with open(reader, "rb") as output:
        assert len(output.read()) == 3_000_000
    assert process.communicate() == (None, b"end\n")
    assert process.returncode == 0
