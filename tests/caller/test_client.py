"""The client against servers that a test plays on a real socket byte by byte, old, broken and silent ones."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import harness
from buildcore.core.protocol import requests
from fake_server import FakeServer

EXIT = b'{"type":"exit","code":0,"timed_out":false}\n'
OUT = b'{"type":"stdout","data":"some output\\n"}\n'
BROKEN = {
    "nothing": [],
    "a blank line": [b"\n"],
    "garbage": [b"hello\n"],
    "binary garbage": [bytes(range(256)) + b"\n"],
    "HTTP": [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    "no object": [b"[]\n"],
    "no type": [b"{}\n"],
    "a type that is no string": [b'{"type":5}\n'],
    "no code": [b'{"type":"exit"}\n'],
    "a code that is no number": [b'{"type":"exit","code":"0"}\n'],
    "a code that is true": [b'{"type":"exit","code":true}\n'],
    "output without data": [b'{"type":"stdout"}\n'],
    "data that is no string": [b'{"type":"stdout","data":[1]}\n'],
    "wrong base64": [b'{"type":"stdout","data":"x","encoding":"base64","data_b64":"A"}\n'],
    "base64 that is not ASCII": ['{"type":"stdout","data":"x","encoding":"base64","data_b64":"é"}\n'.encode()],
    "a lone surrogate": [b'{"type":"stdout","data":"\\ud800"}\n'],
    "half an event": [OUT, b'{"type":"exit","co'],
    "an exit without its line end": [OUT, EXIT[:-1]],
    "output and no exit": [OUT],
    "not UTF-8": [b'{"type":"stdout","data":"\xff"}\n'],
    "nested deeply": [b'{"type":' * 100_000 + b"\n"],
    "brackets": [b"[" * 100_000 + b"\n"],
    "a number of many digits": [b'{"type":"exit","code":' + b"9" * 100_000 + b"x}\n"],
    "a line without end": [b'{"type":"stdout","data":"' + b"x" * (1 << 20)] + [b"x" * (1 << 20)] * 7,
    "NaN": [b'{"type":"exit","code":NaN}\n'],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_breaks_the_protocol_is_one_line_and_exit_1(pieces: list[bytes], fake: FakeServer) -> None:
    out, err, code = fake.answer(*pieces)
    assert code == 1
    assert err.startswith(b"invalid response from build-service: ") and err.count(b"\n") == 1, err
    assert out == (b"some output\n" if OUT in pieces else b"")


ACCEPTED = {
    "what it does not know": ([b'{"type":"progress","percent":3}\n', OUT, EXIT], b"some output\n", 0),
    "fields it does not know": ([b'{"type":"stdout","data":"x","at":[1,{}]}\n', EXIT], b"x", 0),
    "blank lines": ([b"\r\n \n", OUT, b"\n", EXIT], b"some output\n", 0),
    "an exit of few fields": ([b'{"type":"exit","code":3}\n'], b"", 3),
    "lossy text alone": (['{"type":"stdout","data":"\ufffd"}\n'.encode(), EXIT], b"\xef\xbf\xbd", 0),
    "escapes": ([b'{"type":"stdout","data":"\\u00e9\\ud83d\\ude00\\u0000"}\n', EXIT], "é😀\0".encode(), 0),
    "base64 of nothing": ([b'{"type":"stdout","data":"?","data_b64":""}\n', EXIT], b"", 0),
    "a code that no process can have": ([b'{"type":"exit","code":300}\n'], b"", 1),
    "what comes behind the exit": ([EXIT, OUT, b"garbage"], b"", 0),
    "one byte at a time": ([bytes([byte]) for byte in OUT + EXIT], b"some output\n", 0),
}


@pytest.mark.parametrize(("pieces", "output", "code"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_answer_that_is_only_unusual_is_taken(
    pieces: list[bytes], output: bytes, code: int, fake: FakeServer
) -> None:
    assert fake.answer(*pieces) == (output, b"", code)


def test_a_timeout_of_an_old_service_is_told_with_the_seconds_that_were_asked_for(fake: FakeServer) -> None:
    process = fake.start("--timeout", "7", "make")
    connection, request = fake.accept()
    assert request["timeout_sec"] == 7
    with connection:
        connection.sendall(b'{"type":"exit","code":124,"timed_out":true}\n')
    assert process.communicate() == (b"", b"build timed out after 7s\n")
    assert process.returncode == 124


def test_a_service_that_hangs_up_on_a_long_request_is_one_line(fake: FakeServer) -> None:
    process = fake.start("make", *["x" * 100_000] * 9)
    connection, _ = fake.listener.accept()
    connection.recv(1)
    connection.close()
    _, err = process.communicate()
    assert err == b"invalid response from build-service: the connection ended before the build's exit\n"
    assert process.returncode == 1


def test_a_refusal_of_a_request_that_was_not_read_to_its_end_is_shown(fake: FakeServer) -> None:
    process = fake.start("make", *["x" * 100_000] * 9)
    connection, _ = fake.listener.accept()
    connection.sendall(b'{"type":"stderr","data":"no\\n"}\n{"type":"exit","code":1,"timed_out":false}\n')
    connection.close()
    assert process.communicate() == (b"", b"no\n")
    assert process.returncode == 1


def test_the_request_holds_what_the_protocol_says(fake: FakeServer) -> None:
    env = {"CFLAGS": "-O1", "SECRET": "x"}
    process = fake.start("--request-id", "seventeen", "make", "-j4", "é", env=env, umask=0o027)
    connection, request = fake.accept()
    with connection:
        connection.sendall(EXIT)
    process.communicate()
    sent = request.pop("env")
    assert sent["CFLAGS"] == "-O1" and "SECRET" not in sent and "HOME" not in sent
    assert request.pop("features") == ["details", "stopped"]
    assert set(request.pop("limits")) <= set(requests.LIMITS)
    root = os.stat("/")
    location = request.pop("location")
    assert location["device"] == f"{os.major(root.st_dev)}:{os.minor(root.st_dev)}"
    assert location["inode"] == str(root.st_ino)
    assert (location["mount"]["point"], set(location["mount"])) == ("/", {"device", "root", "point", "file_system"})
    assert request == {
        "schema_version": "1",
        "command": "make",
        "args": ["-j4", "é"],
        "cwd": "/",
        "request_id": "seventeen",
        "umask": "0027",
    }
    assert process.returncode == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_control_c_gets_away_from_a_service_that_says_nothing(signals: int, fake: FakeServer) -> None:
    process = fake.start()
    connection, _ = fake.accept()
    with connection:
        process.send_signal(signal.SIGINT)
        assert json.loads(connection.recv(4096)) == {"type": "cancel", "signal": "INT"}
        if signals == 2:
            process.send_signal(signal.SIGINT)
        else:
            connection.shutdown(socket.SHUT_RDWR)
        assert process.wait() == -signal.SIGINT
    assert process.communicate() == (b"", b"")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gets_away_from_a_service_that_does_not_accept(signum: signal.Signals, fake: FakeServer) -> None:
    fake.listener.listen(0)
    with ExitStack() as stack:
        waiting = []
        for _ in range(2):  # one is in the queue, the other waits to get there
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            waiting.append(caller.connect_ex(str(fake.path)))
        assert waiting[-1] != 0
        process = fake.start()
        await_connecting(process.pid)
        process.send_signal(signum)
        assert process.communicate() == (b"", b"")
        assert process.returncode == -signum


def await_connecting(pid: int) -> None:
    """Waits until the process sleeps in a full accept queue: no event tells of it, so this looks until it is so."""
    deadline = time.monotonic() + harness.PATIENCE_SEC
    while "unix_wait_for_peer" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
