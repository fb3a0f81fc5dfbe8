"""The paths in the arguments of CMake 3.20 to 3.31."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from . import make
from .options import PathArgument, Role, directories, getopt_paths

# cmake's options with a value. None stands for a value that is no path; such an option is listed so that its
# value is not taken for a bare path. -H is an old name of -S. A toolchain file comes with an SDK and is only
# read, so it is as free as a -D that names one.
_CMAKE_CONFIGURE: Mapping[str, Role | None] = {
    **dict.fromkeys(("-S", "-H", "-B", "-C", "-P"), Role.PATH),
    **dict.fromkeys(("--graphviz", "--trace-redirect", "--profiling-output"), Role.PATH),
    **dict.fromkeys(("--debugger-dap-log", "--debugger-pipe"), Role.PATH),
    **dict.fromkeys(("--toolchain", "--install-prefix"), Role.FREE),
    **dict.fromkeys(("-A", "-D", "-G", "-T", "-U", "-W", "--preset", "--list-presets"), None),
    **dict.fromkeys(("--log-level", "--loglevel", "--debug-find-pkg", "--debug-find-var"), None),
    **dict.fromkeys(("--trace-format", "--trace-source", "--profiling-format"), None),
}
_CMAKE_INSTALL: Mapping[str, Role | None] = {
    "--prefix": Role.FREE,
    **dict.fromkeys(("--config", "--component", "--default-directory-permissions"), None),
}
_CMAKE_BUILD = "--build"
_CMAKE_BUILD_FLAGS = ("--", "--clean-first", "--list-presets", "--use-stderr", "--verbose", "-v")
_CMAKE_BUILD_VALUES = ("--config", "--preset", "--resolve-package-references", "--target", "-t")


def paths(args: Sequence[str]) -> Iterator[PathArgument]:
    """The paths among the arguments of cmake (cmake(1)), whose first argument chooses what it is to do.

    `-E` runs any command, as a makefile does, so nothing of it is held; a workflow names a preset only.
    A `-D` that assigns a path is a variable like any other: neither mapped nor held.
    """
    mode = args[0] if args else ""
    if mode in ("-E", "--workflow"):
        return
    if mode not in (_CMAKE_BUILD, "--install", "--open"):
        yield from _cmake_options(_CMAKE_CONFIGURE, args, 0, bare_paths=True)
        return
    # The second argument is the directory even if it begins with a dash, except for an option of --build.
    if len(args) > 1 and args[1] and not (mode == _CMAKE_BUILD and _is_cmake_build_option(args[1])):
        role = Role.DIRECTORY if mode == _CMAKE_BUILD else Role.PATH
        yield PathArgument(1, 0, args[1], role, mode, args[1].startswith("~"))
    if mode == "--install":
        yield from _cmake_options(_CMAKE_INSTALL, args, 2, bare_paths=False)
    elif mode == _CMAKE_BUILD and "--" in args:
        # The rest goes to make or ninja, run in the build directory. Where ninja would read a -C or -f and
        # not stop with an error, make would read it, too, so the options of make find the paths for both.
        yield from getopt_paths(make.MAKE, args, args.index("--") + 1)


def walks(found: Sequence[PathArgument]) -> tuple[tuple[PathArgument, ...], ...]:
    """After `cmake --build DIR --` a make obeys the -C options as it does, a ninja only the last."""
    steps = directories(found)
    build = tuple(step for step in steps if step.option == _CMAKE_BUILD)
    native = steps[len(build):]
    return (steps, build + make.without_repeats(native), build + native[-1:])


def _is_cmake_build_option(arg: str) -> bool:
    if arg in _CMAKE_BUILD_FLAGS or arg.startswith(("-j", "--parallel")):
        return True
    return any(arg == name or arg.startswith((name + "=", name + " ")) for name in _CMAKE_BUILD_VALUES)


def _cmake_options(
    options: Mapping[str, Role | None], args: Sequence[str], begin: int, bare_paths: bool
) -> Iterator[PathArgument]:
    """The paths in `args[begin:]` by cmake's own rules. An option matches at the front of an argument; its
    value follows at once, or after "=", or as the next argument, which then must not begin with a dash.

    `bare_paths`: whether an argument that belongs to no option is a source or build directory.
    """
    index = begin
    script = False
    while index < len(args) and not (script and args[index] == "--"):
        arg = args[index]
        role: Role | None = Role.PATH if bare_paths and not arg.startswith("-") else None
        start = 0
        name = next((name for name in options if arg.startswith(name)), None)
        if name is not None:
            role, start = options[name], len(name)
            script = script or name == "-P"  # only after a script's name, "--" ends what cmake reads
            if arg != name:
                start += arg.startswith("=", start)
                start += arg.startswith(" ", start)  # since 3.21: "-S dir" as one argument
            elif index + 1 < len(args) and not args[index + 1].startswith("-"):
                index, start = index + 1, 0
        value = args[index][start:]
        if role is not None and value:
            yield PathArgument(index, start, value, role, name or "PATH", value.startswith("~"))
        index += 1
