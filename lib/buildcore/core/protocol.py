"""The wire protocol, schema version "1", without any I/O: bytes go in, requests and events come out, and back.

A caller sends one request, one JSON object on one line. The service answers with a stream of events, one JSON
object a line (NDJSON), and ends it with `exit`. While the stream runs, the caller may send one more kind of
line, `{"type":"cancel"}`. This file knows no sockets, clocks or files; whoever owns the connection feeds it.
The client imports it: it keeps to the syntax of Python 3.6 and to modules that cost little to import.

Fields that a side does not know are ignored, so that old and new sides work together. Strings may carry any
bytes of a file name: a byte that is not UTF-8 travels as the lone surrogate that Python's surrogateescape
gives it (PEP 383).
"""

import binascii

from . import jsontext
from .errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

SCHEMA_VERSION = "1"
MAX_REQUEST_BYTES = 1 << 20
REQUEST_DEADLINE_SEC = 10.0
MAX_REQUEST_ID_CHARS = 128
MAX_EVENT_BYTES = 4 << 20
"""The longest event line that a client takes: 64 KiB of output stay below it however they are escaped."""

MAX_UMASK = 0o777
MAX_INTEGER_DIGITS = 18
CANCEL_SIGNALS = ("HUP", "INT", "TERM")

STDOUT = "stdout"
STDERR = "stderr"


class ProtocolError(BuildError):
    """The other side broke the protocol."""

    kind = "protocol"


class RequestError(ProtocolError):
    """What the caller sent is no valid request; the text is the line to refuse it with."""

    kind = "invalid_request"


class ResponseError(ProtocolError):
    """What the service sent is no valid event stream."""

    kind = "invalid_response"


class _Record:
    """What requests and events have in common: equal when their fields are, and shown with them."""

    __slots__: "Tuple[str, ...]" = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ("%s=%r" % (name, getattr(self, name)) for name in self.__slots__)
        return "%s(%s)" % (type(self).__name__, ", ".join(fields))


class Request(_Record):
    """One request: what to run, where, and what of the caller's environment goes along.

    `timeout_sec` is in seconds, `umask` an int (0 to 0o777), `env` a dict; each is None where the caller
    said nothing. `details` tells whether the caller asked for the details of `exit` (it sent `features`). With
    `check` nothing is run: the service tells whether it would be, and how.
    """

    __slots__ = ("args", "check", "command", "cwd", "env", "features", "request_id", "timeout_sec", "umask")

    def __init__(
        self,
        command: str,
        args: "Sequence[str]" = (),
        cwd: str = "/",
        timeout_sec: "Optional[int]" = None,
        request_id: "Optional[str]" = None,
        env: "Optional[Mapping[str, str]]" = None,
        umask: "Optional[int]" = None,
        features: "Optional[Sequence[str]]" = None,
        check: bool = False,
    ) -> None:
        self.command = command
        self.args = tuple(args)
        self.cwd = cwd
        self.timeout_sec = timeout_sec
        self.request_id = request_id
        self.env = None if env is None else dict(env)
        self.umask = umask
        self.features = None if features is None else tuple(features)
        self.check = check

    @property
    def details(self) -> bool:
        return self.features is not None


class Cancel(_Record):
    """The caller asks to end its build; `signal` (INT, TERM or HUP) is what the build hears first."""

    __slots__ = ("signal",)

    def __init__(self, signal: str) -> None:
        self.signal = signal


class Output(_Record):
    """Bytes that the build wrote to `stream`, STDOUT or STDERR."""

    __slots__ = ("data", "stream")

    def __init__(self, stream: str, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Exit(_Record):
    """The end of a build: the exit code (0 to 255) and how it came about.

    `signal` is the number of the signal that ended the build, `duration_ms` milliseconds, `timeout_sec` the
    timeout in force in seconds, `error` a (kind, message) pair where the service itself ended or refused the
    build, `check` a dict that says how a request that was only checked would be run. They are None where the
    service did not say.
    """

    __slots__ = ("check", "code", "duration_ms", "error", "request_id", "signal", "timed_out", "timeout_sec")

    def __init__(
        self,
        code: int,
        timed_out: bool = False,
        signal: "Optional[int]" = None,
        duration_ms: "Optional[int]" = None,
        timeout_sec: "Optional[int]" = None,
        request_id: "Optional[str]" = None,
        error: "Optional[Tuple[str, str]]" = None,
        check: "Optional[Dict[str, Any]]" = None,
    ) -> None:
        self.code = code
        self.timed_out = timed_out
        self.signal = signal
        self.duration_ms = duration_ms
        self.timeout_sec = timeout_sec
        self.request_id = request_id
        self.error = error
        self.check = check


# --- requests: the caller's side writes them, the service's side reads them ---------------------------------


def encode_request(request: Request) -> bytes:
    """Return the line that carries `request`; raises RequestError when it is longer than the service takes."""
    fields: "Dict[str, Any]" = {
        "schema_version": SCHEMA_VERSION,
        "command": request.command,
        "args": list(request.args),
        "cwd": request.cwd,
    }
    if request.timeout_sec is not None:
        fields["timeout_sec"] = request.timeout_sec
    if request.request_id is not None:
        fields["request_id"] = request.request_id
    if request.env is not None:
        fields["env"] = request.env
    if request.umask is not None:
        fields["umask"] = "%04o" % request.umask
    if request.features is not None:
        fields["features"] = list(request.features)
    if request.check:
        fields = {"schema_version": SCHEMA_VERSION, "check": fields}  # no command: an older service runs nothing
    line = jsontext.encode(fields, ascii_only=True).encode("ascii") + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise RequestError(_too_long())
    return line


def encode_cancel(signal: str = "TERM") -> bytes:
    """Return the line that asks to end the build; `signal` is one of CANCEL_SIGNALS."""
    return b'{"type":"cancel","signal":"' + signal.encode("ascii") + b'"}\n'


class RequestReader:
    """Takes the bytes that a caller sends; gives its one request, then its cancellations.

    After the request, lines that are no cancellation are skipped: a later version may say more there.
    """

    def __init__(self) -> None:
        self._lines = _Lines(MAX_REQUEST_BYTES)
        self._got_request = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came from the caller."""
        self._lines.feed(data)

    def next_event(self) -> "Union[Request, Cancel, None]":
        """Return the request or the next cancellation, None when more bytes are needed.

        Raises RequestError with the line to refuse the caller with.
        """
        for line in self._lines:
            if not self._got_request:
                self._got_request = True  # also when it is refused: what follows is no second try
                if line is None:
                    raise RequestError(_too_long())
                return parse_request(line)
            cancel = _parse_cancel(line)
            if cancel is not None:
                return cancel
        return None

    def receive_eof(self) -> None:
        """Tell that the caller will send no more; raises RequestError when there was no whole request.

        A request that ends at the end of the stream instead of at a newline is whole.
        """
        if not self._got_request:
            if self._lines.pending:
                self._lines.feed(b"\n")
            else:
                raise RequestError("invalid request: empty")


def parse_request(line: bytes) -> Request:
    """Return the request that `line` holds (without its newline); raises RequestError naming the field."""
    fields = _parse_object(line)
    version = fields.get("schema_version")
    if version is not None and version != SCHEMA_VERSION:
        shown, served = _shown(version), _shown(SCHEMA_VERSION)
        raise RequestError("unsupported schema_version %s: this service serves %s" % (shown, served))
    check = fields.get("check") is not None
    if check:
        fields = fields["check"]
        if not isinstance(fields, dict):
            raise RequestError("invalid request: check must be an object")
    command = _string(fields, "command")
    cwd = _string(fields, "cwd")
    if not command:
        raise RequestError("invalid request: command must not be empty")
    if not cwd.startswith("/"):
        raise RequestError("invalid request: cwd must be an absolute path")
    return Request(
        command,
        _args(fields.get("args")),
        cwd,
        _timeout(fields.get("timeout_sec")),
        _request_id(fields.get("request_id")),
        _env(fields.get("env")),
        _umask(fields.get("umask")),
        _features(fields.get("features")),
        check,
    )


def _too_long() -> str:
    return "invalid request: longer than %d bytes" % MAX_REQUEST_BYTES


def _parse_object(line: bytes) -> "Dict[str, Any]":
    try:
        value = jsontext.decode(line.decode("utf-8"), _bounded_int)
    except UnicodeDecodeError:
        raise RequestError("invalid request: not UTF-8") from None
    except RecursionError:
        raise RequestError("invalid request: nested too deeply") from None
    except ValueError as exc:
        reason = "empty" if not line.strip() else "not JSON (%s)" % exc
        raise RequestError("invalid request: %s" % reason) from None
    if not isinstance(value, dict):
        raise RequestError("invalid request: not a JSON object")
    return value


def _bounded_int(digits: str) -> int:
    """Return the int; a number that no field could hold is refused before int() spends its time on it."""
    if len(digits) > MAX_INTEGER_DIGITS:
        raise ValueError("a number of %d digits" % len(digits))
    return int(digits)


def _shown(value: object) -> str:
    if not isinstance(value, (str, int)):
        return "of another type"
    text = jsontext.encode(value, ascii_only=True)
    return text if len(text) <= 40 else text[:37] + "..."


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RequestError("invalid request: %s must be a string" % name)
    if "\0" in value:
        raise RequestError("invalid request: %s holds a NUL" % name)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise RequestError("invalid request: %s holds an unpaired surrogate" % name) from None
    return value


def _string(fields: "Mapping[str, Any]", name: str) -> str:
    if fields.get(name) is None:
        raise RequestError("invalid request: %s is missing" % name)
    return _text(fields[name], name)


def _args(value: object) -> "List[str]":
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError("invalid request: args must be a list of strings")
    return [_text(item, "args[%d]" % index) for index, item in enumerate(value)]


def _timeout(value: object) -> "Optional[int]":
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError("invalid request: timeout_sec must be an integer of at least 1")
    return value


def _request_id(value: object) -> "Optional[str]":
    if value is None or value == "":
        return None
    text = _text(value, "request_id")
    if len(text) > MAX_REQUEST_ID_CHARS or not text.isprintable():
        raise RequestError(
            "invalid request: request_id must be at most %d printable characters" % MAX_REQUEST_ID_CHARS
        )
    return text


def _env(value: object) -> "Optional[Dict[str, str]]":
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RequestError("invalid request: env must be an object of strings")
    env = {}
    for name, item in value.items():
        _text(name, "a name in env")
        env[name] = _text(item, "env[%s]" % _shown(name))
    return env


def _umask(value: object) -> "Optional[int]":
    if value is None:
        return None
    text = value if isinstance(value, str) else ""
    if not 1 <= len(text) <= 4 or text.strip("01234567") or int(text, 8) > MAX_UMASK:
        raise RequestError('invalid request: umask must be an octal string such as "0022"')
    return int(text, 8)


def _features(value: object) -> "Optional[List[str]]":
    if value is None:
        return None
    if not isinstance(value, list):
        raise RequestError("invalid request: features must be a list of strings")
    return [_text(item, "features[%d]" % index) for index, item in enumerate(value)]


def _parse_cancel(line: "Optional[bytes]") -> "Optional[Cancel]":
    """Return the cancellation that `line` holds, None for anything else."""
    try:
        fields = _parse_object(line or b"")
    except RequestError:
        return None
    if fields.get("type") != "cancel":
        return None
    signal = fields.get("signal")
    return Cancel(signal if signal in CANCEL_SIGNALS else "TERM")


# --- events: the service's side writes them, the client's side reads them -----------------------------------


def encode_output(stream: str, data: bytes) -> bytes:
    """Return the line that carries `data`, written by the build to `stream` (STDOUT or STDERR).

    Bytes that are not UTF-8 go along as base64, beside the lossy text for clients that only know `data`.
    """
    try:
        text, exact = data.decode("utf-8"), None
    except UnicodeDecodeError:
        text, exact = data.decode("utf-8", "replace"), binascii.b2a_base64(data, newline=False).decode("ascii")
    line = '{"type":"%s","data":%s' % (stream, jsontext.encode(text))
    if exact is not None:
        line += ',"encoding":"base64","data_b64":"%s"' % exact
    return (line + "}\n").encode("utf-8")


def encode_exit(exit_: Exit, details: bool = False) -> bytes:
    """Return the line that ends a stream; `details` adds the fields beyond `code` and `timed_out`."""
    fields: "Dict[str, Any]" = {"type": "exit", "code": exit_.code, "timed_out": exit_.timed_out}
    if details:
        for name in ("signal", "duration_ms", "timeout_sec", "request_id"):
            if getattr(exit_, name) is not None:
                fields[name] = getattr(exit_, name)
        if exit_.check is not None:
            fields["check"] = exit_.check
        if exit_.error is not None:
            fields["error"] = {"kind": exit_.error[0], "message": exit_.error[1]}
    return jsontext.encode(fields).encode("utf-8", "replace") + b"\n"


def whole_characters(data: bytes) -> int:
    """Return how many bytes of `data` come before a UTF-8 character that its end cuts off (RFC 3629).

    The rest, at most 3 bytes, waits for the next read, so that no character is split between two events.
    """
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        need = 2 if 0xC2 <= byte <= 0xDF else 3 if 0xE0 <= byte <= 0xEF else 4 if 0xF0 <= byte <= 0xF4 else 1
        return len(data) - back if need > back else len(data)
    return len(data)


class EventReader:
    """Takes the bytes that a service sends; gives the events of the stream up to its `exit`."""

    def __init__(self) -> None:
        self._lines = _Lines(MAX_EVENT_BYTES)
        self._ended = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came from the service."""
        self._lines.feed(data)

    def next_event(self) -> "Union[Output, Exit, None]":
        """Return the next event, None when more bytes are needed or the stream has ended.

        Events of types that this version does not know are skipped. Raises ResponseError.
        """
        if self._ended:
            return None
        for line in self._lines:
            event = _parse_event(line)
            if isinstance(event, Exit):
                self._ended = True
            if event is not None:
                return event
        return None

    def receive_eof(self) -> None:
        """Tell that the service closed the connection; raises ResponseError when `exit` had not come."""
        if not self._ended:
            raise ResponseError("the connection ended before the build's exit")


def _parse_event(line: "Optional[bytes]") -> "Union[Output, Exit, None]":
    if line is None:
        raise ResponseError("an event longer than %d bytes" % MAX_EVENT_BYTES)
    if not line.strip():
        return None
    try:
        fields = jsontext.decode(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ResponseError("an event that is not JSON") from None
    if not isinstance(fields, dict):
        raise ResponseError("an event that is not a JSON object")
    kind = fields.get("type")
    if kind == STDOUT or kind == STDERR:
        return Output(kind, _output_bytes(fields))
    if kind == "exit":
        return _parse_exit(fields)
    if not isinstance(kind, str):
        raise ResponseError("an event without a type")
    return None


def _output_bytes(fields: "Mapping[str, Any]") -> bytes:
    data, exact = fields.get("data"), fields.get("data_b64")
    try:
        if isinstance(exact, str):
            return binascii.a2b_base64(exact.encode("ascii"))
        if isinstance(data, str):
            return data.encode("utf-8", "surrogateescape")
    except ValueError:  # binascii.Error and UnicodeEncodeError are both ValueErrors
        pass
    raise ResponseError("an output event without usable data")


def _parse_exit(fields: "Mapping[str, Any]") -> Exit:
    code, error, request_id = fields.get("code"), fields.get("error"), fields.get("request_id")
    check = fields.get("check")
    if not isinstance(code, int) or isinstance(code, bool):
        raise ResponseError("an exit event without a code")
    pair = None
    if isinstance(error, dict):
        pair = (str(error.get("kind")), str(error.get("message")))
    return Exit(
        code if 0 <= code <= 255 else 1,
        fields.get("timed_out") is True,
        _int_or_none(fields.get("signal")),
        _int_or_none(fields.get("duration_ms")),
        _int_or_none(fields.get("timeout_sec")),
        request_id if isinstance(request_id, str) else None,
        pair,
        check if isinstance(check, dict) else None,
    )


def _int_or_none(value: "Any") -> "Optional[int]":
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Lines:
    """Cuts a stream of bytes into lines of at most `limit` bytes; a longer one comes out as None."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def pending(self) -> bool:
        return bool(self._buffer.strip())

    def __iter__(self) -> "Iterator[Optional[bytes]]":
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned > self._limit:
                    del self._buffer[:]
                    self._scanned = 0
                    if not self._skipping:
                        self._skipping = True
                        yield None
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            if self._skipping:
                self._skipping = False
            elif end > self._limit:
                yield None
            else:
                yield line
