"""Names of environment variables: those that builds read by custom, and what a list with patterns in it allows.

The settings take their default from here and the client what it sends, so that both are the same. Syntax of Python 3.6
and no import, as the client loads it at each start. It knows names alone, never a value.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, List, Tuple

ACCOUNT = ("PATH", "HOME", "USER")
"""What a build has from its account and the service; a caller's own means nothing on the host."""

BY_CUSTOM = tuple(
    (
        "PWD MAKEFLAGS GNUMAKEFLAGS MAKEFILES"
        " LANG LANGUAGE LC_* TZ SOURCE_DATE_EPOCH"
        " TERM COLORTERM NO_COLOR CLICOLOR CLICOLOR_FORCE FORCE_COLOR GCC_COLORS NINJA_STATUS"
        " CC CXX CPP FC F77 OBJC OBJCXX AS CCAS AR LD NM OBJCOPY OBJDUMP RANLIB READELF SIZE STRIP WINDRES DLLTOOL"
        " LEX FLEX YACC BISON PKG_CONFIG HOSTCC HOSTCXX CC_FOR_BUILD CXX_FOR_BUILD"
        " CFLAGS CXXFLAGS CPPFLAGS FCFLAGS FFLAGS OBJCFLAGS OBJCXXFLAGS ASFLAGS CCASFLAGS ARFLAGS LFLAGS YFLAGS"
        " LDFLAGS LDLIBS LOADLIBES LIBS HOSTCFLAGS HOSTCXXFLAGS HOSTLDFLAGS HOSTLDLIBS CFLAGS_FOR_BUILD"
        " LDFLAGS_FOR_BUILD KCFLAGS KCPPFLAGS KAFLAGS RUSTFLAGS GOFLAGS GOOS GOARCH GOARM CGO_ENABLED"
        " CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH OBJC_INCLUDE_PATH LIBRARY_PATH"
        " PKG_CONFIG_PATH PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR"
        " ARCH CROSS_COMPILE LLVM LLVM_IAS LOCALVERSION KBUILD_* KCONFIG_CONFIG KCONFIG_ALLCONFIG"
        " DESTDIR PREFIX INSTALL_PATH INSTALL_MOD_PATH INSTALL_MOD_STRIP INSTALL_HDR_PATH"
        " CMAKE_* CTEST_* CCACHE_* DISTCC_HOSTS DEBUG V VERBOSE W CI"
    ).split()
)
"""What builds conventionally read, patterns among the names. Nothing is here that is a secret by habit, nor one of
LOADERS."""

LOADERS = (
    "BASH_ENV COMPILER_PATH CONFIG_SITE ENV GCC_EXEC_PREFIX GCONV_PATH JAVA_TOOL_OPTIONS LD_AUDIT LD_LIBRARY_PATH"
    " LD_PRELOAD LUA_CPATH LUA_INIT LUA_PATH NODE_OPTIONS NODE_PATH PERL5DB PERL5LIB PERL5OPT PERLLIB PYTHONHOME"
    " PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE RUBYLIB RUBYOPT"
).split()
"""What loads code into programs that were not written to be led by it: ld.so(8), shells, interpreters, compilers."""

_DIGITS = "0123456789"
_CHARACTERS = _DIGITS + "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_name(text: str) -> bool:
    """Tell whether `text` is the name of a variable: ASCII letters, digits and `_`, no digit in front."""
    return text != "" and text[0] not in _DIGITS and not text.strip(_CHARACTERS)


def is_pattern(text: str) -> bool:
    """Tell whether `text` is a pattern: a name that ends in `_`, and a `*` behind it for whatever follows there."""
    return text.endswith("_*") and is_name(text[:-1])


def allowed(allow: "Iterable[str]", names: "Iterable[str]") -> "List[str]":
    """Return those of `names` that `allow`, a list of names and patterns, allows; in their order.

    A pattern matches by the name's beginning, in its own case. What is no name matches nothing: a `=` in one would
    make it another variable.
    """
    full, beginnings = frozenset(allow), prefixes(allow)
    return [name for name in names if is_name(name) and (name in full or name.startswith(beginnings))]


def prefixes(allow: "Iterable[str]") -> "Tuple[str, ...]":
    """Return what the patterns of `allow` say a name has to begin with."""
    return tuple([each[:-1] for each in allow if each[-1:] == "*"])
