"""`make release`: what it refuses, each fault by its own line, and what it makes, in real git repositories."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tools
from harness import TREE, write_tree

pytestmark = tools.needed("git")

VERSION, DATE = "9.8.7", "2031-05-06"
RELEASE = "1"
INIT = f'"""The library."""\n\n__version__ = "{VERSION}"\n'
CHANGELOG = f"""# Changelog

## [Unreleased]

## [{VERSION}] - {DATE}

### Added

- All of it.

## [9.8.6] - 2030-01-01

- What was before.
"""
HEADER = r'.TH BUILD\-SERVICE 8 {date} "build\-service {version}" "System Administration"'
PAGE = HEADER.format(date=DATE, version=VERSION) + "\n.SH NAME\nbuild\\-service \\- builds\n"
MINIMAL = {"lib/buildcore/__init__.py": INIT, "CHANGELOG.md": CHANGELOG, "etc/man/build-service.8": PAGE}

BUILT = ("build", "dist", "*.egg-info")

OTHERS = {name: value for name, value in os.environ.items() if not re.match(r"GIT_|MAKE|MFLAGS|SOURCE_DATE", name)}
WHO = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "test")
ENVIRONMENT = {**OTHERS, **WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}


def git(tree: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", tree, *arguments], check=True, capture_output=True, env=ENVIRONMENT)


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "-m", "A change")


def tagged(tree: Path) -> Path:
    """Makes a repository of the tree, whose one commit has the tag of its version."""
    git(tree, "init")
    commit(tree)
    git(tree, "tag", f"v{VERSION}")
    return tree


def release(tree: Path, *arguments: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, tree / "etc/packaging/release.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, "PATH": path})


def faults(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it found, a line each; what it prints, and its exit code, must be those of a refusal."""
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "") and lines, done
    assert all(line.startswith("release.py: ") for line in lines), lines
    return [line.partition(": ")[2] for line in lines]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The least that is a release: the tool, and the places that name a version."""
    tree = write_tree(tmp_path / "tree", MINIMAL)
    (tree / "etc/packaging").mkdir()
    shutil.copy(TREE / "etc/packaging/release.py", tree / "etc/packaging")
    return tagged(tree)


def rewrite(tree: Path, name: str, old: str, new: str) -> None:
    text = (tree / name).read_text()
    assert text.count(old) == 1
    (tree / name).write_text(text.replace(old, new))


# --- the tree ---------------------------------------------------------------------------------------------------------


def assert_sound(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_tree_in_which_all_agrees_is_released_without_a_word(tree: Path) -> None:
    assert_sound(release(tree, "check"))


def test_the_tag_may_be_annotated_and_one_of_several(tree: Path) -> None:
    git(tree, "tag", "--delete", f"v{VERSION}")
    git(tree, "tag", "nightly")
    git(tree, "tag", "--annotate", "--message", "The release", f"v{VERSION}")
    assert_sound(release(tree, "check"))


CHANGED = {
    "a line under Unreleased": (
        "CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- One thing more.\n",
        "CHANGELOG.md: [Unreleased] is not empty: - One thing more.",
    ),
    "no Unreleased": (
        "CHANGELOG.md", "## [Unreleased]\n", "",
        "CHANGELOG.md: there is no section [Unreleased] above all others",
    ),
    "not in the changelog": (
        "CHANGELOG.md", f"## [{VERSION}] - {DATE}\n\n### Added\n\n- All of it.\n", "",
        f"CHANGELOG.md: the newest release is [9.8.6], not [{VERSION}]",
    ),
    "an empty section": (
        "CHANGELOG.md", "- All of it.\n", "",
        f"CHANGELOG.md: [{VERSION}] has no entry",
    ),
    "no date": (
        "CHANGELOG.md", f"## [{VERSION}] - {DATE}", f"## [{VERSION}]",
        f"CHANGELOG.md: [{VERSION}] has no date: ## [{VERSION}] - YYYY-MM-DD",
    ),
    "another version in a page": (
        "etc/man/build-service.8", f"service {VERSION}", "service 9.8.6",
        f"etc/man/build-service.8: its header names build-service 9.8.6, not build-service {VERSION}",
    ),
    "another day in a page": (
        "etc/man/build-service.8", DATE, "2031-05-05",
        f"etc/man/build-service.8: its header has the date 2031-05-05, the release {DATE}",
    ),
    "a page without a header": (
        "etc/man/build-service.8", ".TH", ".SH",
        "etc/man/build-service.8: no line .TH with a date and a version",
    ),
    "no version": (
        "lib/buildcore/__init__.py", VERSION, "9.8",
        'lib/buildcore/__init__.py: no line __version__ = "X.Y.Z"',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "fault"), CHANGED.values(), ids=list(CHANGED))
def test_what_does_not_agree_is_one_line(tree: Path, name: str, old: str, new: str, fault: str) -> None:
    rewrite(tree, name, old, new)
    commit(tree)
    git(tree, "tag", "--force", f"v{VERSION}")
    assert faults(release(tree, "check")) == [fault]


@pytest.mark.parametrize("date", ["2031-02-29", "06.05.2031", "20310506", "2031-5-6", "soon"])
def test_a_date_is_a_day_that_there_is_in_the_form_of_iso_8601(tree: Path, date: str) -> None:
    rewrite(tree, "CHANGELOG.md", DATE, date)
    rewrite(tree, "etc/man/build-service.8", DATE, date)
    commit(tree)
    git(tree, "tag", "--force", f"v{VERSION}")
    assert faults(release(tree, "check")) == [f"CHANGELOG.md: [{VERSION}] has no date: ## [{VERSION}] - YYYY-MM-DD"]


def test_a_release_under_way_has_headings_below_unreleased_and_no_entry(tree: Path) -> None:
    rewrite(tree, "CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n### Added\n")
    assert "CHANGELOG.md: [Unreleased] is not empty: ### Added" in faults(release(tree, "check"))


@pytest.mark.parametrize(("name", "more"), [("new", ""), ("CHANGELOG.md", ""), ("CHANGELOG.md", " and 1 more")])
def test_what_is_not_committed_is_named(tree: Path, name: str, more: str) -> None:
    with open(tree / name, "a") as file:
        file.write("\n")
    if more:
        (tree / "new").write_text("")
    assert faults(release(tree, "check")) == [f"the tree is not clean: {name}{more}; commit it, or take it away"]


def test_a_missing_tag_is_named_with_the_command_that_makes_it(tree: Path) -> None:
    git(tree, "tag", "--delete", f"v{VERSION}")
    git(tree, "tag", VERSION)
    line = f"the tag v{VERSION} is missing: git tag v{VERSION}, once all else is right"
    assert faults(release(tree, "check")) == [line]


def test_a_tag_on_another_commit_is_not_enough(tree: Path) -> None:
    git(tree, "commit", "--allow-empty", "-m", "One more")
    line = f"the tag v{VERSION} is on another commit: git tag --force v{VERSION}, once all else is right"
    assert faults(release(tree, "check")) == [line]


def test_without_a_repository_there_is_no_release(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    (fault,) = faults(release(tree, "check"))
    assert fault.startswith("no git repository to release from: git: ")


def test_the_repository_of_somebody_else_around_the_tree_does_not_count(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    tagged(tree.parent)
    line = f"no git repository to release from: {tree} is not a repository of its own"
    assert faults(release(tree, "check")) == [line]


def test_all_faults_are_told_at_once(tree: Path) -> None:
    for name, old, new, _ in (CHANGED[key] for key in ("a line under Unreleased", "an empty section", "no date")):
        rewrite(tree, name, old, new)
    rewrite(tree, "etc/man/build-service.8", VERSION, "9.8.6")
    git(tree, "tag", "--delete", f"v{VERSION}")
    found = faults(release(tree, "check"))
    wanted = ("[Unreleased]", "has no date", "has no entry", "its header names", "is not clean", "is missing")
    assert len(found) == len(wanted) and all(part in line for part, line in zip(wanted, found)), found


# --- what is built ----------------------------------------------------------------------------------------------------


def make_release(tree: Path) -> subprocess.CompletedProcess[str]:
    variables = [f"PYTHON={sys.executable}", f"DIST_PYTHONS={sys.executable}", f"RELEASE={RELEASE}"]
    return subprocess.run(["make", "-C", tree, *variables, "release"], capture_output=True, text=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of this project, as it is when VERSION is released."""
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", *BUILT, "tests")
    tree = Path(shutil.copytree(TREE, tmp_path_factory.mktemp("release") / "tree", ignore=left_out))
    (tree / "CHANGELOG.md").write_text(CHANGELOG)
    init = tree / "lib/buildcore/__init__.py"
    init.write_text(re.sub("(?m)^__version__ = .*", f'__version__ = "{VERSION}"', init.read_text()))
    for page in (tree / "etc/man").iterdir():
        header = r'(?m)^(\.TH \S+ \S+ )\S+( "build\\-service )[^"]*'
        page.write_text(re.sub(header, rf"\g<1>{DATE}\g<2>{VERSION}", page.read_text()))
    return tagged(tree)


@pytest.fixture(scope="module")
def built(sources: Path) -> Path:
    """The directory that `make release` filled."""
    done = make_release(sources)
    assert done.returncode == 0, done
    return sources / "dist"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "dist"))


def verify(sources: Path, output: Path, **options: str) -> subprocess.CompletedProcess[str]:
    return release(sources, "verify", "--release", RELEASE, "--output", output, **options)


def names() -> set[str]:
    packages = {f"build-service{part}-{VERSION}-{RELEASE}.noarch.rpm" for part in ("", "-client")}
    debs = {f"build-service{part}_{VERSION}-{RELEASE}_all.deb" for part in ("", "-client")}
    return {
        *("build-cli", "build-ctl", "build-service", f"buildcore-{VERSION}-py3-none-any.whl"),
        *(packages if tools.is_here("rpmbuild") else ()),
        *(debs if tools.is_here("dpkg-deb") else ()),
    }


def test_a_release_is_programs_packages_and_wheel_and_their_checksums(built: Path, sources: Path) -> None:
    assert {path.name for path in built.iterdir()} == names() | {"SHA256SUMS"}
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=built, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count(": OK\n") == len(names())
    assert_sound(release(sources, "check"))  # the tree is as it was


def test_nothing_is_built_of_a_tree_that_is_no_release(sources: Path, tmp_path: Path) -> None:
    untagged = Path(shutil.copytree(sources, tmp_path / "tree", ignore=shutil.ignore_patterns(*BUILT)))
    git(untagged, "tag", "--delete", f"v{VERSION}")
    done = make_release(untagged)
    assert done.returncode and f"release.py: the tag v{VERSION} is missing" in done.stderr
    assert not (untagged / "dist").exists()


def test_a_second_release_is_the_same_to_the_byte_and_has_nothing_of_another(
    built: Path, sources: Path, tmp_path: Path
) -> None:
    tree = Path(shutil.copytree(sources, tmp_path / "tree", ignore=shutil.ignore_patterns(*BUILT)))
    write_tree(tree / "dist", {"build-service_9.8.6-1_all.deb": "", "buildcore-9.8.6-py3-none-any.whl": ""})
    done = make_release(tree)
    assert done.returncode == 0, done
    assert (tree / "dist/SHA256SUMS").read_text() == (built / "SHA256SUMS").read_text()


OLD_PROGRAM = "#!/bin/sh\necho build-ctl 9.8.6\n"
SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing file": (
        lambda dist: (dist / "build-cli").unlink(),
        "build-cli was not built",
    ),
    "an old program": (
        lambda dist: (dist / "build-ctl").write_text(OLD_PROGRAM),
        f"build-ctl says that it is build-ctl 9.8.6, not build-ctl {VERSION}",
    ),
    "a program that does not run": (
        lambda dist: (dist / "build-service").write_text("#!/bin/sh\necho no luck >&2; exit 3\n"),
        "build-service does not tell its version: build-service: no luck",
    ),
    "a wheel that is none": (
        lambda dist: (dist / f"buildcore-{VERSION}-py3-none-any.whl").write_text("PK"),
        f"buildcore-{VERSION}-py3-none-any.whl does not tell its version: no wheel: File is not a zip file",
    ),
    "a file of another release": (
        lambda dist: (dist / "buildcore-9.8.6-py3-none-any.whl").write_text(""),
        "buildcore-9.8.6-py3-none-any.whl is not of this release: take it out of {dist}",
    ),
}


@pytest.mark.parametrize(("spoil", "fault"), SPOILED.values(), ids=list(SPOILED))
def test_what_was_not_built_right_is_one_line(
    spoil: Callable[[Path], object], fault: str, copy: Path, sources: Path
) -> None:
    (copy / "SHA256SUMS").unlink()
    spoil(copy)
    assert faults(verify(sources, copy)) == [fault.format(dist=copy)]
    assert not (copy / "SHA256SUMS").exists()


@pytest.mark.parametrize("tool", ["rpmbuild", "dpkg-deb"])
def test_a_package_is_asked_itself_and_not_its_file_s_name(tool: str, copy: Path, sources: Path) -> None:
    tools.need(tool)
    kind = "*.rpm" if tool == "rpmbuild" else "*.deb"
    client, service = sorted(copy.glob(kind), key=lambda path: "client" not in path.name)
    shutil.copy(client, service)
    said, wanted = (f"{name} {VERSION}-{RELEASE}" for name in ("build-service-client", "build-service"))
    assert faults(verify(sources, copy)) == [f"{service.name} says that it is {said}, not {wanted}"]


def test_a_wheel_is_asked_itself_and_not_its_file_s_name(copy: Path, sources: Path) -> None:
    init = sources / "lib/buildcore/__init__.py"
    before = init.read_text()
    init.write_text(before.replace(VERSION, "9.8.8"))
    try:
        old, new = (f"buildcore-{version}-py3-none-any.whl" for version in (VERSION, "9.8.8"))
        (copy / old).rename(copy / new)
        found = faults(verify(sources, copy))
    finally:
        init.write_text(before)
    assert f"{new} says that it is buildcore {VERSION}, not buildcore 9.8.8" in found
    assert f"build-cli says that it is build-cli {VERSION}, not build-cli 9.8.8" in found


def test_a_kind_of_package_that_is_not_made_here_is_said_to_be_missing(
    copy: Path, sources: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    (path / "python3").symlink_to(sys.executable)
    (path / "sh").symlink_to("/bin/sh")
    for package in [*copy.glob("*.rpm"), *copy.glob("*.deb")]:
        package.unlink()
    done = verify(sources, copy, path=str(path))
    assert done.returncode == 0, done
    said = re.findall(r"^release.py: there is no (\w+) package in this release: ", done.stdout, re.MULTILINE)
    assert said == ["rpm", "deb"]
