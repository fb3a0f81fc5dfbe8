"""What `jsontext` takes from the C module `_json`, in plain Python, for interpreters that have no such module.

Same names, same values, same errors (ValueError; the words differ). `jsontext` imports it where it must; it is pure.
"""

import re
from typing import Any, Callable, Dict, List, Tuple

_BLANKS = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_CHUNK = re.compile(r'[^"\\\x00-\x1f]*')
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_TO_ESCAPE = {ord(char): "\\" + name for name, char in _ESCAPED.items() if name != "/"}
_ESCAPES = {**{code: "\\u%04x" % code for code in range(0x20)}, **_TO_ESCAPE}
_LITERALS = (("true", True), ("false", False), ("null", None))


def encode_basestring(text: str) -> str:
    """Return a JSON string with only that escaped which must be."""
    return '"%s"' % text.translate(_ESCAPES)


def encode_basestring_ascii(text: str) -> str:
    """Return a JSON string in ASCII."""
    return re.sub(r"[^ -~]", _escape_one, encode_basestring(text))


def _escape_one(match: "re.Match[str]") -> str:
    code = ord(match.group())
    if code < 0x10000:
        return "\\u%04x" % code
    code -= 0x10000
    return "\\u%04x\\u%04x" % (0xD800 | code >> 10, 0xDC00 | code & 0x3FF)


def scan(text: str, parse_int: Callable[[str], int], at: int = 0) -> Tuple[Any, int]:
    """Return the value that begins at the character `at`, and where it ends.

    Raises ValueError, and RecursionError where it is nested more deeply than Python goes.
    """
    first = text[at : at + 1]
    if first == '"':
        return _string(text, at + 1)
    if first == "{":
        return _object(text, parse_int, at + 1)
    if first == "[":
        return _array(text, parse_int, at + 1)
    for name, value in _LITERALS:
        if text.startswith(name, at):
            return value, at + len(name)
    number = _NUMBER.match(text, at)
    if number is None:
        raise _error("no value", at)
    whole, fraction, exponent = number.groups()
    if fraction or exponent:
        return float(number.group()), number.end()
    return parse_int(whole), number.end()


def _error(what: str, at: int) -> ValueError:
    return ValueError("%s at character %d" % (what, at))


def _skip(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _string(text: str, at: int) -> Tuple[str, int]:
    pieces: List[str] = []
    while True:
        chunk = _CHUNK.match(text, at)
        assert chunk is not None  # it matches the empty string as well
        pieces.append(chunk.group())
        at = chunk.end()
        end = text[at : at + 1]
        if end == '"':
            return "".join(pieces), at + 1
        if end != "\\":
            raise _error("a string without end or with a control character", at)
        piece, at = _escape(text, at + 1)
        pieces.append(piece)


def _escape(text: str, at: int) -> Tuple[str, int]:
    name = text[at : at + 1]
    if name in _ESCAPED:
        return _ESCAPED[name], at + 1
    if name != "u":
        raise _error("an unknown escape", at)
    code, at = _code(text, at + 1)
    if 0xD800 <= code < 0xDC00 and text.startswith("\\u", at):
        low, end = _code(text, at + 2)
        if 0xDC00 <= low < 0xE000:
            return chr(0x10000 + (code - 0xD800 << 10 | low - 0xDC00)), end
    return chr(code), at


def _code(text: str, at: int) -> Tuple[int, int]:
    digits = _HEXADECIMAL.match(text, at)
    if digits is None:
        raise _error("an invalid \\u escape", at)
    return int(digits.group(), 16), digits.end()


def _array(text: str, parse_int: Callable[[str], int], at: int) -> Tuple[List[Any], int]:
    items: List[Any] = []
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        return items, at + 1
    while True:
        item, at = scan(text, parse_int, at)
        items.append(item)
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return items, at + 1
        at = _expect(text, ",", at)


def _object(text: str, parse_int: Callable[[str], int], at: int) -> Tuple[Dict[str, Any], int]:
    fields: Dict[str, Any] = {}
    at = _skip(text, at)
    if text[at : at + 1] == "}":
        return fields, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise _error("no name", at)
        name, at = _string(text, at + 1)
        at = _expect(text, ":", _skip(text, at))
        fields[name], at = scan(text, parse_int, at)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return fields, at + 1
        at = _expect(text, ",", at)


def _expect(text: str, mark: str, at: int) -> int:
    """Return where the next thing begins, behind `mark` and blanks."""
    if text[at : at + 1] != mark:
        raise _error("no '%s'" % mark, at)
    return _skip(text, at + 1)
