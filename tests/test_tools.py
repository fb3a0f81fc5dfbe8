"""The table of tools agrees with what .ci/run installs, and `make test` says what is missing, and how it went."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
import tools
from container.run import PACKAGES as FOR_CONTAINERS
from container.run import PACKAGES_FOR_THE_IMAGE
from harness import TREE
from harness_world import DEV1, OUTSIDER, User

CI = (TREE / ".ci/run").read_text()
ALWAYS_THERE = {"apt", "dash", "dpkg"}
"""Debian has no machine without them."""

FOR_MAKE_ITSELF = {"make", "python3", "python3-venv"}


def installed_by_ci() -> dict[str, str]:
    """{program or file: Debian package}, as .ci/run looks for them; what it finds in other ways is there by package."""
    pairs = dict(re.findall(r" ([\w./-]+):([\w.+-]+)(?=[ ;])", CI))
    files = re.findall(r'^\[ -\w (\S+) \] \|\| missing="\$missing (\S+)"', CI, re.MULTILINE)
    others = re.findall(r'^python3 .*missing="\$missing (\S+)"', CI, re.MULTILINE)
    return {**pairs, **dict(files), **{package: package for package in others}}


def test_ci_installs_every_tool_of_the_table_by_the_same_package() -> None:
    installed = installed_by_ci()
    assert len(installed) > 20
    for tool in tools.TOOLS:
        if tool.debian not in ALWAYS_THERE and tool.debian:
            assert installed.get(tool.name, tool.debian) == tool.debian
            assert tool.debian in installed.values(), tool


def test_ci_installs_nothing_that_nobody_asks_for() -> None:
    asked = {tool.debian for tool in tools.TOOLS} | set(FOR_CONTAINERS.values()) | set(PACKAGES_FOR_THE_IMAGE.values())
    assert set(installed_by_ci().values()) <= asked | FOR_MAKE_ITSELF


def test_every_tool_of_the_table_is_asked_for_by_a_test() -> None:
    itself = ("tools.py", Path(__file__).name)
    sources = "".join(path.read_text() for path in TREE.glob("tests/**/*.py") if path.name not in itself)
    named = {name for name in tools.BY_NAME if f'"{name}"' in sources}
    in_words = {*tools.TO_COMPILE, tools.OTHER_PYTHON}  # tools.TO_COMPILE and tools.OTHER_PYTHON
    assert set(tools.BY_NAME) == named | in_words
    assert "tools.TO_COMPILE" in sources and "tools.OTHER_PYTHON" in sources


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which, and only there, programs are looked for."""
    monkeypatch.setattr(tools, "SEARCHED", str(tmp_path))
    return tmp_path


def program(path: Path, text: str = "") -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_tool_that_is_missing_is_a_line_with_what_is_skipped_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools, "is_here", lambda name: name not in ("sesearch", "socat"))
    socat, sesearch, both, *others = tools.report()
    assert [socat, sesearch] == [
        "skipped without socat: the example sessions of PROTOCOL.md; Debian: apt-get install socat; "
        "Rocky: dnf install socat",
        "skipped without sesearch: the SELinux module; Debian: apt-get install setools; "
        "Rocky: dnf install setools-console",
    ]
    assert re.fullmatch("all of it: (apt-get install socat setools|dnf install socat setools-console)", both)
    assert others == ([] if os.geteuid() == 0 else [tools.NOT_ROOT])


def test_on_rocky_linux_all_of_it_is_a_line_for_dnf(bare: Path) -> None:
    program(bare / "dnf")
    assert any(line.startswith("all of it: dnf install") and " setools-console" in line for line in tools.report())


def test_a_machine_that_has_everything_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "is_here", lambda name: True)
    said = list(tools.report())
    assert len(said) == 1
    assert ("nothing is skipped" if os.geteuid() == 0 else "skipped without root") in said[0]


def test_a_test_without_its_tool_is_skipped_and_says_which(bare: Path) -> None:
    program(bare / "rpm")
    with pytest.raises(pytest.skip.Exception, match=r"^not installed: rpmbuild; "):
        tools.need("rpmbuild", "rpm")


def test_a_tool_that_is_not_in_the_table_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        tools.need("make-coffee")


# --- make test --------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout() -> Iterator[Path]:
    """The Makefile, and tools of the tests that do nothing."""
    directory = harness.open_directory()
    (directory / "Makefile").write_text((TREE / "Makefile").read_text())
    (directory / ".venv/bin").mkdir(parents=True)
    for name in ("ruff", "mypy", "python"):
        program(directory / ".venv/bin" / name, f"echo {name} ran; exit ${{{name.upper()}_EXITS-0}}")
    (directory / ".venv/installed").write_text("")
    yield directory
    subprocess.run(["rm", "-r", directory], check=True)


def make_test(checkout: Path, user: User | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return harness.run_as(user or harness.current_user(), ["make", "test"], checkout, env)


@pytest.mark.parametrize("ended", [0, 1, 5])
def test_make_test_says_at_its_end_how_long_it_took_and_keeps_the_exit_code(checkout: Path, ended: int) -> None:
    done = make_test(checkout, PYTHON_EXITS=str(ended))
    assert re.search(r"^python ran\n(make\[.*\n)?make test took 0 min [0-5]?\d s\n", done.stdout, re.MULTILINE), done
    assert (done.returncode == 0) == (ended == 0)


@pytest.mark.parametrize("name", ["ruff", "mypy"])
def test_what_lint_and_types_find_fails_make_test(checkout: Path, name: str) -> None:
    done = make_test(checkout, **{f"{name.upper()}_EXITS": "1"})
    assert done.returncode and "python ran" not in done.stdout
    assert "make test took 0 min" in done.stdout


@pytest.mark.needs_root
def test_what_root_made_in_a_user_s_checkout_is_that_user_s_afterwards(checkout: Path) -> None:
    harness.give(checkout, DEV1)
    (checkout / ".mypy_cache/3.9").mkdir(parents=True)
    assert make_test(checkout).returncode == 0
    assert (checkout / ".mypy_cache/3.9").stat().st_uid == DEV1.uid
    assert make_test(checkout, DEV1).returncode == 0


@pytest.mark.needs_root
def test_who_may_not_write_what_another_user_s_make_left_is_told_so_in_a_line(checkout: Path) -> None:
    for path in (checkout, *checkout.iterdir()):
        os.chown(path, DEV1.uid, DEV1.gid)
    (checkout / ".venv/share").mkdir()
    done = make_test(checkout, DEV1)
    line = r"(?m)^\.venv/\w+ is another user's, who ran make here: sudo make clean takes it away$"
    assert re.search(line, done.stderr) and done.returncode and "ruff ran" not in done.stdout


@pytest.mark.needs_root
def test_who_may_not_write_the_checkout_is_told_so_in_a_line(checkout: Path) -> None:
    harness.give(checkout, DEV1)
    done = make_test(checkout, OUTSIDER)
    line = f"this checkout is not {OUTSIDER.name}'s to write: run make as its owner, or clone it anew\n"
    assert line in done.stderr and done.returncode and "ruff ran" not in done.stdout
