"""How values are spelled in a log line, so that one record is always one printable line.

Whatever a caller or a build sent may end up in the log: newlines that would forge a second record, escape
sequences that would steer the terminal of whoever reads it, bidirectional controls that show a text in
another order than it has, bytes that are no UTF-8. This module turns all of it into printable text of a
bounded length. `log_channel` calls it for every record; anything else that shows foreign text may use `escape`. `parse`
reads a line back: nobody else should look for fields in one, as a value may hold what looks like another field. It is
pure: values in, text out, and it must never raise on a value because of what is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from time import gmtime, strftime
from typing import NamedTuple

MAX_LINE_BYTES = 8192
"""The longest line, its newline included, in bytes of UTF-8."""

SHORT_LINE_BYTES = 768
"""A line of a build that is written shortened: room for what tells it, and for MIN_VALUE_BYTES of each long value."""

MAX_FIELDS = 32
"""Fields in one line; the line says how many more there were."""

MAX_NAME_BYTES = 64
"""The longest target or field name. Were all so long, every value would still have MIN_VALUE_BYTES."""

MIN_VALUE_BYTES = 64
"""The least limit that `field` can obey: the mark that says how much was left out has to fit."""

_MAX_INTEGER_BITS = 128  # longer ones are shown in hexadecimal: str() refuses what has more than 4300 digits
_MAX_FLOAT = 1e15  # from here on three decimals say nothing, and the digits before them would fill the line


def escape(text: str) -> str:
    """Return `text` with every character that is not printable as \\xNN, \\uNNNN or \\UNNNNNNNN.

    Not printable is what str.isprintable() says: control, format (bidirectional ones too), surrogate, private
    and unassigned characters, and every separator but the plain space. A backslash stays as it is: this is
    for people to read, not to decode, and doing it twice changes nothing.
    """
    if text.isprintable():
        return text
    return text.translate({ord(each): _code(ord(each)) for each in set(text) if not each.isprintable()})


def field(value: object, limit: int = MAX_LINE_BYTES) -> str:
    """Return `value` as it stands behind `name=`, in at most `limit` (>= MIN_VALUE_BYTES) bytes of UTF-8.

    Numbers are bare, floats with three decimals. Text is bare when it is printable and has no space, quote,
    equals sign or backslash, else a JSON string. Bytes are text that may be invalid UTF-8. A list or tuple is
    a compact JSON list. Anything else is shown by its str(). What is longer than `limit` is cut, with a mark
    that says how many characters were left out.
    """
    if isinstance(value, (list, tuple)):
        return _list(value, limit)
    return _scalar(value) or _string(_text(value), limit)


def line(
    time_ms: int,
    level: str,
    target: str,
    message: str,
    fields: Mapping[str, object],
    max_bytes: int = MAX_LINE_BYTES,
) -> str:
    """Return one record as one printable line without its newline, at most `max_bytes` - 1 bytes of UTF-8.

    Less than MAX_LINE_BYTES can be kept only for so few fields that each long value has MIN_VALUE_BYTES in it.

    `time_ms` is in milliseconds since the epoch and is shown in UTC. A field that is None is left out. When
    the record is too long its longest parts are cut, the short ones stay whole. The form is the
    requirement's: `2026-01-14T12:00:00.000Z  INFO build_service: build started user=dev1 args=["-j4","all"]`.
    """
    given = [(name, value) for name, value in fields.items() if value is not None]
    shown = [(f" {_string(name, MAX_NAME_BYTES)}=", value) for name, value in given[:MAX_FIELDS]]
    head = f"{_timestamp(time_ms)} {level.upper():>5} {_fit(target, MAX_NAME_BYTES, escape)}: "
    tail = f" fields_left_out={len(given) - MAX_FIELDS}" if len(given) > MAX_FIELDS else ""
    room = max_bytes - len("\n") - _size(head) - sum(_size(name) for name, _ in shown) - _size(tail)
    sizes = [_size(_fit(message, MAX_LINE_BYTES, escape))] + [_size(field(value)) for _, value in shown]
    limit = _fair_limit(sizes, room)
    values = "".join(name + field(value, limit) for name, value in shown)
    return head + _fit(message, limit, escape) + values + tail


class Record(NamedTuple):
    """What one line of the log says. Of the fields, text is as it was logged (what was cut off is missing); numbers and
    lists are as they stand in the line."""

    time: str
    level: str
    target: str
    message: str
    fields: Mapping[str, str]


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(r"(\S+) +([A-Z]+) (\S+): ([^=]*?)(?= [^ =\"]+=|$)")
_FIELD = re.compile(rf' ([^ ="\\]+)=({_QUOTED}|\[(?:{_QUOTED}|[^]"])*\]|[^ "=\\[{{][^ "=\\]*)(?= |$)')


def parse(line: str) -> Record | None:
    """Return what `line` (without its newline) says, None when it is no whole line of `line`.

    Each field is where it is by the rules of `field`, from the first to the last; what stands inside of a value is
    none, whoever chose it.
    """
    head = _HEAD.match(line) if len(line) < MAX_LINE_BYTES else None
    if head is None:
        return None
    fields: dict[str, str] = {}
    end = head.end()
    while end < len(line):
        found = _FIELD.match(line, end)
        if found is None or found[1] in fields:
            return None
        fields[found[1]] = _unquoted(found[2])
        end = found.end()
    return Record(head[1], head[2], head[3], head[4], fields)


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _timestamp(time_ms: int) -> str:
    """Return milliseconds since the epoch as UTC in the form of RFC 3339."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{milliseconds:03}Z"


def _fair_limit(sizes: Sequence[int], room: int) -> int:
    """Return the largest size at which parts may be cut so that all together fit into `room`."""
    parts = len(sizes)
    for size in sorted(sizes):
        if size > room // parts:
            return room // parts
        room -= size
        parts -= 1
    return max(sizes)


def _code(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _json(text: str) -> str:
    """Return the inside of a JSON string, with JSON's escapes for all that is not printable."""
    inner = json.dumps(text, ensure_ascii=False)[1:-1]
    if inner.isprintable():
        return inner
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in inner)


def _scalar(value: object) -> str:
    """Return a number, a truth value or nothing as in JSON; "" for what has to be shown as text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() <= _MAX_INTEGER_BITS:
        return str(value)
    if isinstance(value, float) and abs(value) < _MAX_FLOAT:
        return f"{value:.3f}"
    return ""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return hex(value) if isinstance(value, int) else str(value)


def _string(text: str, limit: int) -> str:
    """Return `text` bare when nobody can mistake it for something else, else as a JSON string."""
    bare = text.isprintable() and text and text[0] not in "[{" and not any(mark in text for mark in " \"'=\\")
    return text if bare and _size(text) <= limit else _quoted(text, limit)


def _quoted(text: str, limit: int) -> str:
    return f'"{_fit(text, limit - 2, _json)}"'  # 2: the quotes


def _list(items: Sequence[object], limit: int) -> str:
    """Return `items` as a JSON list; what does not fit is cut, and a last item says how much is missing."""
    shown: list[str] = []
    room = limit - len("[]") + len(",")
    for item in items:
        shown.append(_item(item, MAX_LINE_BYTES))
        room -= len(",") + _size(shown[-1])
        if room < 0:
            return _cut_list(items, limit)
    return f"[{','.join(shown)}]"


def _cut_list(items: Sequence[object], limit: int) -> str:
    """Return the first of `items`, the last of these itself cut, and a mark for all that is missing."""
    rest = sum(len(_scalar(item) or _text(item)) for item in items)
    room = limit - len("[]") - _size(_quoted(_mark(rest), MAX_LINE_BYTES))
    shown: list[str] = []
    for item in items:
        if room <= MIN_VALUE_BYTES:
            break
        shown.append(_item(item, room - len(",")))
        room -= len(",") + _size(shown[-1])
        rest -= len(_scalar(item) or _text(item))
    if len(shown) < len(items):
        shown.append(_quoted(_mark(rest), MAX_LINE_BYTES))
    return f"[{','.join(shown)}]"


def _item(value: object, limit: int) -> str:
    return _scalar(value) or _quoted(_text(value), limit)


def _fit(text: str, limit: int, spell: Callable[[str], str]) -> str:
    """Return `text` as `spell` writes it, cut to at most `limit` bytes of UTF-8."""
    if len(text) <= limit:
        whole = spell(text)
        if _size(whole) <= limit:
            return whole
    room = limit - len(_mark(len(text)))
    kept: list[str] = []
    for character in text[:limit]:
        spelled = spell(character)
        room -= _size(spelled)
        if room < 0:
            break
        kept.append(spelled)
    return "".join(kept) + _mark(len(text) - len(kept))


def _mark(characters: int) -> str:
    return f"... [{characters} characters left out]"


def _size(printable: str) -> int:
    """Return the length in bytes of UTF-8; nothing that is printable is a surrogate, so it can be encoded."""
    return len(printable.encode("utf-8"))
