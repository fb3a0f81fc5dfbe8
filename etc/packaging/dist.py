"""Builds the single-file programs dist/build-service, build-cli and build-ctl; `make dist` and the tests run it.

    dist.py [--output DIRECTORY] [PYTHON]...

Each file is the sh launcher of bin/ followed by a zip archive, so it starts by itself and `python3 FILE` works as
well. The archive holds the sources that the program imports, found by following its imports, and the same compiled
for every PYTHON named (default: the running one and each python3.N on PATH), each in a directory named after its
cache tag. Any other Python compiles the sources at each start. Two runs with the same Pythons give the same bytes:
members are sorted and stored, times fixed, and no path of the building machine goes in. It must never write
anywhere but the output directory, and imports nothing of the project.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "lib"
PACKAGE = "buildcore"
NEWEST_MINOR = 16
"""Interpreters python3.N are looked for from the program's oldest N up to this one."""

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
FILE_MODE = 0o100644

# name of the program: (its module, the oldest Python 3.N that it runs on)
PROGRAMS = {
    "build-cli": ("buildcore.caller.build_cli", 6),
    "build-ctl": ("buildcore.caller.build_ctl", 6),
    "build-service": ("buildcore.service.main", 9),
}

# The client is started by -c and not as a file, as that spares it importing runpy at each start.
CLIENT_START = """-I -S -c 'import _signal, sys
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
if sys.version_info < (3, 6):
    sys.exit("build-cli: Python 3.6 or later is needed, %s is %d.%d" % ((sys.executable,) + sys.version_info[:2]))
here = sys.argv.pop(1)
sys.path[:0] = [here + "/" + str(sys.implementation.cache_tag), here]
from buildcore.caller.build_cli import main
sys.exit(main(sys.argv[1:]))' "$0" "$@\""""

MAIN = """import signal
import sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, sys.path[0] + "/" + str(sys.implementation.cache_tag))
from {module} import main
sys.exit(main(sys.argv[1:]))
"""

# Run by each PYTHON: module names and sources come in, compiled files go out, as one stream of Python literals.
COMPILER = """
import ast, importlib._bootstrap_external as external, importlib.util, sys
compiled = {}
for name, source in ast.literal_eval(sys.stdin.read()):
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except SyntaxError:  # too new for this Python, which then has to do without that module
        continue
    if sys.version_info >= (3, 7):
        # UNCHECKED_HASH (PEP 552): valid as it is, no source or time is compared
        data = external._code_to_hash_pyc(code, importlib.util.source_hash(source.encode()), False)
    else:
        data = external._code_to_bytecode(code, 0, 0)
    compiled[name] = bytes(data)
print((sys.implementation.cache_tag, sorted(compiled.items())))
"""


def imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that a module of `package` imports, at its top or inside a function; some are no modules.

    What only a type checker reads (`if TYPE_CHECKING:`) does not count.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node = ast.Module(node.orelse, [])
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from imported_names(node, package)


def import_closure(module: str) -> dict[str, str]:
    """The sources that `module` needs, as {file name in the archive: source}; names that are no module are ignored."""
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = LIBRARY / name.replace(".", "/")
        is_package = path.is_dir()
        path = path / "__init__.py" if is_package else path.with_suffix(".py")
        member = path.relative_to(LIBRARY).as_posix()
        if name.split(".")[0] != PACKAGE or member in sources or not path.is_file():
            continue
        sources[member] = path.read_text(encoding="utf-8")
        package = name if is_package else name.rpartition(".")[0]
        waiting += [package, package.rpartition(".")[0], *imported_names(ast.parse(sources[member]), package)]
    return dict(sorted(sources.items()))


def compiled_by(python: str, sources: dict[str, str]) -> dict[str, bytes]:
    """The sources compiled by `python` as {CACHE_TAG/NAME.pyc: bytes}; OSError or ValueError when it does not run."""
    run = subprocess.run(
        [python, "-S", "-s", "-c", COMPILER],
        input=repr(list(sources.items())),
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0"},
        capture_output=True,
        encoding="ascii",
    )
    if run.returncode:
        raise ValueError(run.stderr)
    tag, compiled = ast.literal_eval(run.stdout)
    return {f"{tag}/{name}c": data for name, data in compiled}


def interpreters(oldest_minor: int) -> list[str]:
    """The running interpreter and each python3.N on PATH, N from `oldest_minor` on; some may not run."""
    names = [f"python3.{minor}" for minor in range(oldest_minor, NEWEST_MINOR + 1)]
    return [sys.executable, *filter(None, map(shutil.which, names))]


def launcher(program: str) -> str:
    """The sh part of bin/PROGRAM; the client's starts the archive by -c."""
    text = (ROOT / "bin" / program).read_text(encoding="utf-8")
    head, closing, _ = text.partition('\n"""\n')
    if not closing:
        raise SystemExit(f'dist.py: bin/{program} has no line """ that ends its sh part')
    if program == "build-cli":
        started_as_file = '-I -S "$0" "$@"'
        if started_as_file not in head:
            raise SystemExit(f"dist.py: bin/{program} does not hold {started_as_file}")
        head = head.replace(started_as_file, CLIENT_START)
    return head.replace('\n""":"\n', "\n") + "\n"


def build(program: str, pythons: Sequence[str], output: Path) -> list[str]:
    """Writes output/PROGRAM and returns the cache tags that are compiled into it."""
    module, oldest_minor = PROGRAMS[program]
    sources = import_closure(module)
    members = {name: source.encode() for name, source in sources.items()}
    members["__main__.py"] = MAIN.format(module=module).encode()
    for python in pythons or interpreters(oldest_minor):
        try:
            members.update(compiled_by(python, sources))
        except (OSError, ValueError):
            if python in pythons:
                raise SystemExit(f"dist.py: {python} does not run") from None

    partial = output / f".{program}.partial"
    with open(partial, "wb") as file:
        file.write(launcher(program).encode())
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            for name, data in sorted(members.items()):
                info = zipfile.ZipInfo(name, ZIP_TIME)
                info.external_attr = FILE_MODE << 16
                archive.writestr(info, data)
    partial.chmod(0o755)
    partial.replace(output / program)
    return sorted({name.split("/")[0] for name in members if name.endswith(".pyc")})


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the single-file programs.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIRECTORY")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters to compile for")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        tags = build(program, options.pythons, options.output)
        size_kib = (options.output / program).stat().st_size // 1024
        print(f"{options.output / program}: {size_kib} KiB, compiled for {', '.join(tags) or 'no Python'}")


if __name__ == "__main__":
    main()
