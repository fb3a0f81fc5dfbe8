"""The library keeps the rules of its floors, what breaks one is found, and what containers run suits old Pythons.

And no Python file of the repository is too long.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from floors import (
    BELOW,
    CLIENT,
    HOLD_PYTHON,
    IN_CONTAINERS,
    LIBRARY,
    MAX_LINES,
    OF_THE_CLIENT,
    PACKAGE,
    RARE,
    SHIPPED,
    TOO_DEAR,
    Tree,
    faults,
    floor_of,
    too_long,
)
from harness import write_tree
from harness_world import ROOT


def test_the_library_keeps_every_rule() -> None:
    assert {floor_of(module) for module in SHIPPED.files} == {"", *BELOW}
    assert faults(SHIPPED) == []


def test_the_map_in_the_design_page_has_every_module_on_its_floor() -> None:
    floor, named = "", set()
    for row in re.findall(r"^\| *(\w*) *\| (`.*?) \|", (ROOT / "docs/DESIGN.md").read_text("utf-8"), re.MULTILINE):
        floor = row[0] or floor
        _, colon, parts = row[1].partition(": ")
        names = re.findall(r"`(\w+)`", row[1])
        within = re.findall(r"`(\w+)`", parts.partition(";")[0]) if colon else []
        named |= {f"{floor}.{names[0]}.{name}" if name in within else f"{floor}.{name}" for name in names}
    assert named == {module for module in SHIPPED.files if "." in module}


PARTS = {
    "__init__.py": "",
    **{f"{floor}/__init__.py": "" for floor in BELOW},
    **{f"{floor}/part.py": "x = 1\n" for floor in BELOW},
    "system/linux.py": "",
}
"""A package in which nothing is wrong."""


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("core/one", "from ..system import part", "core.one imports system.part, which is not below it"),
        ("core/one", "import buildcore.service.part", "core.one imports service.part, which is not below it"),
        ("core/deep/one", "from ...caller.part import x", "core.deep.one imports caller.part, which is not below it"),
        ("core/one", "if TYPE_CHECKING: ...\nelse: from ..system import part", "core.one imports system.part"),
        ("system/one", "from ..service import part", "system.one imports service.part, which is not below it"),
        ("system/one", "from buildcore.caller import part", "system.one imports caller.part, which is not below it"),
        ("service/one", "from ..caller import part", "service.one imports caller.part, which is not below it"),
        ("caller/one", "from ..service.part import x", "caller.one imports service.part, which is not below it"),
        ("caller/one", "from ..system import part", "caller.one imports system.part"),
        ("system/one", "from . import part", "system.one imports system.part, another part of the operating system"),
        ("system/one", "def f():\n    from .part import x", "system.one imports system.part, another part of"),
        ("service/one", "from . import two", "service.one imports itself in a circle"),
        ("core/one", "import os", "core.one imports os"),
        ("core/one", "def f():\n    from socket import socket", "core.one imports socket"),
        ("core/one", "def f(path):\n    return open(path)", "core.one uses open"),
        ("core/one", "lines = map(open, ())", "core.one uses open"),
        ("core/one", "f = __builtins__['open']", "core.one uses __builtins__"),
        ("core/one", "import time\ndef f():\n    return time.time()", "core.one imports all of time"),
        ("core/one", "import time as t", "core.one imports all of time"),
        ("core/one", "from time import time", "core.one uses time.time"),
        ("core/one", "from signal import raise_signal as r", "core.one uses signal.raise_signal"),
        ("core/one", "from posixpath import exists", "core.one uses posixpath.exists"),
        ("core/one", "from collections import _sys", "core.one uses collections._sys"),
        ("core/one", "import dataclasses\ndataclasses.sys.exit()", "core.one uses dataclasses.sys"),
        ("core/one", "import importlib", "core.one uses importlib"),
        ("system/one", "from importlib import import_module as i", "system.one uses importlib"),
        ("service/one", "__import__('requests')", "service.one uses __import__"),
        ("caller/one", "import buildcore\nbuildcore.system.part.x", "caller.one imports the whole package"),
        ("caller/one", "from ..core import *", "caller.one imports *"),
        ("caller/one", "from .doctor import part", "caller.one takes part from caller.doctor, which imports it itself"),
        ("core/folder/one", "", "core.folder.one lies in a folder without an __init__.py"),
        ("one", "", "one is in none of the folders"),
        ("service/one", "\n" * (MAX_LINES + 1), f"service.one has {MAX_LINES + 1} lines"),
        ("service/one", "import requests", "service.one imports requests"),
    ],
)
def test_what_breaks_a_rule_is_found(module: str, source: str, fault: str, tmp_path: Path) -> None:
    write_tree(tmp_path, {**PARTS, "service/two.py": "from . import one\n", "core/deep/__init__.py": ""})
    write_tree(tmp_path, {"caller/doctor.py": "from ..system import part\n"})
    assert faults(Tree(tmp_path)) == []
    write_tree(tmp_path, {f"{module}.py": source})
    found = faults(Tree(tmp_path))
    assert found and found[0].startswith(fault)


def test_what_leads_downward_is_no_fault(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            **PARTS,
            "core/part.py": "import json\nfrom time import gmtime\ngmtime(0)\n",
            "system/linux.py": "import os\n",
            "system/part.py": "from . import linux\nfrom ..core import part\nx = 1\n",
            "service/part.py": "from ..system.part import x\nfrom ..core import part\n",
            "caller/part.py": "from ..core import part\n",
            "caller/doctor.py": "from ..system import part\n",
        },
    )
    assert faults(Tree(tmp_path)) == []


def test_no_python_file_of_the_repository_is_too_long() -> None:
    assert too_long(ROOT) == []


@pytest.mark.parametrize("folder", HOLD_PYTHON)
def test_a_file_that_is_too_long_is_found_wherever_it_is(folder: str, tmp_path: Path) -> None:
    files = {f"{folder}/deep/at_the_edge.py": MAX_LINES, f"{folder}/deep/one.py": MAX_LINES + 1}
    write_tree(tmp_path, {name: "\n" * lines for name, lines in files.items()})
    assert too_long(tmp_path) == [f"{folder}/deep/one.py has {MAX_LINES + 1} lines"]


# --- what containers run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", IN_CONTAINERS)
def test_a_module_for_containers_parses_with_python_3_6(module: str) -> None:
    ast.parse(SHIPPED.files[module].read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("module", sorted(OF_THE_CLIENT - RARE))
def test_a_module_of_the_client_imports_nothing_dear_when_it_loads(module: str) -> None:
    statements = iter(SHIPPED.parsed[module].body)
    assert not (TOO_DEAR | {"enum", "re"}) & SHIPPED.outside(module, statements)


def test_the_client_loads_nothing_dear_and_nothing_of_the_service() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(LIBRARY)!r}); before = set(sys.modules)\n"
        f"import {PACKAGE}.{CLIENT}\nprint(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert not TOO_DEAR & imported
    own = {name.partition(".")[2] for name in imported if name.split(".")[0] == PACKAGE}
    assert own <= OF_THE_CLIENT - RARE
    assert {floor_of(name) for name in own} == {"", "caller", "core"}
