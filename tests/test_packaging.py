"""What is installed: the launchers, the single files of `make dist`, the make wrapper, `make install` and the unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import harness
import tools
from daemon import Service
from floors import LATER, LIBRARY, OF_THE_CLIENT, SHIPPED, floor_of
from harness import BIN, SYSTEM_PATH, TREE, other_pythons, write_tree
from harness_world import ROOT
from test_documents import DOCUMENTS, links

SHELLS = [
    pytest.param(["dash"], marks=tools.needed("dash")),
    pytest.param(["bash"]),
    pytest.param(["busybox", "sh"], marks=tools.needed("busybox")),
]
WRAPPER = TREE / "bin/make-wrapper.sh"
ECHO = '#!/bin/sh\necho "{name}:"\nfor argument do echo "<$argument>"; done\n'
"""A stand-in that shows how it was called."""


def run(
    argv: Sequence[str | os.PathLike[str]],
    path: str = SYSTEM_PATH,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command with this PATH and `env` as all of its environment."""
    variables = {"PATH": path, **(env or {})}
    return subprocess.run(argv, env=variables, cwd=cwd, capture_output=True, text=True, timeout=harness.PATIENCE_SEC)


def linked(directory: Path, links: Mapping[str, Path | str]) -> Path:
    """A directory of symbolic links, given as {name: target}."""
    directory.mkdir(parents=True)
    for name, target in links.items():
        (directory / name).symlink_to(target)
    return directory


def dist(directory: Path) -> Path:
    """The single files, built into `directory` for the Python of the tests and of the callers."""
    pythons = {sys.executable, os.path.join(harness.python_directory(), "python3")}
    command = [sys.executable, TREE / "etc/packaging/dist.py", "--output", directory, *sorted(pythons)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    directory = harness.open_directory()
    yield dist(directory)
    shutil.rmtree(directory)


# --- the launchers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("program", ["build-cli", "build-service"])
def test_a_program_starts_under_any_sh_by_a_link_with_spaces(shell: list[str], program: str, tmp_path: Path) -> None:
    link = linked(tmp_path / "a directory", {f"the {program}": BIN / program}) / f"the {program}"
    shown = run([*shell, link, "--version"], cwd=Path("/"), path=harness.daemon_path())
    assert (shown.stdout.split()[0], shown.stderr, shown.returncode) == (program, "", 0)


def test_the_client_says_in_one_line_that_there_is_no_python(tmp_path: Path) -> None:
    refused = run([BIN / "build-cli", "make"], path=str(tmp_path))
    if not os.path.exists("/usr/libexec/platform-python"):
        expected = "build-cli: no python3 found on PATH (looked for python3, /usr/libexec/platform-python)\n"
        assert (refused.stdout, refused.stderr, refused.returncode) == ("", expected, 1)


def test_the_daemon_says_in_one_line_that_there_is_no_python(tmp_path: Path) -> None:
    refused = run([BIN / "build-service"], path=str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.startswith("build-service: no Python 3.9 or later found on PATH")
    assert refused.stderr.count("\n") == 1


def test_the_daemon_passes_over_a_python_that_is_too_old(tmp_path: Path) -> None:
    too_old = "#!/bin/sh\nexit 1\n"
    new_enough = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    write_tree(tmp_path, {"python3": too_old, "python3.12": too_old, "python3.10": new_enough})
    assert run([BIN / "build-service", "--version"], path=str(tmp_path)).stdout.startswith("build-service ")


@pytest.mark.parametrize("python", other_pythons(6))
def test_the_client_runs_on_every_python_of_this_machine(python: str, programs: Path, tmp_path: Path) -> None:
    path = f"{linked(tmp_path / 'bin', {'python3': python})}:{SYSTEM_PATH}"
    socket = tmp_path / "none"
    for directory in (BIN, programs):
        refused = run([directory / "build-cli", "--socket", socket, "make"], path=path)
        assert refused.stderr == f"build-service socket not found at {socket}\n"
        assert refused.returncode == 1


# --- the single files ---------------------------------------------------------------------------------------------


def test_two_builds_of_the_single_files_are_the_same_to_the_byte(programs: Path, tmp_path: Path) -> None:
    again = dist(tmp_path)
    for program in ("build-cli", "build-service"):
        assert (again / program).read_bytes() == (programs / program).read_bytes()


@pytest.mark.parametrize("program", ["build-cli", "build-service"])
def test_a_single_file_names_no_place_of_the_machine_that_built_it(program: str, programs: Path) -> None:
    data = (programs / program).read_bytes()
    assert os.fsencode(ROOT) not in data
    assert os.fsencode(TREE) not in data
    assert os.fsencode(sys.prefix) not in data


@pytest.mark.parametrize("program", ["build-cli", "build-service"])
def test_a_single_file_runs_alone_and_as_a_zip_application(program: str, programs: Path, tmp_path: Path) -> None:
    alone = shutil.copy(programs / program, tmp_path / "it self")
    assert run([alone, "--version"], cwd=Path("/")).stdout.startswith(program)
    assert run([sys.executable, "-I", alone, "--version"], cwd=Path("/")).stdout.startswith(program)


def test_the_single_file_of_the_client_holds_what_the_client_imports_and_no_more(programs: Path) -> None:
    with zipfile.ZipFile(programs / "build-cli") as archive:
        sources = {name for name in archive.namelist() if name.endswith(".py")}
        compiled = {name.partition("/")[2] for name in archive.namelist() if name.endswith(".pyc")}
    needed = {SHIPPED.files[module].relative_to(LIBRARY).as_posix() for module in OF_THE_CLIENT | LATER}
    assert sources == {"__main__.py", *needed}
    assert compiled == {f"{source}c" for source in needed}


def test_the_single_file_of_the_daemon_holds_every_module_but_the_caller_s(programs: Path) -> None:
    with zipfile.ZipFile(programs / "build-service") as archive:
        packed = {name for name in archive.namelist() if name.startswith("buildcore/")}
    modules = [module for module in SHIPPED.files if floor_of(module) != "caller"]
    assert packed == {SHIPPED.files[module].relative_to(LIBRARY).as_posix() for module in modules}


def test_a_single_file_runs_where_no_compiled_file_fits_the_python(programs: Path, tmp_path: Path) -> None:
    data = (programs / "build-cli").read_bytes()
    bare = tmp_path / "build-cli"
    bare.write_bytes(data[: data.index(b"PK\3\4")])
    bare.chmod(0o755)
    with zipfile.ZipFile(programs / "build-cli") as archive, zipfile.ZipFile(bare, "a") as sources:
        for name in archive.namelist():
            if name.endswith(".py"):
                sources.writestr(name, archive.read(name))
    assert run([bare, "--version"], path=harness.daemon_path()).stdout.startswith("build-cli ")


def test_a_python_that_was_named_and_does_not_run_stops_the_build(tmp_path: Path) -> None:
    command = [sys.executable, TREE / "etc/packaging/dist.py", "--output", tmp_path, "/bin/false"]
    refused = run(command)
    assert (refused.stderr, refused.returncode) == ("dist.py: /bin/false does not run\n", 1)


def test_the_single_files_build(flavour: str, programs: Path, start_service: Callable[..., Service]) -> None:
    service = start_service(flavour, programs=programs)
    write_tree(service.workspace, {"Makefile": "all:\n\t@id -un\n"}, service.caller)
    built = service.run("make")
    assert (built.stdout, built.stderr, built.returncode) == (f"{service.caller.name}\n", "", 0)


# --- the make wrapper ---------------------------------------------------------------------------------------------


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    """A directory for PATH with the wrapper as `make` and `ninja`, and a build-cli that shows its arguments."""
    directory = linked(tmp_path / "wrapped", {"make": WRAPPER, "ninja": WRAPPER})
    return write_tree(directory, {"build-cli": ECHO.format(name="build-cli")})


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("tool", ["make", "ninja"])
def test_the_wrapper_hands_over_under_its_own_name(shell: list[str], tool: str, wrapped: Path) -> None:
    shown = run([*shell, wrapped / tool, "-j4", "a b", "", "*"], path=f"{wrapped}:{SYSTEM_PATH}")
    assert shown.stdout == f"build-cli:\n<{tool}>\n<-j4>\n<a b>\n<>\n<*>\n"


def test_the_wrapper_under_its_own_file_s_name_stands_for_make(wrapped: Path) -> None:
    assert run([WRAPPER, "all"], path=f"{wrapped}:{SYSTEM_PATH}").stdout == "build-cli:\n<make>\n<all>\n"


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_fallback_is_the_next_of_the_name_on_path_and_not_the_wrapper(
    shell: list[str], wrapped: Path, tmp_path: Path
) -> None:
    before = write_tree(tmp_path / "before", {"make": ECHO.format(name="before")})
    again = linked(tmp_path / "linked again", {"make": wrapped / "make"})
    plain = write_tree(tmp_path / "plain", {"make": "no program\n"})
    real = write_tree(tmp_path / "real tools", {"make": ECHO.format(name="real")})
    path = ":".join(map(str, [before, wrapped, again, plain, real, SYSTEM_PATH]))
    shown = run([*shell, wrapped / "make", "a b"], path=path, env={"BUILD_SERVICE_FALLBACK": "local"})
    assert shown.stdout == f"build-cli:\n<--fallback>\n<{real}/make>\n<make>\n<a b>\n"


def test_without_a_real_tool_further_along_there_is_no_fallback(wrapped: Path) -> None:
    shown = run(["/bin/sh", wrapped / "ninja"], path=str(wrapped), env={"BUILD_SERVICE_FALLBACK": "local"})
    assert shown.stdout == "build-cli:\n<ninja>\n"


def test_the_real_make_runs_when_there_is_no_service_and_the_fallback_is_asked_for(tmp_path: Path) -> None:
    image = linked(tmp_path / "image", {"make": WRAPPER, "build-cli": BIN / "build-cli"})
    write_tree(tmp_path, {"Makefile": "all:\n\t@echo built '$(WORD)'\n"})
    env = {"BUILD_SERVICE_SOCKET": str(tmp_path / "none"), "BUILD_SERVICE_FALLBACK": "local"}
    path = f"{image}:{harness.environment_of(harness.current_user())['PATH']}"
    built = run(["make", "WORD=a b"], path=path, env=env, cwd=tmp_path)
    assert (built.stdout, built.stderr, built.returncode) == ("built a b\n", "", 0)
    refused = run(["make", "WORD=a b"], path=path, env={**env, "BUILD_SERVICE_FALLBACK": ""}, cwd=tmp_path)
    assert (refused.stdout, refused.returncode) == ("", 1)


def test_a_make_that_runs_as_the_fallback_runs_its_sub_makes_as_itself_and_not_by_the_wrapper(tmp_path: Path) -> None:
    image = linked(tmp_path / "image", {"make": WRAPPER, "build-cli": BIN / "build-cli"})
    write_tree(tmp_path, {"Makefile": "all:\n\t@echo '$(MAKE)'\n"})
    env = {"BUILD_SERVICE_SOCKET": str(tmp_path / "none"), "BUILD_SERVICE_FALLBACK": "local"}
    built = run(["make"], path=f"{image}:{harness.daemon_path()}", env=env, cwd=tmp_path)
    assert built.stdout == f"{shutil.which('make', path=harness.daemon_path())}\n"


def test_the_wrapper_builds_through_the_service_also_when_a_fallback_is_allowed(service: Service) -> None:
    image = linked(service.daemon.directory / "image", {"make": WRAPPER, "build-cli": BIN / "build-cli"})
    write_tree(service.workspace, {"Makefile": "all:\n\t@echo $$BUILD_SERVICE_FALLBACK.; exit 3\n"}, service.caller)
    path = f"{image}:{harness.environment_of(service.caller)['PATH']}"
    env = {"PATH": path, "BUILD_SERVICE_SOCKET": str(service.daemon.socket), "BUILD_SERVICE_FALLBACK": "local"}
    built = harness.run_as(service.caller, ["make"], service.workspace, env)
    assert built.stdout == ".\n"  # the variable does not reach a build on the host
    assert built.returncode == 2


# --- make install -------------------------------------------------------------------------------------------------


def places(directory: Path) -> dict[str, Path]:
    """The Makefile's variables for where files go, each with a place below `directory`."""
    return {
        "PREFIX": directory / "usr",
        "SYSCONFDIR": directory / "etc",
        "UNITDIR": directory / "units",
        "USERUNITDIR": directory / "user-units",
        "TMPFILESDIR": directory / "tmpfiles",
        "DIST": directory / "dist",
    }


def install(directory: Path, *targets: str) -> None:
    """make TARGETS with every place below `directory`, but none in DESTDIR, so that the unit names the real ones."""
    variables = [f"DIST_PYTHONS={sys.executable}", *(f"{name}={path}" for name, path in places(directory).items())]
    done = subprocess.run(["make", "-s", "-C", TREE, *variables, *targets], capture_output=True, text=True)
    assert done.returncode == 0, done


def test_what_these_tests_install_goes_to_none_of_the_machine_s_own_places(tmp_path: Path) -> None:
    absolute = re.findall(r"^(\w+) *= */", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "PREFIX" in absolute and set(absolute) <= set(places(tmp_path))


def installed_files(directory: Path) -> list[Path]:
    """Every file that is there, but for those in dist."""
    return [path for path in directory.rglob("*") if path.is_file() and directory / "dist" not in path.parents]


def test_what_is_installed_runs_and_the_unit_starts_it(tmp_path: Path) -> None:
    install(tmp_path, "install")
    unit = tmp_path / "units/build-service.service"
    start = f"ExecStart={tmp_path}/usr/bin/build-service --config {tmp_path}/etc/build-service/config.toml"
    assert start in unit.read_text().splitlines()
    checked = run([*start.partition("=")[2].split(), "--check-config"], path=harness.daemon_path())
    assert (checked.stderr, checked.returncode) == ("", 0)
    assert run([tmp_path / "usr/bin/build-cli", "--version"], path=harness.daemon_path()).returncode == 0
    assert os.access(tmp_path / "usr/share/build-service/make-wrapper.sh", os.X_OK)


@tools.needed("systemd-analyze")
def test_systemd_finds_no_fault_in_the_installed_unit(tmp_path: Path) -> None:
    install(tmp_path, "install")
    unit = tmp_path / "units/build-service.service"
    verified = run(["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", unit])
    assert (verified.stdout, verified.stderr, verified.returncode) == ("", "", 0)


def test_the_links_of_the_installed_pages_lead_to_what_is_installed(tmp_path: Path) -> None:
    install(tmp_path, "install")
    shared = tmp_path / "usr/share/build-service"
    for page in sorted(set(DOCUMENTS) - {"CONTRIBUTING.md"}):  # that one is for who has the sources
        assert (shared / page).read_text(encoding="utf-8") == DOCUMENTS[page]
        assert [path for path, _ in links(page) if not (shared / path).exists()] == [], page


def test_a_second_install_keeps_the_config_and_so_does_uninstall_once_it_was_changed(tmp_path: Path) -> None:
    install(tmp_path, "install")
    config = tmp_path / "etc/build-service/config.toml"
    config.write_text(config.read_text() + "# ours\n")
    install(tmp_path, "install")
    assert config.read_text().endswith("# ours\n")
    install(tmp_path, "uninstall")
    assert installed_files(tmp_path) == [config]


def test_uninstall_takes_everything_that_install_brought(tmp_path: Path) -> None:
    install(tmp_path, "install")
    install(tmp_path, "uninstall")
    assert installed_files(tmp_path) == []
    assert not (tmp_path / "etc/build-service").exists()
    assert not (tmp_path / "usr/share/build-service").exists()


def test_a_path_with_a_blank_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a directory").mkdir()
    refused = subprocess.run(
        ["make", "-s", "-C", ROOT, "install", f"DESTDIR={tmp_path}/a directory"], capture_output=True, text=True
    )
    assert "a path with a blank in it cannot be installed to" in refused.stderr and refused.returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["a directory"]


def test_destdir_goes_before_every_place_and_into_no_file(tmp_path: Path) -> None:
    install(tmp_path, "install", f"DESTDIR={tmp_path}/root")
    assert (tmp_path / "root" / str(tmp_path / "usr/bin/build-cli").lstrip("/")).is_file()
    assert not (tmp_path / "usr").exists()
    unit = tmp_path / "root" / str(tmp_path / "units/build-service.service").lstrip("/")
    assert f"{tmp_path}/root" not in unit.read_text()
