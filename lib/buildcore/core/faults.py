"""How a fault of the configuration is told: in one line that says what was wanted, what was found, what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import BuildError

MAX_SHOWN_CHARS = 60
"""How much of a faulty name or value a message repeats."""


class ConfigError(BuildError):
    """The configuration cannot be used: `faults` holds a line for each fault, `str()` joins these lines."""

    kind = "config"

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class Refused(Exception):
    """A value that a reader refuses: pairs of a name inside it ("" for the whole value) and what is wrong."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__(faults)
        self.faults = faults


def must_be(wanted: str, value: object) -> Refused:
    """Return the refusal of a `value` that is not what is `wanted`."""
    return Refused(("", f"must be {wanted}, not {shown(value)}"))


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, short, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= MAX_SHOWN_CHARS else repr(value[:MAX_SHOWN_CHARS]) + "..."
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"  # Python may refuse to write such a number in decimal
    return str(value)


def bare_or_quoted(name: str) -> str:
    """Return a part of a dotted key about as TOML would write it."""
    bare = len(name) <= MAX_SHOWN_CHARS and re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return name if bare else shown(name)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return that of the `known` names that `name` was perhaps to be; None for none."""
    import difflib  # here, because a sound file never needs it

    return next(iter(difflib.get_close_matches(name[:MAX_SHOWN_CHARS].lower(), known, n=1)), None)
