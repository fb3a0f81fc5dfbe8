"""The floors of lib/buildcore as rules, and what of the code breaks one: `test_layers` holds the library to them.

A module's floor is the folder that it is in; docs/DESIGN.md draws them. Modules are named without the package's name.
That no file is too long is a rule for all Python of the repository.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness_world import ROOT

LIBRARY = ROOT / "lib"
PACKAGE = "buildcore"

BELOW = {
    "core": {"core"},
    "system": {"system", "core"},
    "service": {"service", "system", "core"},
    "caller": {"caller", "system", "core"},
}
"""Each floor, and those that its modules may import from."""

LOOKS_AT_THE_HOST = {"caller.doctor"}
"""What of the caller's side may import the system, as it examines the host that it runs on."""

SHARED_BY_THE_SYSTEM = {"system.linux", "system.processes", "system.proctable", "system.signals"}
"""Single calls and facts; any other part of the operating system stands alone."""

PURE = {
    "__future__", "_json", "binascii", "collections", "dataclasses", "difflib", "enum", "json", "posixpath", "re",
    "signal", "time", "types", "typing",
}
"""What core may import: nothing here opens, sends or starts anything, as far as PURE_PARTS lets it."""

PURE_PARTS = {"posixpath": {"join"}, "signal": {"Signals"}, "time": {"gmtime", "strftime"}}
"""What of some modules is no more than values: only `from MODULE import NAME` shows that nothing else is used."""

ASKS_THE_MACHINE = {
    "open", "print", "input", "exec", "eval", "compile", "breakpoint", "globals", "vars", "__builtins__",
}
IMPORTS_BY_STRING = {"importlib", "__import__", "runpy", "pkgutil"}

READS_TOML = "system.config"
"""It looks for one of several modules by their names, which are in it."""

MAX_LINES = 500
HOLD_PYTHON = ("lib", "tests", "etc/packaging")
"""The folders of the repository with Python files."""

CLIENT = "caller.build_cli"
TOO_DEAR = {"argparse", "dataclasses", "inspect", "logging", "typing"}
"""What costs the client milliseconds of each start. json brings re and enum: the modules import neither themselves."""

RARE = {"core.jsonplain"}
"""What the client imports only where it must."""

LATER = {"caller.left_out", "caller.agents"}
"""What functions of the client import, after the build."""

STANDARD_LIBRARY = getattr(sys, "stdlib_module_names", None) or {
    *sys.builtin_module_names,
    *(path.stem for path in Path(ast.__file__).parent.iterdir()),
    *(path.name.split(".")[0] for path in (Path(ast.__file__).parent / "lib-dynload").glob("*")),
    "tomllib",
}
"""Python 3.9 has no list of them."""


class Tree:
    """A package as it lies below `root`: its modules by their dotted name without the package's."""

    def __init__(self, root: Path) -> None:
        self.files = {self._name(path.relative_to(root)): path for path in sorted(root.rglob("*.py"))}
        self.parsed = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    @staticmethod
    def _name(path: Path) -> str:
        parts = path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def base(self, module: str, node: ast.ImportFrom) -> str:
        """The whole name of what `module` imports from there."""
        package = [PACKAGE, *filter(None, module.split("."))]
        if self.files[module].name != "__init__.py":
            package.pop()
        above = package[: len(package) + 1 - node.level] if node.level else []
        return ".".join([*above, *filter(None, [node.module])])

    def imported(self, module: str) -> set[str]:
        """The names that `module` has from elsewhere, and does not define itself."""
        nodes = [node for node in ast.walk(self.parsed[module]) if isinstance(node, (ast.Import, ast.ImportFrom))]
        return {(alias.asname or alias.name).split(".")[0] for node in nodes for alias in node.names}

    def inside(self, module: str, nodes: Iterator[ast.AST] | None = None) -> set[str]:
        """The modules of the package that `module` imports, what only a type checker reads included."""
        found = set()
        for node in nodes or ast.walk(self.parsed[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = self.base(module, node)
                names = {f"{base}.{alias.name}" for alias in node.names}
                modules = {name for name in names if name.partition(".")[2] in self.files}
                found |= modules if modules == names else modules | {base}
        within = {name.partition(".")[2] for name in found if name.split(".")[0] == PACKAGE}
        return (within & set(self.files)) - {"", module}

    def outside(self, module: str, nodes: Iterator[ast.AST] | None = None) -> set[str]:
        """The top-level names of what `module` imports from outside the package."""
        found = set()
        for node in nodes or ast.walk(self.parsed[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
        return found - {PACKAGE}

    def loaded_with(self, module: str) -> set[str]:
        """What importing `module` imports, however deep: what functions import later is not of it."""
        found: set[str] = set()
        waiting = {module}
        while waiting:
            name = waiting.pop()
            found.add(name)
            parents = {name.rpartition(".")[0]} & set(self.files)
            waiting |= (self.inside(name, _at_loading(self.parsed[name])) | parents) - found
        return found


def _at_loading(node: ast.AST) -> Iterator[ast.AST]:
    """What runs as a module is imported: neither functions nor what is for type checkers."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(inner, ast.If) and isinstance(inner.test, ast.Name) and inner.test.id == "TYPE_CHECKING":
            yield from inner.orelse
            yield from (each for other in inner.orelse for each in _at_loading(other))
            continue
        yield inner
        yield from _at_loading(inner)


def floor_of(module: str) -> str:
    return module.split(".")[0]


def faults(tree: Tree) -> list[str]:
    """A line for each thing in `tree` that breaks a rule of the floors."""
    return [fault for module in tree.files for rule in RULES for fault in rule(tree, module)]


def stands_on_a_floor(tree: Tree, module: str) -> Iterator[str]:
    if module and floor_of(module) not in BELOW:
        yield f"{module} is in none of the folders {', '.join(BELOW)}"


def imports_downward(tree: Tree, module: str) -> Iterator[str]:
    for other in tree.inside(module):
        if floor_of(other) not in BELOW.get(floor_of(module), ()):
            yield f"{module} imports {other}, which is not below it"


def examines_no_host(tree: Tree, module: str) -> Iterator[str]:
    if floor_of(module) == "caller" and module not in LOOKS_AT_THE_HOST:
        yield from (f"{module} imports {other}" for other in tree.inside(module) if floor_of(other) == "system")


def stands_apart(tree: Tree, module: str) -> Iterator[str]:
    if floor_of(module) == "system":
        for other in tree.inside(module):
            if floor_of(other) == "system" and other not in SHARED_BY_THE_SYSTEM:
                yield f"{module} imports {other}, another part of the operating system"


def imports_by_name(tree: Tree, module: str) -> Iterator[str]:
    """Nothing is imported in a way that this file does not see."""
    for node in ast.walk(tree.parsed[module]):
        if isinstance(node, ast.Import) and any(alias.name == PACKAGE for alias in node.names):
            yield f"{module} imports the whole package"
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"{module} imports *"
        names = _names(node) & IMPORTS_BY_STRING
        if names and module != READS_TOML:
            yield f"{module} uses {names.pop()}"


def takes_what_is_defined_there(tree: Tree, module: str) -> Iterator[str]:
    """A name is imported from where it is defined, and not by way of another module that imported it."""
    for node in ast.walk(tree.parsed[module]):
        if isinstance(node, ast.ImportFrom):
            source = tree.base(module, node).partition(".")[2]
            for alias in node.names:
                if source in tree.files and f"{source}.{alias.name}".lstrip(".") not in tree.files:
                    if alias.name in tree.imported(source):
                        yield f"{module} takes {alias.name} from {source}, which imports it itself"


def has_a_package(tree: Tree, module: str) -> Iterator[str]:
    parent = module.rpartition(".")[0]
    if parent not in tree.files:
        yield f"{module} lies in a folder without an __init__.py"


def _names(node: ast.AST) -> set[str]:
    """The names that `node` itself is about."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


def is_in_no_circle(tree: Tree, module: str) -> Iterator[str]:
    if any(module in tree.inside(other) for other in _below(tree, module)):
        yield f"{module} imports itself in a circle"


def _below(tree: Tree, module: str) -> set[str]:
    found: set[str] = set()
    waiting = tree.inside(module)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= tree.inside(name) - found
    return found


def does_no_input_or_output(tree: Tree, module: str) -> Iterator[str]:
    if floor_of(module) != "core":
        return
    imported = tree.outside(module)
    yield from (f"{module} imports {name}" for name in sorted(imported - PURE))
    for node in ast.walk(tree.parsed[module]):
        yield from (f"{module} uses {name}" for name in sorted(_names(node) & ASKS_THE_MACHINE))
        if isinstance(node, ast.Import):
            yield from (f"{module} imports all of {name}" for name in sorted(_names(node) & set(PURE_PARTS)))
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            allowed = PURE_PARTS.get(node.module or "")
            for alias in node.names:
                if alias.name.startswith("_") or (allowed is not None and alias.name not in allowed):
                    yield f"{module} uses {node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            if node.attr.startswith("_") or node.attr in STANDARD_LIBRARY:
                yield f"{module} uses {node.value.id}.{node.attr}"


def is_short(tree: Tree, module: str) -> Iterator[str]:
    lines = _lines(tree.files[module])
    if lines > MAX_LINES:
        yield f"{module} has {lines} lines"


def too_long(repository: Path) -> list[str]:
    """A line for each Python file that has more lines than it may have."""
    files = sorted(path for folder in HOLD_PYTHON for path in (repository / folder).rglob("*.py"))
    long = [path for path in files if _lines(path) > MAX_LINES]
    return [f"{path.relative_to(repository)} has {_lines(path)} lines" for path in long]


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def is_standard_library(tree: Tree, module: str) -> Iterator[str]:
    yield from (f"{module} imports {name}" for name in sorted(tree.outside(module) - set(STANDARD_LIBRARY)))


RULES: tuple[Callable[[Tree, str], Iterator[str]], ...] = (
    stands_on_a_floor, has_a_package, imports_downward, examines_no_host, stands_apart, imports_by_name,
    takes_what_is_defined_there, is_in_no_circle, does_no_input_or_output, is_short, is_standard_library,
)

SHIPPED = Tree(LIBRARY / PACKAGE)
OF_THE_CALLER = [module for module in SHIPPED.files if floor_of(module) == "caller"]
IN_CONTAINERS = sorted(set().union(*map(SHIPPED.loaded_with, OF_THE_CALLER)))
OF_THE_CLIENT = SHIPPED.loaded_with(CLIENT)
