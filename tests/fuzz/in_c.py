"""What the client in C makes of a stream of events, beside what the one in Python does."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import static_client
from buildcore.core.protocol import events


@functools.lru_cache(maxsize=None)
def _reader() -> Path:
    """The program in_c.c, with sanitizers."""
    source = Path(__file__).resolve().with_name("in_c.c")
    return static_client.compile_checked(static_client.CHECKED, "reader", source, without=("main.c", "catcher.c"))


def of_c(data: bytes) -> list[str]:
    """What the client in C makes of it, in the lines of in_c.c."""
    done = subprocess.run([_reader()], input=len(data).to_bytes(4, "big") + data, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")
    *lines, end = done.stdout.decode("ascii").splitlines()
    assert end == "end"
    return lines


def is_comparable(data: bytes) -> bool:
    """Whether both have to read it alike: what no service sends, one may refuse and the other put up with."""
    for line in data.split(b"\n")[:-1]:
        try:
            given = json.loads(line, object_pairs_hook=_Members)
        except (ValueError, RecursionError):
            continue
        strings = [*_strings(given)]
        if any(re.search("[\0\ud800-\udc7f\udd00-\udfff]", each) for each in strings):
            return False
        if isinstance(given, _Members) and not given.is_plain():
            return False
    return True


class _Members(list[tuple[str, Any]]):
    """The members of an object, in their order."""

    def is_plain(self) -> bool:
        members = dict(self)
        error = members.get("error")
        exact = members.get("data_b64")
        lists = [members.get(name) for name in ("env_left_out", "paths_left", "path_mapping")]
        mapping = lists[2]
        of_error = dict(error) if isinstance(error, _Members) else {"message": ""}
        return (
            len(members) == len(self)
            and (not isinstance(error, _Members) or len(of_error) == len(error))
            and isinstance(of_error.get("message"), str)
            and (not isinstance(exact, str) or _BASE64.fullmatch(exact) is not None)
            and not any(isinstance(each, _Members) for each in lists)
            and (not isinstance(mapping, list) or len([each for each in mapping if isinstance(each, str)]) == 2)
            and abs(_number(members.get("timeout_sec"))) < 2**63
        )


_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):  # members are pairs of a name and a value
        for each in value:
            yield from _strings(each)


def of_python(data: bytes) -> list[str]:
    """What the client in Python makes of it, in the same form; the end of the stream is no matter here."""
    reader = events.EventReader()
    reader.receive_data(data)
    lines: list[str] = []
    try:
        while (event := reader.next_event()) is not None:
            lines.append(_shown(event))
    except events.ResponseError as exc:
        lines.append(f"wrong {exc}")
    return lines


def _shown(event: events.Output | events.Stopped | events.Exit) -> str:
    if isinstance(event, events.Output):
        return f"output {2 if event.stream == events.STDERR else 1} {event.data.hex()}"
    if isinstance(event, events.Stopped):
        return "stopped"
    flags = [event.timed_out, event.beside, not event.cwd_compared]
    message = event.error[1] if event.beside and event.error else ""
    lists = [event.env_left_out, event.paths_left, event.path_mapping or ()]
    parts = [_hexadecimal(message), *(",".join(map(_hexadecimal, each)) for each in lists)]
    numbers = [event.code, *map(int, flags), event.timeout_sec or 0]
    return f"exit {' '.join(map(str, numbers))} {';'.join(parts)}"


def _hexadecimal(text: str) -> str:
    return text.partition("\0")[0].encode("utf-8", "surrogateescape").hex()
