"""The wheel of the library that `make wheel` makes, installed by the real pip."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from harness import TREE, write_tree
from packages.building import attempt, copy_of_the_sources, make, run

SOURCES = sorted(path.relative_to(TREE / "lib").as_posix() for path in (TREE / "lib/buildcore").rglob("*.py"))
MODULES = [source.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in SOURCES]


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    write_tree(tree, {"build/lib/buildcore/left_by_an_older_build.py": ""})
    (path,) = make(tree, "wheel").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new virtual environment with the wheel and what it depends on."""
    directory = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", directory])
    run([directory / "bin/python", "-m", "pip", "install", "--quiet", wheel])
    return directory / "bin/python"


def test_the_wheel_holds_the_library_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {"buildcore/py.typed", *SOURCES}


def test_two_wheels_of_the_same_sources_are_the_same_to_the_byte(wheel: Path, tmp_path: Path) -> None:
    (again,) = make(copy_of_the_sources(tmp_path / "elsewhere"), "wheel", umask=0o077).glob("*.whl")
    assert (again.name, again.read_bytes()) == (wheel.name, wheel.read_bytes())


def test_each_module_can_be_imported_where_the_wheel_is_installed(clean_python: Path) -> None:
    program = (
        "import importlib, sys, buildcore\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(buildcore.__file__)"
    )
    shown = run([clean_python, "-I", "-W", "error", "-c", program, *MODULES], cwd="/")
    assert Path(shown.stdout.strip()).is_relative_to(clean_python.parent.parent)


def test_a_type_checker_sees_the_types_of_the_installed_library(clean_python: Path, tmp_path: Path) -> None:
    wrong = "from buildcore.system import config\n\nsettings: int = config.parse('')\n"
    write_tree(tmp_path, {"program.py": wrong})
    options: list[str | Path] = ["--strict", "--python-executable", clean_python, "--cache-dir", tmp_path / "cache"]
    checked = attempt([sys.executable, "-m", "mypy", *options, "program.py"], cwd=tmp_path)
    assert 'has type "Settings", variable has type "int"' in checked.stdout
    assert "Found 1 error" in checked.stdout
