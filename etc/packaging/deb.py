"""Builds the Debian packages of `make deb` out of an installed tree: the service, and the client alone for images.

    deb.py --tree DIRECTORY --version VERSION [--output DIRECTORY] [--static PROGRAM]

With --static it is one package alone, of the client in C, which PROGRAM is (`make deb-static-client`). The tree is
what `make install DESTDIR=DIRECTORY PREFIX=/usr` made; each of its files goes to one of the packages. For each package
etc/packaging/debian/ has a directory with its control file and scripts. What is added here is what Debian asks of a
package: compressed manual pages, copyright, changelogs, conffiles, md5sums. It needs dpkg-deb, and nothing else of
Debian. The same tree and SOURCE_DATE_EPOCH give the same bytes; it must never change the tree, and imports nothing of
the project.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ROOT / "etc/packaging/debian"

SERVICE, CLIENT, STATIC = "build-service", "build-service-client", "build-service-client-static"
CLIENT_FILES = ("build-cli", "build-cli.1", "build-ctl", "build-ctl.1", "make-wrapper.sh", "Containerfile.snippet")
"""Names of the files of the client's package, wherever they are; every other file is the service's."""

STATIC_FILES = ("build-cli.1", "make-wrapper.sh")
"""Those that stand beside the static program in its package."""

CHANGELOG = """{package} ({version}) unstable; urgency=medium

  * What is new: changelog.gz in this directory.

 -- build-service authors <build-service@localhost>  {date}
"""


def files_in(tree: Path) -> Iterator[Path]:
    """The files and links below `tree`, relative to it."""
    return (path.relative_to(tree) for path in sorted(tree.rglob("*")) if path.is_symlink() or not path.is_dir())


def is_of(package: str, name: str) -> bool:
    """Whether a package has the file of that name from the tree."""
    if package == STATIC:
        return name in STATIC_FILES
    return package == (CLIENT if name in CLIENT_FILES else SERVICE)


def architecture() -> str:
    """Debian's name of this machine's."""
    return subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()


def copy_files(package: str, tree: Path, target: Path) -> None:
    """Copies what is the package's from `tree` to `target`, manual pages compressed."""
    for path in files_in(tree):
        if not is_of(package, path.name):
            continue
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / path, copy, follow_symlinks=False)
        if path.match("share/man/man?/*"):
            write_compressed(copy.with_name(copy.name + ".gz"), copy.read_bytes())
            copy.unlink()


def write_compressed(path: Path, text: bytes) -> None:
    """Without a time or a name in it, so that the same text gives the same bytes."""
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    path.chmod(0o644)


def add_documents(package: str, version: str, epoch: int, target: Path) -> None:
    """Adds copyright and changelogs, where Debian looks for them."""
    directory = target / "usr/share/doc" / package
    directory.mkdir(parents=True)
    shutil.copyfile(ROOT / "LICENSE", directory / "copyright")
    write_compressed(directory / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())
    changelog = CHANGELOG.format(package=package, version=version, date=formatdate(epoch))
    write_compressed(directory / "changelog.Debian.gz", changelog.encode())


def add_control(package: str, version: str, target: Path) -> None:
    """Adds the directory DEBIAN: control with its version and size, the scripts, and the lists of files."""
    files = [path for path in files_in(target) if not (target / path).is_symlink()]
    size_kib = sum((target / path).stat().st_size // 1024 + 1 for path in files)
    texts = {path.name: path.read_text(encoding="utf-8") for path in (PACKAGES / package).iterdir()}
    control_text = texts["control"].replace("@VERSION@", version).replace("@ARCHITECTURE@", architecture())
    texts["control"] = f"{control_text}Installed-Size: {size_kib}\n"
    texts["conffiles"] = "".join(f"/{path}\n" for path in files if path.parts[0] == "etc")
    texts["md5sums"] = "".join(f"{hashlib.md5((target / path).read_bytes()).hexdigest()}  {path}\n" for path in files)
    control = target / "DEBIAN"
    control.mkdir()
    for name, text in texts.items():
        if text:
            (control / name).write_text(text, encoding="utf-8")
            (control / name).chmod(0o755 if text.startswith("#!") else 0o644)


def build(package: str, tree: Path, version: str, epoch: int, output: Path, static: Path | None = None) -> Path:
    """Writes output/PACKAGE_VERSION_all.deb, or that of this architecture with the program `static` in it, and returns
    its path; CalledProcessError when dpkg-deb refuses."""
    path = output / f"{package}_{version}_{architecture() if static else 'all'}.deb"
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, package)
        copy_files(package, tree, target)
        if static:
            (target / "usr/bin").mkdir(parents=True)
            shutil.copy(static, target / "usr/bin/build-cli")
        add_documents(package, version, epoch, target)
        add_control(package, version, target)
        # xz, as dpkg before 1.21.18 reads no zstd, the default of some
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(target), str(path)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Debian packages.")
    parser.add_argument("--tree", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--version", required=True)
    parser.add_argument("--static", type=Path, metavar="PROGRAM")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIRECTORY")
    options = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        raise SystemExit("deb.py: dpkg-deb is needed and was not found on PATH; it is in the package dpkg")
    os.umask(0o022)
    options.output.mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    for package in (STATIC,) if options.static else (CLIENT, SERVICE):
        print(build(package, options.tree, options.version, epoch, options.output, options.static))


if __name__ == "__main__":
    main()
