"""Events: the service's side writes them, the client's side reads them."""

import binascii

from .. import jsontext
from .lines import Lines, ProtocolError, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

MAX_EVENT_BYTES = 4 << 20
"""The longest event line that a client takes: 64 KiB of output stay below it however they are escaped."""

STDOUT = "stdout"
STDERR = "stderr"
STOPPED = "stopped"
"""The feature by which a caller asks to be told so, and the event."""

BESIDE = "beside"
"""The feature by which a caller asks for a refusal without a line on stderr where it may do without the service."""

OUTPUT = "output"
"""Both in one, in the order in which the build wrote: for those alone who asked for it (`merge_output`)."""


class ResponseError(ProtocolError):
    """What the service sent is no valid event stream."""

    kind = "invalid_response"


class Output(Record):
    """Bytes that the build wrote to `stream`: STDOUT, STDERR or OUTPUT."""

    __slots__ = ("data", "stream")

    def __init__(self, stream: str, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Stopped(Record):
    """The build stands still, as its caller asked (`requests.Signal`): for those alone who named STOPPED."""

    __slots__ = ()


class Exit(Record):
    """The end of a build: the exit code (0 to 255) and how it came about.

    `signal` is the number of the signal that ended the build, `duration_ms` milliseconds, `timeout_sec` the
    timeout in force in seconds, `error` a (kind, message) pair where the service itself ended or refused the
    build, `check` a dict that says how a request that was only checked would be run. They are None where the
    service did not say. `env_left_out` are the names of variables that the caller sent and the build had not, or not
    with that value; `paths_left` the names of arguments and variables that hold paths of the container, which the host
    knows otherwise, and `path_mapping` how: what is the first of the pair there, is the second on the host, where these
    differ. `cwd_compared` is False where nothing could tell whether the directory is the caller's. `beside` tells that
    nothing ran, and that the request is none of the service's business.
    """

    __slots__ = (
        "beside", "check", "code", "cwd_compared", "duration_ms", "env_left_out", "error", "path_mapping", "paths_left",
        "request_id", "signal", "timed_out", "timeout_sec",
    )

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
        env_left_out: "Sequence[str]" = (),
        paths_left: "Sequence[str]" = (),
        path_mapping: "Optional[Tuple[str, str]]" = None,
        cwd_compared: bool = True,
        beside: bool = False,
    ) -> None:
        self.code = code
        self.timed_out = timed_out
        self.signal = signal
        self.duration_ms = duration_ms
        self.timeout_sec = timeout_sec
        self.request_id = request_id
        self.error = error
        self.check = check
        self.env_left_out = tuple(env_left_out)
        self.paths_left = tuple(paths_left)
        self.path_mapping = path_mapping
        self.cwd_compared = cwd_compared
        self.beside = beside


def encode_output(stream: str, data: bytes) -> bytes:
    """Return the line that carries `data`, written by the build to `stream` (STDOUT, STDERR or OUTPUT).

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


def encode_stopped() -> bytes:
    """Return the line that tells that the build stands still."""
    return b'{"type":"stopped"}\n'


def encode_exit(exit_: Exit, details: bool = False) -> bytes:
    """Return the line that ends a stream; `details` adds the fields beyond `code` and `timed_out`."""
    fields: "Dict[str, Any]" = {"type": "exit", "code": exit_.code, "timed_out": exit_.timed_out}
    if details:
        for name in ("signal", "duration_ms", "timeout_sec", "request_id"):
            if getattr(exit_, name) is not None:
                fields[name] = getattr(exit_, name)
        if exit_.check is not None:
            fields["check"] = exit_.check
        if exit_.env_left_out:
            fields["env_left_out"] = list(exit_.env_left_out)
        if exit_.paths_left:
            fields["paths_left"] = list(exit_.paths_left)
        if exit_.path_mapping is not None:
            fields["path_mapping"] = list(exit_.path_mapping)
        if not exit_.cwd_compared:
            fields["cwd_compared"] = False
        if exit_.error is not None:
            fields["error"] = {"kind": exit_.error[0], "message": exit_.error[1]}
            if exit_.beside:
                fields["error"]["beside"] = True
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
        self._lines = Lines(MAX_EVENT_BYTES)
        self._ended = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came from the service."""
        self._lines.feed(data)

    def next_event(self) -> "Union[Output, Stopped, Exit, None]":
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


def _parse_event(line: "Optional[bytes]") -> "Union[Output, Stopped, Exit, None]":
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
    if kind == STDOUT or kind == STDERR or kind == OUTPUT:
        return Output(kind, _output_bytes(fields))
    if kind == STOPPED:
        return Stopped()
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
    pair, beside = None, False
    if isinstance(error, dict):
        beside = error.get("beside") is True
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
        _texts(fields.get("env_left_out")),
        _texts(fields.get("paths_left")),
        _pair(fields.get("path_mapping")),
        fields.get("cwd_compared") is not False,
        beside,
    )


def _texts(value: "Any") -> "List[str]":
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _pair(value: "Any") -> "Optional[Tuple[str, str]]":
    texts = _texts(value)
    return (texts[0], texts[1]) if len(texts) == 2 else None


def _int_or_none(value: "Any") -> "Optional[int]":
    return value if isinstance(value, int) and not isinstance(value, bool) else None
