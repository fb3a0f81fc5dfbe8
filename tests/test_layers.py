"""The import rule of lib/buildcore: modules import downward only, pure ones import no system, the client's are cheap.

DESIGN.md draws the layers; the table here is what the code is held to. A module that is not in it fails a test.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parent.parent / "lib"
PACKAGE = LIBRARY / "buildcore"

ERRORS, PURE, KERNEL, SYSTEM, ENTRY = range(5)
LAYERS = {
    ERRORS: {"errors"},
    PURE: {"arguments", "jsonplain", "jsontext", "limiter", "policy", "protocol", "settings", "text"},
    KERNEL: {"linux", "processes", "signals"},
    SYSTEM: {
        "cgroups", "config", "identity", "listener", "logs", "notify", "origin", "paths", "reload", "subids",
        "supervisor",
    },
    ENTRY: {"build_cli", "build_ctl", "build_service", "client", "doctor", "link", "proof", "server", "session"},
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}
SHIPPED = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}

STRANGERS = {SYSTEM}
"""The layers whose modules do not import each other."""

NOT_PURE = {"os", "socket", "selectors", "subprocess", "logging"}
CLIENT = {"errors", "jsonplain", "jsontext", "protocol", "client", "build_cli"}
RARE = {"jsonplain"}
"""What the client imports only where it must."""

IN_CONTAINERS = CLIENT | {"build_ctl", "doctor"}
TOO_DEAR = {"argparse", "dataclasses", "inspect", "logging", "typing"}
"""What costs the client milliseconds of each start. json brings re and enum: the modules import neither themselves."""


STANDARD_LIBRARY = getattr(sys, "stdlib_module_names", None) or {
    *sys.builtin_module_names,
    *(path.stem for path in Path(ast.__file__).parent.iterdir()),
    *(path.name.split(".")[0] for path in (Path(ast.__file__).parent / "lib-dynload").glob("*")),
    "tomllib",
}
"""Python 3.9 has no list of them."""


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def outside_imports(tree: ast.AST) -> Iterator[str]:
    """The top-level names of what is imported from outside the package, anywhere in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def inside_imports(tree: ast.AST) -> Iterator[str]:
    """The modules of the package that are imported, what only a type checker reads included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0 and parts[0] != "buildcore":
                continue
            inner = parts[1:] if node.level == 0 else [part for part in parts if part]
            yield from [inner[0]] if inner else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (parts[1] for parts in names if parts[0] == "buildcore" and len(parts) > 1)


def test_every_shipped_module_has_a_layer() -> None:
    assert SHIPPED == set(LAYER_OF)


@pytest.mark.parametrize("module", sorted(SHIPPED & set(LAYER_OF)))
def test_a_module_imports_downward_only(module: str) -> None:
    layer = LAYER_OF[module]
    for other in inside_imports(tree_of(module)):
        if other in LAYER_OF:
            assert LAYER_OF[other] <= layer, f"{module} imports {other}, which is above it"
            assert LAYER_OF[other] < layer or layer not in STRANGERS, f"{module} and {other} are to be apart"


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {module: set(inside_imports(tree_of(module))) & SHIPPED for module in SHIPPED}
    while below:
        lowest = {module for module, imported in below.items() if not imported & set(below)}
        assert lowest, f"a circle among {sorted(below)}"
        below = {module: imported for module, imported in below.items() if module not in lowest}


@pytest.mark.parametrize("module", sorted((LAYERS[ERRORS] | LAYERS[PURE]) & SHIPPED))
def test_a_pure_module_imports_nothing_of_the_system(module: str) -> None:
    assert not NOT_PURE & set(outside_imports(tree_of(module)))


@pytest.mark.parametrize("module", sorted(SHIPPED))
def test_what_ships_is_the_standard_library_only(module: str) -> None:
    toml_of_old_pythons = {"tomli", "pip"}
    allowed = set(STANDARD_LIBRARY) | {"buildcore"} | (toml_of_old_pythons if module == "config" else set())
    assert set(outside_imports(tree_of(module))) <= allowed


@pytest.mark.parametrize("module", sorted(IN_CONTAINERS | {"__init__"}))
def test_a_module_for_containers_parses_with_python_3_6(module: str) -> None:
    ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("module", sorted((CLIENT - RARE) & SHIPPED))
def test_a_module_of_the_client_imports_nothing_dear_when_it_loads(module: str) -> None:
    statements = [node for node in tree_of(module).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not (TOO_DEAR | {"enum", "re"}) & {name for node in statements for name in outside_imports(node)}


def test_the_client_loads_nothing_dear() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(LIBRARY)!r}); before = set(sys.modules)\n"
        "import buildcore.build_cli\nprint(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert not TOO_DEAR & imported
    assert {name.split(".")[1] for name in imported if name.startswith("buildcore.")} <= CLIENT - RARE
