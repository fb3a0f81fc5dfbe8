"""Checks that a release is one: `make release` runs it before it builds and again on what it built.

    release.py check
    release.py verify --release RELEASE [--output DIRECTORY]

`check` asks whether the tree is that of one version, whose number stands in lib/buildcore/__init__.py: nothing is
uncommitted, HEAD has the tag vVERSION, CHANGELOG.md has a dated section for it and nothing unreleased above, the manual
pages name it. `verify` asks each file in the output directory for its version (the programs themselves, rpm, dpkg-deb,
the wheel's METADATA), and writes SHA256SUMS beside them when all is well. A kind of package whose tool is not on PATH
is not part of the release, and that is said. Each prints every fault, one a line, and then ends with 1. It must never
change the tree, and imports nothing of the project.
"""

from __future__ import annotations

import argparse
import datetime
import email
import hashlib
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION_FILE = "lib/buildcore/__init__.py"
CHANGELOG = "CHANGELOG.md"
PROGRAMS = ("build-cli", "build-ctl", "build-service")
PACKAGES = ("build-service", "build-service-client")
CHECKSUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """Something could not be asked; its text is a line for the user."""


def output_of(command: Sequence[str | Path]) -> str:
    """What a program prints, without blanks at its ends; ReleaseError when it is not there or fails."""
    name = Path(command[0]).name
    try:
        run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL)
    except OSError as exc:
        raise ReleaseError(f"{name}: {exc.strerror}") from exc
    if run.returncode:
        words = (run.stderr or run.stdout).strip().splitlines() or [f"ended with {run.returncode}"]
        raise ReleaseError(f"{name}: {words[0]}")
    return run.stdout.strip()


# --- before it is built -------------------------------------------------------------------------------------------


def own_version() -> str:
    """The version of this tree; ReleaseError when it has none of the form of Semantic Versioning."""
    found = re.search(r'^__version__ = "(.*)"', (ROOT / VERSION_FILE).read_text(encoding="utf-8"), re.MULTILINE)
    if not found or not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", found[1]):
        raise ReleaseError(f"{VERSION_FILE}: no line __version__ = \"X.Y.Z\"")
    return found[1]


def faults_of_repository(version: str) -> Iterator[str]:
    """What is wrong with the commit that is checked out."""
    git = ("git", "-C", str(ROOT))
    try:
        if Path(output_of([*git, "rev-parse", "--show-toplevel"])) != ROOT:
            raise ReleaseError(f"{ROOT} is not a repository of its own")
        changed = output_of([*git, "status", "--porcelain"]).splitlines()
        tagged = output_of([*git, "tag", "--list", f"v{version}"])
        tags_here = output_of([*git, "tag", "--points-at", "HEAD"]).splitlines()
    except ReleaseError as exc:
        yield f"no git repository to release from: {exc}"
        return
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        yield f"the tree is not clean: {changed[0].split(maxsplit=1)[1]}{more}; commit it, or take it away"
    if f"v{version}" not in tags_here:
        why = "is on another commit" if tagged else "is missing"
        yield f"the tag v{version} {why}: git tag {'--force ' if tagged else ''}v{version}, once all else is right"


class Section(NamedTuple):
    """One section of the changelog: `date` is None where its heading has none."""

    name: str
    date: str | None
    text: str


def sections() -> list[Section]:
    """The sections of the changelog, the newest first, as Keep a Changelog has them."""
    _, *parts = re.split(r"^## ", (ROOT / CHANGELOG).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for part in parts:
        heading, _, text = part.partition("\n")
        name, dash, date = heading.partition(" - ")
        found.append(Section(name.strip(), date.strip() if dash else None, text))
    return found


def is_date(text: str) -> bool:
    """Whether it is a day in the form YYYY-MM-DD (ISO 8601)."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def faults_of_changelog(version: str) -> Iterator[str]:
    released = sections()
    if released and released[0].name == "[Unreleased]":
        text = released.pop(0).text.strip()
        if text:
            yield f"{CHANGELOG}: [Unreleased] is not empty: {text.splitlines()[0]}"
    else:
        yield f"{CHANGELOG}: there is no section [Unreleased] above all others"
    if not released or released[0].name != f"[{version}]":
        newest = released[0].name if released else "none"
        yield f"{CHANGELOG}: the newest release is {newest}, not [{version}]"
        return
    newest_section = released[0]
    if newest_section.date is None or not is_date(newest_section.date):
        yield f"{CHANGELOG}: [{version}] has no date: ## [{version}] - YYYY-MM-DD"
    if not re.search(r"^- \S", newest_section.text, re.MULTILINE):
        yield f"{CHANGELOG}: [{version}] has no entry"


def faults_of_pages(version: str) -> Iterator[str]:
    """The manual pages whose header names another version than this, or another day than that of the release."""
    released = next((section.date for section in sections() if section.name == f"[{version}]"), None)
    for page in sorted((ROOT / "etc/man").iterdir()):
        place = page.relative_to(ROOT)
        header = re.search(r'^\.TH \S+ \S+ (\S+) "(.*?)"', page.read_text(encoding="utf-8"), re.MULTILINE)
        if not header:
            yield f"{place}: no line .TH with a date and a version"
            continue
        date, named = (text.replace("\\-", "-") for text in header.groups())
        if named != f"build-service {version}":
            yield f"{place}: its header names {named}, not build-service {version}"
        if released and date != released:
            yield f"{place}: its header has the date {date}, the release {released}"


def check() -> list[str]:
    """Every fault of the tree."""
    try:
        version = own_version()
    except ReleaseError as exc:
        return [str(exc)]
    return [*faults_of_changelog(version), *faults_of_pages(version), *faults_of_repository(version)]


# --- once it is built ---------------------------------------------------------------------------------------------


def artifacts(version: str, release: str) -> dict[str, str]:
    """What a release consists of, as {file name: what it has to say of itself}; packages only of kinds made here."""
    found = {program: f"{program} {version}" for program in PROGRAMS}
    found[f"buildcore-{version}-py3-none-any.whl"] = f"buildcore {version}"
    for package in PACKAGES:
        said = f"{package} {version}-{release}"
        if shutil.which("rpmbuild"):
            found[f"{package}-{version}-{release}.noarch.rpm"] = said
        if shutil.which("dpkg-deb"):
            found[f"{package}_{version}-{release}_all.deb"] = said
    return dict(sorted(found.items()))


def said_by(path: Path) -> str:
    """The name and the version that a file of the release gives of itself; ReleaseError when it gives none."""
    if path.suffix == ".rpm":
        return output_of(["rpm", "-qp", "--qf", "%{NAME} %{VERSION}-%{RELEASE}", path])
    if path.suffix == ".deb":
        return output_of(["dpkg-deb", "-W", "--showformat=${Package} ${Version}", path])
    if path.suffix == ".whl":
        return said_by_wheel(path)
    return output_of([path, "--version"])


def said_by_wheel(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise ReleaseError(f"no wheel: {exc}") from exc
    return f"{metadata['Name']} {metadata['Version']}"


def faults_of_artifact(path: Path, expected: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name} was not built"
        return
    try:
        said = said_by(path)
    except ReleaseError as exc:
        yield f"{path.name} does not tell its version: {exc}"
        return
    if said != expected:
        yield f"{path.name} says that it is {said}, not {expected}"


def verify(release: str, output: Path) -> list[str]:
    """Every fault of what was built; where there is none, writes the checksums and prints them."""
    wanted = artifacts(own_version(), release)
    faults = [fault for name, expected in wanted.items() for fault in faults_of_artifact(output / name, expected)]
    others = {path.name for path in output.iterdir()} - {*wanted, CHECKSUMS}
    faults += [f"{name} is not of this release: take it out of {output}" for name in sorted(others)]
    if not faults:
        sums = "".join(f"{hashlib.sha256((output / name).read_bytes()).hexdigest()}  {name}\n" for name in wanted)
        (output / CHECKSUMS).write_text(sums, encoding="utf-8")
        print(sums, end="")
        for tool, kind in (("rpmbuild", "rpm"), ("dpkg-deb", "deb")):
            if not shutil.which(tool):
                print(f"release.py: there is no {kind} package in this release: {tool} is not on PATH")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Check that a release is one.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="of the tree, before it is built")
    built = commands.add_parser("verify", help="of what was built")
    built.add_argument("--release", required=True, help="which build of the version the packages are")
    built.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIRECTORY")
    options = parser.parse_args()
    try:
        faults = check() if options.command == "check" else verify(options.release, options.output)
    except (ReleaseError, OSError) as exc:
        faults = [str(exc)]
    if faults:
        raise SystemExit("\n".join(f"release.py: {fault}" for fault in faults))


if __name__ == "__main__":
    main()
