"""JSON text in and out (RFC 8259), at a fraction of the start-up cost of the `json` package.

The client starts once for every `make` in a container, and importing `json` would be a large part of that
start. `json` is a thin layer over the C module `_json`; this takes what it needs from there. Where an interpreter has
no such module (Debian's python3-minimal has neither), `jsonplain` does the same in Python.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Tuple

BLANKS = " \t\r\n"


def _no_constant(name: str) -> float:
    raise ValueError("%s is no JSON" % name)


class _Rules:
    """How a scanner reads: strictly, integers by `parse_int`, and no NaN or Infinity."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_constant = staticmethod(_no_constant)

    def __init__(self, parse_int: "Callable[[str], int]") -> None:
        self.parse_int = parse_int


try:
    from _json import encode_basestring, encode_basestring_ascii, make_scanner

    def _scan(text: str, parse_int: "Callable[[str], int]") -> "Tuple[Any, int]":
        scan = make_scanner(_Rules(parse_int))  # type: ignore[arg-type]
        try:
            return scan(text, 0)
        except SystemError:  # up to Python 3.11, _json finds the class of its errors only where json was imported
            import json.decoder  # noqa: F401

            return scan(text, 0)

except ImportError:
    from .jsonplain import encode_basestring, encode_basestring_ascii
    from .jsonplain import scan as _scan


def decode(text: str, parse_int: "Callable[[str], int]" = int) -> "Any":
    """Return the value that `text` holds; integers are made by `parse_int`.

    Raises ValueError when it is no JSON, RecursionError when it is nested more deeply than Python goes.
    """
    text = text.strip(BLANKS)
    try:
        value, end = _scan(text, parse_int)
    except StopIteration as exc:
        raise ValueError("no value at character %s" % exc.value) from None
    if end != len(text):
        raise ValueError("more text at character %d" % end)
    return value


def encode(value: object, ascii_only: bool = False) -> str:
    """Return compact JSON for dicts, lists, tuples, strings, integers, booleans and None."""
    if isinstance(value, str):
        return str(encode_basestring_ascii(value) if ascii_only else encode_basestring(value))
    if isinstance(value, dict):
        pairs = (encode(str(name), ascii_only) + ":" + encode(item, ascii_only) for name, item in value.items())
        return "{%s}" % ",".join(pairs)
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join([encode(item, ascii_only) for item in value])
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise TypeError("no JSON for %s" % type(value).__name__)
