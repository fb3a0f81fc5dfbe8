"""What the walker finds for ctest, meson, cargo, go, npm and bazel.

ctest and meson are run: what they read, and where they go, must be what was found. For cargo, go and npm, which are too
large to be installed for this, the tables below hold what the real programs were seen to do with these command lines in
a scratch tree: cargo 1.95.0 (RUSTC_BOOTSTRAP=1, as -C is unstable), go 1.27.3 and 1.19.8, npm 11.19.1, bazel 2.1.0
(what is newer of its options is from its command-line reference). `CTEST_UNDER_TEST` names another ctest.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tools
from buildcore.core.arguments import Role, directory_walks, path_arguments

CTEST = os.environ.get("CTEST_UNDER_TEST", "ctest")
MESON = [sys.executable, "-m", "mesonbuild.mesonmain"]
EXAMPLES = int(os.environ.get("ARGUMENTS_EXAMPLES", "300"))
SHARE = 10
"""ctest and meson are slow: they get one in so many of the argument lists."""
TIMEOUT_SEC = 60
ROOT_MARK = "@"
"""Stands for the scratch directory's path in a generated argument."""

needs_ctest = tools.needed(*["cmake"] if CTEST == "ctest" else [])
needs_ninja = tools.needed("ninja")


def run(command: list[str], cwd: Path, home: Path | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(home or cwd)}
    return subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=TIMEOUT_SEC,
    ).stdout


def held(command: str, args: list[str], cwd: Path) -> list[str]:
    """The directory that the only walk ends in, and each path that is held, as seen from there."""
    found = path_arguments(command, args)
    (walk,) = directory_walks(command, found)
    here = posixpath.normpath(posixpath.join(cwd, *(step.value for step in walk)))
    paths = [posixpath.normpath(posixpath.join(here, path.value)) for path in found if path.role is Role.PATH]
    return [here, *paths]


def real_runs(examples: int) -> settings:
    too_slow = [HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=too_slow)


def lists_of(words: st.SearchStrategy[list[str]], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(words, max_size=most).map(lambda chosen: [string for word in chosen for string in word])


def placed(args: list[str], root: Path) -> list[str]:
    return [arg.replace(ROOT_MARK, str(root)) for arg in args]


def what_is_found(command: str, line: str) -> list[str]:
    """Each path as `OPTION VALUE ROLE`, the role by its first letter."""
    found = path_arguments(command, line.split())
    return [f"{path.option} {path.value} {path.role.value[0]}" for path in found]


def assert_found(command: str, line: str, found: str) -> None:
    assert what_is_found(command, line) == [part for part in found.split("; ") if part], line


# ctest

CTEST_SCRIPT = 'message("@@script ${CMAKE_CURRENT_LIST_FILE}@@")\nset(CTEST_RUN_CURRENT_SCRIPT OFF)\n'
_DIRECTORIES = st.sampled_from("a b ./a a/../b ../tree/a @/b --test-dir -N".split())
_SCRIPTS = st.sampled_from("s.cmake a/s.cmake ./s.cmake,x,y @/a/s.cmake ../tree/s.cmake,..".split())
CTEST_WORDS = st.one_of(
    st.builds(lambda value: ["--test-dir", value], _DIRECTORIES),
    st.builds(lambda option, value: [option, value], st.sampled_from(["-S", "-SP", "-SR", "--script"]), _SCRIPTS),
    st.sampled_from(
        "--|-V|-Q|--debug|--test-di a|-Sa/s.cmake|--script=s.cmake|-R --test-dir|-R x|-E -S|-C Debug|-C --test-dir|"
        "-L -S|-I 1,1|-j2|-j 2|--repeat until-pass:2|--timeout 3|--test-command -S|--test-command|--build-options -S|"
        "--build-options x --build-target -S|--build-options --build-target a|--group -S|--max-width --test-dir|"
        "--output-on-failure|a|-D x=y|-O o.log|-O --test-dir|--resource-spec-file no.json|--stop-time -S".split("|")
    ).map(str.split),
)


@pytest.fixture(scope="module")
def ctest_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ctest") / "tree"
    for directory in ("a", "b", "--test-dir", "-N", "home/t"):
        (root / directory).mkdir(parents=True)
    for directory in (root, *(path for path in root.iterdir() if path.is_dir()), root / "home/t"):
        (directory / "CTestTestfile.cmake").write_text(f'message("@@tests {directory}@@")\n')
        (directory / "s.cmake").write_text(CTEST_SCRIPT)
    return root


@needs_ctest
def test_whatever_ctest_reads_the_walker_found(ctest_tree: Path) -> None:
    compared = 0

    @real_runs(max(EXAMPLES // SHARE, 1))
    @given(lists_of(CTEST_WORDS, most=4))
    def check(generated: list[str]) -> None:
        nonlocal compared
        args = ["-N", *placed(generated, ctest_tree)]
        for what, path in re.findall(r"@@(\w+) (.*?)@@", run([CTEST, *args], ctest_tree)):
            compared += 1
            assert posixpath.normpath(path) in held("ctest", args, ctest_tree), what

    check()
    assert compared >= EXAMPLES // SHARE // 3, "too few of the argument lists made ctest read anything"


@needs_ctest
def test_ctest_expands_a_tilde_and_the_walker_says_so(ctest_tree: Path) -> None:
    args = ["-N", "--test-dir", "~/t"]
    assert f"@@tests {ctest_tree / 'home/t'}@@" in run([CTEST, *args], ctest_tree, ctest_tree / "home")
    assert [path.expands_home for path in path_arguments("ctest", args)] == [True]


@needs_ctest
def test_ctest_writes_its_log_where_it_started_and_builds_where_it_is_told(ctest_tree: Path) -> None:
    (ctest_tree / "a/CMakeLists.txt").write_text(
        'cmake_minimum_required(VERSION 3.13)\nproject(x NONE)\nmessage("@@source ${CMAKE_SOURCE_DIR}@@")\n'
    )
    args = ["--build-and-test", "a", "b", "--build-generator", "Unix Makefiles", "--build-options", "-DX=y"]
    assert f"@@source {ctest_tree / 'a'}@@" in run([CTEST, *args], ctest_tree)
    assert held("ctest", args, ctest_tree)[1:] == [str(ctest_tree / "a"), str(ctest_tree / "b")]
    args = ["-N", "--test-dir", "a", "-O", "o.log"]
    run([CTEST, *args], ctest_tree)
    assert (ctest_tree / "o.log").exists() and str(ctest_tree / "o.log") in held("ctest", args, ctest_tree)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--test-dir=d", "--test-dir d p"),
        ("-S s.cmake,arg", "-S s.cmake p"),
        ("-S ,arg", ""),
        ("--build-and-test s b --build-exe-dir e", "--build-and-test s p; --build-and-test b p; --build-exe-dir e p"),
        ("--build-and-test s", "--build-and-test s p"),
        ("--test-command t --test-dir d", ""),
        ("--output-junit /r --resource-spec-file /g", "--output-junit /r f; --resource-spec-file /g f"),
    ],
)
def test_paths_of_ctest(line: str, found: str) -> None:
    assert_found("ctest", line, found)


# meson

MESON_LINES = (
    "setup @/o1 src", "setup src o2", "o3 src", "setup --prefix /x o4 src", "setup --prefix=/x src ./o5",
    "setup -Dwerror=true o6 src", "setup -D werror=true o7 src", "setup -- o8 src", "setup --debug o9 src",
    "setup --prefi /x o10 src", "setup --buildtype plain o11 src", "--wrap-mode nodownload o12 src", "setup ~ src",
)


@pytest.fixture(scope="module")
def meson_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("meson") / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src/meson.build").write_text("project('x')\n")
    return root


@needs_ninja
@pytest.mark.parametrize("line", MESON_LINES)
def test_meson_sets_up_what_the_walker_found(meson_tree: Path, line: str) -> None:
    args = placed(line.split(), meson_tree)
    used = re.findall(r"^(?:Source|Build) dir: (.*)$", run([*MESON, *args], meson_tree), re.MULTILINE)
    assert len(used) == 2
    assert sorted(used) == sorted(held("meson", args, meson_tree)[1:])
    assert not any(path.expands_home for path in path_arguments("meson", args))


@needs_ninja
def test_meson_goes_where_the_walk_ends(meson_tree: Path) -> None:
    shutil.rmtree(meson_tree / "b", ignore_errors=True)
    run([*MESON, "setup", "b", "src"], meson_tree)
    for line in ("-C b", "-Cb", "-C=b", "-vC b", "-C src -C ./b", "-j 1 -C b", "--jobs=1 -C b", "--job 1 -Cb"):
        args = ["compile", *line.split()]
        assert f"ninja: Entering directory `{meson_tree / 'b'}'" in run([*MESON, *args], meson_tree), line
        assert held("meson", args, meson_tree) == [str(meson_tree / "b")], line
    args = ["devenv", "-C", "b", "--workd", "src", "pwd", "-P", "-L"]
    assert run([*MESON, *args], meson_tree).strip() == str(meson_tree / "src")
    assert held("meson", args, meson_tree)[1:] == [str(meson_tree / "b"), str(meson_tree / "src")]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("setup b --native-file n.ini --cross-file=c.ini", "PATH b p; --native-file n.ini f; --cross-file c.ini f"),
        ("configure b -Dx=y", "PATH b p"),
        ("introspect b --targets", "PATH b p"),
        ("test -C b --suite -C name", "-C b d; -C name d"),
        ("test -C b ../t", "-C b d"),
        ("install -Cb --destdir /d", "-C b d; --destdir /d f"),
        ("init -C d --builddir b x.c", "-C d d; --builddir b p; PATH x.c p"),
        ("init --build -C d", "-C d d"),
        ("rewrite -s src kwargs", "--sourcedir src p"),
        ("subprojects update --sourcedir=src", "--sourcedir src p"),
        ("format -c f.ini -o out meson.build", "--configuration f.ini p; --output out p; PATH meson.build p"),
        ("env2mfile --cross -o out", "-o out p"),
        ("runpython x.py -C d", ""),
        ("help compile", ""),
    ],
)
def test_paths_of_meson(line: str, found: str) -> None:
    assert_found("meson", line, found)


# cargo, as 1.95.0 was seen to read it


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("build --manifest-path a/Cargo.toml", "--manifest-path a/Cargo.toml p"),
        ("build --manifest-path=a/Cargo.toml", "--manifest-path a/Cargo.toml p"),
        ("build --manifest-pa a/Cargo.toml", ""),  # an error
        ("-C a build", "-C a d"),
        ("-Ca build", "-C a d"),
        ("-C=a build", "-C a d"),
        ("-vCa build", "-C a d"),
        ("-Zunstable-options -C a build --manifest-path ../b/Cargo.toml", "-C a d; --manifest-path ../b/Cargo.toml p"),
        ("+stable build --target-dir t", "--target-dir t p"),
        ("--config c.toml build", "--config c.toml p"),
        ("build --config=c.toml", "--config c.toml p"),
        ("build --config net.retry=1 --config http.cainfo='../../x'", ""),
        ("run -q x --manifest-path a", ""),  # what is run gets it
        ("run --manifest-path a x -Cb", "--manifest-path a p"),
        ("run --bin x --manifest-path a", "--manifest-path a p"),
        ("r x --target-dir t", ""),
        ("run -- --manifest-path a", ""),
        ("test name --manifest-path a -- -C x", "--manifest-path a p"),
        ("rustc -- -C opt-level=3", ""),
        ("build --manifest-path -v -C a", "-C a d"),  # an error: no value begins with a dash
        ("new --bin q", "PATH q p"),
        ("+nightly -v new --bin q", "PATH q p"),
        ("new -- q", "PATH q p"),
        ("init --name x q", "PATH q p"),
        ("vendor -s a/Cargo.toml v", "--sync a/Cargo.toml p; PATH v p"),
        ("install --path a --root /usr/local", "--path a p; --root /usr/local f"),
        ("add --path ../x x", "--path ../x p"),
        ("-Zscript ./s.rs --manifest-path a", "PATH ./s.rs p"),
        ("", ""),
    ],
)
def test_paths_of_cargo(line: str, found: str) -> None:
    assert_found("cargo", line, found)


# go, as 1.27.3 was seen to read it


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("build -C a", "-C a d"),
        ("build --C=a", "-C a d"),
        ("-C a list", "-C a d"),
        ("-C=a list", "-C a d"),
        ("list -m -C a", ""),  # an error: it must be the first
        ("list -C a -C b", "-C a d"),
        ("-C a list -C b", "-C a d"),
        ("mod edit -C a -json", "-C a d"),
        ("-C a mod edit -json", "-C a d"),
        ("work -C a init ../x", "-C a d; PATH ../x p"),
        ("env -C a GOMOD", "-C a d"),
        ("tool -C a compile -o x", "-C a d"),
        ("list -C a -modfile ../b/go.mod -m", "-C a d; -modfile ../b/go.mod p"),
        ("build --modfile=a/go.mod --overlay o.json", "-modfile a/go.mod p; -overlay o.json p"),
        ("build -o out ./cmd/x", "-o out p; PATH ./cmd/x p"),
        ("build -tags x -o out -ldflags -o .", "-o out p; PATH . p"),
        ("list -f -modfile a/go.mod", ""),  # the value of -f
        ("list . -modfile a/go.mod", "PATH . p"),
        ("list -- -modfile ../x", "PATH ../x p"),
        ("build example.com/x std ../y/... a/b.go", "PATH ../y/... p; PATH a/b.go p"),
        ("run ./a -modfile x ../y", "PATH ./a p"),
        ("run x.go y.go z ../w", "PATH x.go p; PATH y.go p"),
        ("run example.com/x@v1 ../w", ""),
        ("test . foo -modfile m", "PATH . p; -modfile m p"),
        ("test . -args -modfile m", "PATH . p"),
        ("test -c -o t -coverprofile=c.out -outputdir d", "-o t p; -coverprofile c.out p; -outputdir d p"),
        ("vet -c 1 -modfile m", "-modfile m p"),
        ("test -c -modfile m", "-modfile m p"),
        ("build -pgo /p.pgo", "-pgo /p.pgo f"),
        ("work use ../x", "PATH ../x p"),
        ("mod vendor -o v", "-o v p"),
        ("help -C a", "-C a d"),
        ("", ""),
    ],
)
def test_paths_of_go(line: str, found: str) -> None:
    assert_found("go", line, found)


# npm, as 11.19.1 was seen to read it


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--prefix a ci", "--prefix a p"),
        ("--prefix=a ci", "--prefix a p"),
        ("-C a ci", "--prefix a p"),
        ("-C=a ci", "--prefix a p"),
        ("--C a ci", "--prefix a p"),
        ("---prefix a ci", "--prefix a p"),
        ("-prefix a ci", "--prefix a p"),
        ("--prefi a ci", "--prefix a p"),
        ("--pref a ci", ""),  # ambiguous
        ("ci -C a", "--prefix a p"),
        ("run x -- -C a", ""),
        ("-sC a ci", "--prefix a p"),
        ("-Cs a ci", ""),
        ("-Ca ci", ""),
        ("--prefix --x ci", "--prefix --x p"),
        ("--prefix -- ci", ""),
        ("--no-prefix a ci", ""),
        ("-C a -C b ci", "--prefix a p; --prefix b p"),
        ("--userconfig rc --globalconfig=rc2 ci", "--userconfig rc p; --globalconfig rc2 p"),
        ("--userc=rc ci", "--userconfig rc p"),
        ("--userconfig=/dev/null ci", ""),
        ("pack --pack-destination b", "--pack-destination b p"),
        ("pack --pack-destination -C a", "--prefix a p"),
        ("--cache /c -w packages/x ci", "--cache /c f; --workspace packages/x p"),
        ("", ""),
    ],
)
def test_paths_of_npm(line: str, found: str) -> None:
    assert_found("npm", line, found)


def test_npm_expands_a_tilde_before_a_slash_alone() -> None:
    assert [path.expands_home for path in path_arguments("npm", ["-C", "~/a", "-C", "~"])] == [True, False]


# bazel


@pytest.mark.parametrize("command", ["bazel", "bazelisk"])
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--output_base=/o --output_user_root u build //x", "--output_base /o p; --output_user_root u p"),
        ("--bazelrc=a.rc --bazelrc=/dev/null build //x", "--bazelrc a.rc p"),
        ("--batch --bazelrc a.rc build", "--bazelrc a.rc p"),
        ("build --output_base=/o //x", ""),  # an error, and so is the next
        ("build --profil=/p //x", ""),
        ("build //x --symlink_prefix=/s/ -c opt --profile p", "--symlink_prefix /s/ p; --profile p p"),
        ("--output_base o --host_jvm_args --bazelrc build", "--output_base o p"),
        ("build //x -- --profile p", ""),
        ("build --disk_cache=/c", "--disk_cache /c f"),
        ("", ""),
    ],
)
def test_paths_of_bazel(command: str, line: str, found: str) -> None:
    assert_found(command, line, found)
