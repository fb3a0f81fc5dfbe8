"""What the fuzzer runs: one function for each parser, which takes any bytes and asserts what must hold for them.

`run.py` gives them what atheris makes up, test_fuzz_corpus.py what was kept of it. A target lets nothing through but
the error that the parser declares, and asserts a property besides: a round trip, the same answer for another cut of
the stream, a bound, or another implementation's answer. It must never depend on anything but its bytes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from buildcore.core import arguments, jsonplain, jsontext, keys, policy, text
from buildcore.core.arguments import Role
from buildcore.core.faults import ConfigError
from buildcore.core.protocol import events, requests
from buildcore.core.settings import GROUPS, LEVELS, Settings
from buildcore.system import config
from fuzz import in_c

LONGEST_REFUSAL_CHARS = 250
LONGEST_FAULT_CHARS = 700
"""A message has a key of at most four parts of MAX_SHOWN_CHARS, and then what is wrong, with all known names."""

DEEP = 100
"""Brackets from which on a reader may give up."""

SHARE_OF_LONG_LINES = 8
"""One log line in so many has each part repeated until they do not fit into it: that is slow."""

Reader = Any
Args = list[str]


def any_text(data: bytes) -> str:
    """The bytes as the service sees a file name: what is no UTF-8 as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


# --- the wire -----------------------------------------------------------------------------------------------------


def outcome(reader: Reader, pieces: Iterable[bytes], error: type[Exception]) -> list[Any]:
    """What a reader makes of the pieces of a stream: its events, and the text of the error that ended them."""
    taken: list[Any] = []
    try:
        for piece in pieces:
            reader.receive_data(piece)
            while (event := reader.next_event()) is not None:
                taken.append(event)
        reader.receive_eof()
        while (event := reader.next_event()) is not None:
            taken.append(event)
    except error as exc:
        taken.append(str(exc))
    return taken


def however_cut(make_reader: Callable[[], Reader], data: bytes, error: type[Exception]) -> list[Any]:
    """The outcome for `data`, which is the same whole, in two pieces and byte by byte."""
    whole = outcome(make_reader(), [data], error)
    middle = len(data) // 2
    assert outcome(make_reader(), [data[:middle], data[middle:]], error) == whole
    assert outcome(make_reader(), [data[at : at + 1] for at in range(len(data))], error) == whole
    return whole


def request_reader(data: bytes) -> None:
    """A request is fit for the rest of the service and comes back from its own line; a refusal is one short line."""
    for taken in however_cut(requests.RequestReader, data, requests.RequestError):
        if isinstance(taken, str):
            assert taken.isprintable() and len(taken) <= LONGEST_REFUSAL_CHARS
        elif isinstance(taken, requests.Cancel):
            assert taken.signal in requests.CANCEL_SIGNALS
        else:
            assert_fit(taken)
            line = requests.encode_request(taken)
            assert outcome(requests.RequestReader(), [line], requests.RequestError) == [taken]


def assert_fit(request: requests.Request) -> None:
    """What policy and launch rely on."""
    environment = [part for pair in (request.env or {}).items() for part in pair]
    for string in [request.command, request.cwd, *request.args, *environment, *(request.features or ())]:
        assert b"\0" not in string.encode("utf-8", "surrogateescape")
    assert request.command and request.cwd.startswith("/")
    assert request.timeout_sec is None or 1 <= request.timeout_sec < 10**requests.MAX_INTEGER_DIGITS
    assert request.umask is None or 0 <= request.umask <= requests.MAX_UMASK
    assert request.request_id is None or request.request_id.isprintable()
    assert len(request.request_id or "") <= requests.MAX_REQUEST_ID_CHARS


def event_reader(data: bytes) -> None:
    """An event is fit for the client and comes back from its own line; at most one `exit`, and nothing behind it."""
    taken = however_cut(events.EventReader, data, events.ResponseError)
    assert not any(isinstance(event, events.Exit) for event in taken[:-1])
    for event in taken:
        if isinstance(event, str):
            assert event.isprintable() and len(event) <= LONGEST_REFUSAL_CHARS
        elif isinstance(event, events.Output):
            line = events.encode_output(event.stream, event.data)
            assert outcome(events.EventReader(), [line], events.ResponseError)[0] == event
        else:
            assert 0 <= event.code <= 255
            strings = "".join([event.request_id or "", *(event.error or ()), *event.env_left_out])
            if event.check is None and not re.search("[\ud800-\udfff]", strings):
                line = events.encode_exit(event, details=True)
                assert outcome(events.EventReader(), [line], events.ResponseError) == [event]


def events_in_c(data: bytes) -> None:
    """The client in C takes the same events as the one in Python, and no sanitizer has anything to say."""
    taken = in_c.of_c(data)
    if in_c.is_comparable(data):
        assert taken == in_c.of_python(data)


def output_events(data: bytes) -> None:
    """Whatever a build writes, in whatever pieces, arrives; text arrives as text, with no character split."""
    step = 1 + (data[0] % 7 if data else 0)
    lines, rest = [], b""
    for at in range(0, len(data), step):
        rest += data[at : at + step]
        end = events.whole_characters(rest)
        assert len(rest) - 3 <= end <= len(rest)
        lines.append(events.encode_output(events.STDOUT, rest[:end]))
        rest = rest[end:]
    lines.append(events.encode_output(events.STDERR, rest))
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    taken = outcome(events.EventReader(), lines, events.ResponseError)[:-1]
    assert b"".join(event.data for event in taken) == data
    shown = "".join(json.loads(line)["data"] for line in lines)
    try:
        assert shown == data.decode("utf-8")
        assert not any(b'"data_b64"' in line for line in lines)
    except UnicodeDecodeError:
        assert any(b'"data_b64"' in line for line in lines)


# --- the arguments ------------------------------------------------------------------------------------------------


def walkers(data: bytes) -> None:
    """For each tool the paths found are there, are found again when rewritten, and nothing later changes them."""
    args = any_text(data).split("\n")
    for command in arguments.KNOWN_COMMANDS:
        found = arguments.path_arguments(command, args)
        assert all(path.value and args[path.index].startswith(path.value, path.start) for path in found)
        places = [(path.index, path.start) for path in found]
        assert places == sorted(set(places))
        assert arguments.path_arguments(command, args[:-1]) == tuple(p for p in found if p.index < len(args) - 1)
        assert_walks(arguments.directory_walks(command, found), found)
        assert_rewritten(command, args, found)
        if command in (*arguments.MAKE_COMMANDS, "cmake", "ctest"):
            assert all(path.expands_home for path in found if path.value.startswith("~"))


def assert_walks(walks: tuple[tuple[Any, ...], ...], found: tuple[Any, ...]) -> None:
    steps = [path for path in found if path.role is Role.DIRECTORY]
    assert walks
    for walk in walks:
        assert [step for step in steps if step in walk] == list(walk)


def assert_rewritten(command: str, args: Args, found: tuple[Any, ...]) -> None:
    assert arguments.rewrite(args, found, lambda path: path.value) == args
    rewritten = arguments.rewrite(args, found, lambda path: "/host/" + path.value)
    again = arguments.path_arguments(command, rewritten)
    assert [(path.index, path.start, path.role, path.option) for path in again] == [
        (path.index, path.start, path.role, path.option) for path in found
    ]
    assert [path.value for path in again] == ["/host/" + path.value for path in found]


def makeflags(data: bytes) -> None:
    """MAKEFLAGS is read back from its arguments, and only the jobserver is taken out of it."""
    flags = any_text(data)
    words = arguments.makeflags_arguments(flags)
    escaped = (re.sub(r"[\\ \t\n\v\f\r]", r"\\\g<0>", word).replace("$", "$$") for word in words)
    assert arguments.makeflags_arguments(" ".join(escaped)) == words
    stripped = policy.without_jobserver(flags)
    assert policy.without_jobserver(stripped) == stripped
    assert arguments.refers_to_variables(stripped) <= arguments.refers_to_variables(flags)
    if "\\" not in flags and "\t" not in flags:  # then blanks alone separate the words, as make writes them
        assert_only_jobserver_gone(flags.split(" "), stripped.split(" "))


def assert_only_jobserver_gone(before: Args, after: Args) -> None:
    end = before.index("--") if "--" in before else len(before)
    options = [word for word in before[:end] if not re.match(r"--jobserver-(auth|fds)(=|\Z)", word, re.DOTALL)]
    if len(options) < end:
        options = [word for word in options if word != "-j"]
    kept = options + before[end:]
    assert [word for word in after if word] == [word for word in kept if word]


# --- the configuration --------------------------------------------------------------------------------------------


def configuration(data: bytes) -> None:
    """A file gives settings, which come back when they are written down, or faults of one short line each."""
    try:
        settings = config.parse(any_text(data), "file")
    except ConfigError as exc:
        assert exc.faults
        for fault in exc.faults:
            assert fault.startswith("file: ") and fault.isprintable() and len(fault) <= LONGEST_FAULT_CHARS
    else:
        assert settings.logging.level in LEVELS and settings.build.groups in GROUPS
        assert config.parse(written(settings), "file") == settings


def written(settings: Settings) -> str:
    """The settings as a file."""
    lines = []
    for key in keys.keys():
        value: Any = settings
        for name in key.split("."):
            value = getattr(value, name)
        lines.append(f"{key} = {toml(f'{value:04o}' if key == 'service.socket_mode' else value)}\n")
    return "".join(lines)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    assert isinstance(value, int) and not dataclasses.is_dataclass(value)
    return str(value)


# --- the log ------------------------------------------------------------------------------------------------------


def log_line(data: bytes) -> None:
    """Whatever is logged is one printable line in the form of the log, no longer than the limit."""
    parts = data.split(b"\xff")
    target, message = any_text(parts[0]), any_text(parts[-1])
    times = 1 if len(data) % SHARE_OF_LONG_LINES else 1 + text.MAX_LINE_BYTES // max(len(data), 1)
    fields: dict[str, object] = {}
    for number, part in enumerate(parts[1:]):
        name, _, value = any_text(part).partition("=")
        fields[name] = (value * times, part * times, value.split(",") * times, len(part))[number % 4]
    line = text.line(len(data), "info", target, message * times, fields)
    assert line.isprintable() and len(line.encode("utf-8")) < text.MAX_LINE_BYTES
    assert re.match(r"1970-01-01T00:00:0\d\.\d{3}Z  INFO ", line)
    for shown in fields.values():
        assert len(text.field(shown, text.MIN_VALUE_BYTES).encode("utf-8")) <= text.MIN_VALUE_BYTES
    assert text.escape(text.escape(message)) == text.escape(message)
    value = text.field(message)
    assert value.startswith('"') or not re.search(r"""[ "'=\\]""", value)
    if "characters left out" not in value:
        read = json.loads(value) if value.startswith('"') else value
        assert read.encode("utf-16", "surrogatepass") == message.encode("utf-16", "surrogatepass")


# --- JSON ---------------------------------------------------------------------------------------------------------


def json_readers(data: bytes) -> None:
    """The reader in plain Python, the one on the C module and the json package agree, and so do the writers."""
    given = data.decode("utf-8", "replace")
    by_json, by_c, by_plain = (or_refused(read, given) for read in (read_by_json, jsontext.decode, read_plainly))
    if given.count("[") + given.count("{") < DEEP or "refused" not in (by_json, by_c, by_plain):
        assert by_json == by_c == by_plain
    assert jsonplain.encode_basestring_ascii(given) == jsontext.encode(given, ascii_only=True) == json.dumps(given)
    assert jsonplain.encode_basestring(given) == jsontext.encode(given) == json.dumps(given, ensure_ascii=False)


def or_refused(read: Callable[[str], Any], given: str) -> str:
    """What `read` makes of `given`, spelled so that 1, 1.0 and True differ."""
    try:
        return repr(read(given))
    except (ValueError, RecursionError):
        return "refused"


def read_by_json(given: str) -> Any:
    def refuse(name: str) -> float:
        raise ValueError(name)

    return json.loads(given, parse_constant=refuse)


def read_plainly(given: str) -> Any:
    given = given.strip(jsontext.BLANKS)
    value, end = jsonplain.scan(given, int)
    if end != len(given):
        raise ValueError("more text")
    return value


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        request_reader, event_reader, events_in_c, output_events, walkers, makeflags, configuration, log_line,
        json_readers,
    )
}
