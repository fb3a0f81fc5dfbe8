"""What a build had otherwise than its caller sent it: what of that a caller has to be told of, and in which lines.

build-cli imports this only after a build of which there is something to tell; the doctor shows all. Syntax of Python
3.6.
"""

from ..core import variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Collection, Iterable, Iterator, List, Sequence

    from ..core.protocol.events import Exit

QUIET = frozenset(
    "CLICOLOR CLICOLOR_FORCE CMAKE_COLOR_DIAGNOSTICS COLORTERM FORCE_COLOR GCC_COLORS JAVA_HOME LANG LANGUAGE"
    " NINJA_STATUS NO_COLOR PWD TERM".split()
)
"""What changes how a build looks and not what is built, or is set in every shell or image without a build in mind."""

QUIET_PREFIXES = ("LC_",)

MAX_NAMES_CHARS = 400
"""How long the names in the line may be together; some names can be of any length."""


def lines(exit_: "Exit", sent: "Iterable[str]", asked: "Collection[str]") -> "Iterator[str]":
    """Give the lines for the caller of a build that ended with `exit_`; `sent` and `asked` are as in `telling`."""
    names = telling(exit_.env_left_out, sent, asked)
    if names:
        yield line(names)
    for told in of_paths(exit_):
        yield told


def of_paths(exit_: "Exit") -> "Iterator[str]":
    """Give the lines on the directory and on paths."""
    if exit_.paths_left and exit_.path_mapping is not None:
        here, there = exit_.path_mapping
        yield "build-cli: paths of the container are left in what the host got: %s (%s here is %s there)" % (
            listed(exit_.paths_left), _printable(here), _printable(there)
        )
    if not exit_.cwd_compared:
        yield "build-cli: the host could not tell whether the directory of the build was this one"


def telling(left_out: "Iterable[str]", sent: "Iterable[str]", asked: "Collection[str]") -> "List[str]":
    """Return those of `left_out` that were sent, and were `asked` for or change what is built."""
    known = {_on_the_wire(name): name for name in sent}
    names = [known[name] for name in left_out if name in known]
    return [name for name in names if name in asked or not _is_quiet(name)]


def line(names: "Sequence[str]") -> str:
    """Return the line for the caller of a build that had not `names`, or had other values: printable and bounded."""
    return (
        "build-cli: the host kept these variables from the build: %s"
        " (build.environment there decides; build-ctl doctor shows it)" % listed(names)
    )


def listed(names: "Sequence[str]", max_chars: int = MAX_NAMES_CHARS) -> str:
    """Return `names` as part of a line, in at most about `max_chars`; it says how many there were more."""
    shown = []  # type: List[str]
    room = max_chars
    for name in names:
        text = _printable(name)
        room -= len(text) + 2
        if room < 0:
            break
        shown.append(text)
    more = len(names) - len(shown)
    if not more:
        return ", ".join(shown)
    return "%s and %d more" % (", ".join(shown), more) if shown else "%d with long names" % more


def why_not(left_out: "Iterable[str]", allow: "Sequence[str]") -> "List[str]":
    """Return what the doctor says of `left_out` under the host's `allow`: a piece for each reason."""
    names = list(left_out)
    own = set(variables.allowed(allow, names))
    pieces = [
        ("not allowed there", [name for name in names if name not in own]),
        ("the host has its own", [name for name in names if name in own]),
    ]
    return ["%s: %s" % (reason, ", ".join(each)) for reason, each in pieces if each]


def _is_quiet(name: str) -> bool:
    return name in QUIET or name.startswith(QUIET_PREFIXES)


def _on_the_wire(name: str) -> str:
    """Return `name` as an event has it: what is no UTF-8 is a question mark there."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
