"""Requests and cancellations: the caller's side writes them, the service's side reads them."""

from .. import jsontext
from ..mounts import Mount
from .lines import SCHEMA_VERSION, Lines, ProtocolError, Record
from .location import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

MAX_REQUEST_BYTES = 1 << 20
REQUEST_DEADLINE_SEC = 10.0
MAX_REQUEST_ID_CHARS = 128
MAX_UMASK = 0o777
MAX_INTEGER_DIGITS = 18
MAX_DEVICE_DIGITS = 10
MAX_INODE_DIGITS = 20
CANCEL_SIGNALS = ("HUP", "INT", "QUIT", "TERM")
PASSED_SIGNALS = ("CONT", "STOP", "USR1", "USR2", "WINCH")
MAX_NICENESS = 19
LIMITS = ("as", "core", "cpu", "data", "fsize", "nofile", "stack")
"""Resource limits by the names of setrlimit(2), without RLIMIT_."""
DESCRIPTORS = ("stdin", "stdout", "stderr")
"""What a request may bring along (SCM_RIGHTS, unix(7)); the numbers are 0, 1 and 2."""


class RequestError(ProtocolError):
    """What the caller sent is no valid request; the text is the line to refuse it with."""

    kind = "invalid_request"


class Request(Record):
    """One request: what to run, where, and what of the caller's environment goes along.

    `timeout_sec` is in seconds, `umask` an int (0 to 0o777), `env` a dict; each is None where the caller
    said nothing. `details` tells whether the caller asked for the details of `exit` (it sent `features`). With
    `check` nothing is run: the service tells whether it would be, and how. `descriptors` names those of DESCRIPTORS
    that come along, in the order in which they were sent; with `merge_output` stdout and stderr of the build are one.
    `niceness` (0 to 19) and `limits` (a dict by names of LIMITS) bound the build where they are stricter than the
    service's own. `location` is where `cwd` is to the caller's kernel; None where it did not say.
    """

    __slots__ = (
        "args",
        "check",
        "command",
        "cwd",
        "descriptors",
        "env",
        "features",
        "limits",
        "location",
        "merge_output",
        "niceness",
        "request_id",
        "timeout_sec",
        "umask",
    )

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
        descriptors: "Sequence[str]" = (),
        merge_output: bool = False,
        niceness: int = 0,
        limits: "Optional[Mapping[str, int]]" = None,
        location: "Optional[Location]" = None,
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
        self.descriptors = tuple(descriptors)
        self.merge_output = merge_output
        self.niceness = niceness
        self.limits = dict(limits or {})
        self.location = location

    @property
    def details(self) -> bool:
        return self.features is not None


class Cancel(Record):
    """The caller asks to end its build; `signal` (HUP, INT, QUIT or TERM) is what the build hears first."""

    __slots__ = ("signal",)

    def __init__(self, signal: str) -> None:
        self.signal = signal


class Signal(Record):
    """The caller passes a signal on, one of PASSED_SIGNALS; the build goes on, or stands still from STOP to CONT."""

    __slots__ = ("signal",)

    def __init__(self, signal: str) -> None:
        self.signal = signal


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
    if request.descriptors:
        fields["descriptors"] = list(request.descriptors)
    if request.merge_output:
        fields["merge_output"] = True
    if request.niceness:
        fields["niceness"] = request.niceness
    if request.limits:
        fields["limits"] = request.limits
    if request.location is not None:
        fields["location"] = request.location.fields()
    if request.check:
        fields = {"schema_version": SCHEMA_VERSION, "check": fields}  # no command: an older service runs nothing
    line = jsontext.encode(fields, ascii_only=True).encode("ascii") + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise RequestError(_too_long())
    return line


def encode_cancel(signal: str = "TERM") -> bytes:
    """Return the line that asks to end the build; `signal` is one of CANCEL_SIGNALS."""
    return b'{"type":"cancel","signal":"' + signal.encode("ascii") + b'"}\n'


def encode_signal(signal: str) -> bytes:
    """Return the line that passes a signal on; `signal` is one of PASSED_SIGNALS."""
    return b'{"type":"signal","signal":"' + signal.encode("ascii") + b'"}\n'


class RequestReader:
    """Takes the bytes that a caller sends; gives its one request, then its cancellations and signals.

    After the request, lines that are neither are skipped: a later version may say more there.
    """

    def __init__(self) -> None:
        self._lines = Lines(MAX_REQUEST_BYTES)
        self._got_request = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came from the caller."""
        self._lines.feed(data)

    def next_event(self) -> "Union[Request, Cancel, Signal, None]":
        """Return the request, or what the caller says next, None when more bytes are needed.

        Raises RequestError with the line to refuse the caller with.
        """
        for line in self._lines:
            if not self._got_request:
                self._got_request = True  # also when it is refused: what follows is no second try
                if line is None:
                    raise RequestError(_too_long())
                return parse_request(line)
            said = _parse_said(line)
            if said is not None:
                return said
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
        _strings(fields.get("args"), "args") or [],
        cwd,
        _timeout(fields.get("timeout_sec")),
        _request_id(fields.get("request_id")),
        _env(fields.get("env")),
        _umask(fields.get("umask")),
        _strings(fields.get("features"), "features"),
        check,
        _descriptors(fields.get("descriptors")),
        _flag(fields.get("merge_output"), "merge_output"),
        _niceness(fields.get("niceness")),
        _limits(fields.get("limits")),
        _location(fields.get("location")),
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


def _flag(value: object, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestError("invalid request: %s must be true or false" % name)
    return bool(value)


def _descriptors(value: object) -> "List[str]":
    names = _strings(value, "descriptors") or []
    for name in names:
        if name not in DESCRIPTORS or names.count(name) > 1:
            raise RequestError("invalid request: descriptors may hold stdin, stdout and stderr, each once")
    return names


def _niceness(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NICENESS:
        raise RequestError("invalid request: niceness must be an integer from 0 to %d" % MAX_NICENESS)
    return value


def _limits(value: object) -> "Dict[str, int]":
    """Return the limits that are known: a later version may have more."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError("invalid request: limits must be an object of integers")
    for item in value.values():
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise RequestError("invalid request: limits must be an object of integers of at least 0")
    return {name: value[name] for name in LIMITS if name in value}


def _location(value: object) -> "Optional[Location]":
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RequestError("invalid request: location must be an object")
    device, inode, mount = value.get("device"), value.get("inode"), value.get("mount")
    if not isinstance(inode, str) or not _is_number(inode, MAX_INODE_DIGITS):
        raise RequestError("invalid request: location.inode must be a string of digits")
    if mount is not None and not isinstance(mount, dict):
        raise RequestError("invalid request: location.mount must be an object")
    return Location(_device(device, "location.device"), inode, None if mount is None else _mount(mount))


def _mount(fields: "Dict[str, Any]") -> Mount:
    device = _device(fields.get("device"), "location.mount.device")
    names = {name: _text(fields.get(name), "location.mount." + name) for name in ("root", "point", "file_system")}
    for name in ("root", "point"):
        if not names[name].startswith("/"):
            raise RequestError("invalid request: location.mount.%s must be an absolute path" % name)
    return Mount(device, names["root"], names["point"], names["file_system"])


def _device(value: object, name: str) -> str:
    major, colon, minor = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not _is_number(major, MAX_DEVICE_DIGITS) or not _is_number(minor, MAX_DEVICE_DIGITS):
        raise RequestError('invalid request: %s must be a string such as "8:1"' % name)
    return major + colon + minor


def _is_number(text: str, max_digits: int) -> bool:
    return 1 <= len(text) <= max_digits and not text.strip("0123456789")


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


def _strings(value: object, name: str) -> "Optional[List[str]]":
    if value is None:
        return None
    if not isinstance(value, list):
        raise RequestError("invalid request: %s must be a list of strings" % name)
    return [_text(item, "%s[%d]" % (name, index)) for index, item in enumerate(value)]


def _parse_said(line: "Optional[bytes]") -> "Union[Cancel, Signal, None]":
    """Return the cancellation or the signal that `line` holds, None for anything else."""
    try:
        fields = _parse_object(line or b"")
    except RequestError:
        return None
    kind, signal = fields.get("type"), fields.get("signal")
    if kind == "signal" and signal in PASSED_SIGNALS:
        return Signal(signal)
    if kind != "cancel":
        return None
    return Cancel(signal if signal in CANCEL_SIGNALS else "TERM")
