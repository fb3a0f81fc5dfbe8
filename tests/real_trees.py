"""Three small trees of the kinds that people build: one of autotools, one of kconfig, one of cmake.

The tests of what real tools do through the service write them (tests/service/test_real_*.py). What is special to each
kind is in its tree: automake's makefile on standard input, kconfig's questions and menus, ninja's status lines. A tree
must build to the same bytes every time.
"""

from __future__ import annotations

_WORDS_H = "const char *words_of(int count);\n"
_WORDS_C = """\
#include "words.h"

const char *words_of(int count)
{
    return count == 1 ? "word" : "words";
}
"""
_MAIN_C = """\
#include <stdio.h>
#include <stdlib.h>
#include "words.h"
#include "limit.h"

int main(int argc, char **argv)
{
    int unused;
    int count = argc > 1 ? atoi(argv[1]) : LIMIT;

    printf("%d %s\\n", count, words_of(count));
    return count > LIMIT;
}
"""

# --- autoconf, automake -----------------------------------------------------------------------------------------------

AUTOTOOLS = {
    "configure.ac": """\
AC_INIT([words], [1.0], [words@example.org])
AC_CONFIG_AUX_DIR([build-aux])
AM_INIT_AUTOMAKE([foreign -Wall subdir-objects color-tests])
AC_PROG_CC
AC_PROG_RANLIB
AM_PROG_AR
AC_CHECK_HEADERS([unistd.h no_such_header.h])
AC_ARG_WITH([limit], [AS_HELP_STRING([--with-limit=N], [the most words])], [], [with_limit=3])
AC_SUBST([with_limit])
AC_CONFIG_HEADERS([config.h])
AC_CONFIG_FILES([Makefile lib/Makefile src/Makefile tests/Makefile])
AC_OUTPUT
""",
    "Makefile.am": """\
SUBDIRS = lib src tests
dist_doc_DATA = NOTES
EXTRA_DIST = version.sh

install-data-hook:
\tcd $(DESTDIR)$(docdir) && ln -sf NOTES README
uninstall-hook:
\trm -f $(DESTDIR)$(docdir)/README
""",
    "NOTES": "Counts words.\n",
    "version.sh": "#!/bin/sh\necho 1.0\n",
    "lib/Makefile.am": "lib_LIBRARIES = libwords.a\nlibwords_a_SOURCES = words.c\ninclude_HEADERS = words.h\n",
    "lib/words.c": _WORDS_C,
    "lib/words.h": _WORDS_H,
    "src/Makefile.am": """\
AM_CPPFLAGS = -I$(top_srcdir)/lib
AM_CFLAGS = -Wall
bin_PROGRAMS = words
words_SOURCES = main.c
nodist_words_SOURCES = limit.h
words_LDADD = ../lib/libwords.a
BUILT_SOURCES = limit.h
CLEANFILES = limit.h
dist_man_MANS = words.1
limit.h: Makefile
\techo '#define LIMIT $(with_limit)' > $@
""",
    "src/main.c": _MAIN_C,
    "src/words.1": ".TH WORDS 1\n.SH NAME\nwords \\- count words\n",
    "tests/Makefile.am": """\
AM_CPPFLAGS = -I$(top_srcdir)/lib
check_PROGRAMS = one
one_SOURCES = one.c
one_LDADD = ../lib/libwords.a
dist_check_SCRIPTS = limit.sh later.sh
TESTS = one limit.sh later.sh
""",
    "tests/one.c": """\
#include <string.h>
#include "words.h"

int main(void)
{
    return strcmp(words_of(1), "word") != 0;
}
""",
    "tests/limit.sh": '#!/bin/sh\ntest "$(../src/words)" = "3 words" && ! ../src/words 4\n',
    "tests/later.sh": "#!/bin/sh\nexit 77\n",
}
"""What autoreconf makes a package of. It has a library, a program with a header that is generated first, dependency
tracking, tests of which one is skipped, a manual page and a link that a hook installs."""

# --- kconfig ----------------------------------------------------------------------------------------------------------

KCONFIG = {
    "Kconfig": """\
mainmenu "Words Configuration"

config SHOUT
\tbool "Capital letters"
\thelp
\t  Writes everything in capital letters.

config TWICE
\tbool "Everything twice"
\tdepends on SHOUT
\tdefault y

config LIMIT
\tint "The most words"
\tdefault 3

choice
\tprompt "Language"
\tdefault ENGLISH

config ENGLISH
\tbool "English"

config LATIN
\tbool "Latin"

endchoice
""",
    "Makefile": """\
all: words

include/config/auto.conf: .config
\t@mkdir -p include/config include/generated
\tkconfig-conf --silentoldconfig Kconfig

config oldconfig menuconfig: FORCE
\t@mkdir -p include/config include/generated
\t$(conf-$@) Kconfig
conf-config = kconfig-conf --oldaskconfig
conf-oldconfig = kconfig-conf --oldconfig
conf-menuconfig = kconfig-mconf

ifeq ($(filter %config,$(MAKECMDGOALS)),)
include include/config/auto.conf
endif

objects-y = main.o
objects-$(CONFIG_SHOUT) += shout.o
objects-$(CONFIG_LATIN) += latin.o
objects-$(CONFIG_ENGLISH) += english.o

words: $(objects-y)
\t$(CC) -o $@ $^
%.o: %.c include/config/auto.conf
\t$(CC) -include include/generated/autoconf.h -c -o $@ $<
FORCE:
.PHONY: all FORCE
""",
    "main.c": """\
#include <stdio.h>

extern const char *word;
extern const char *shouted(const char *text);

int main(void)
{
    int i;

    for (i = 0; i < CONFIG_LIMIT; i++)
#ifdef CONFIG_SHOUT
        puts(shouted(word));
#else
        puts(word);
#endif
    return 0;
}
""",
    "shout.c": """\
#include <ctype.h>

const char *shouted(const char *text)
{
    static char upper[80];
    int i;

    for (i = 0; text[i] && i < 79; i++)
        upper[i] = toupper(text[i]);
    return upper;
}
""",
    "latin.c": 'const char *word = "verbum";\n',
    "english.c": 'const char *word = "word";\n',
}
"""What is built depends on the answers to kconfig's questions, also in make itself, which includes them."""

# --- cmake ------------------------------------------------------------------------------------------------------------

CMAKE = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.20)
project(words VERSION 1.0 LANGUAGES C)
option(SHOUT "Capital letters" OFF)
if(SHOUT)
  message(WARNING "Nobody listens")
endif()
configure_file(limit.h.in limit.h)
add_custom_command(OUTPUT made.c COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_CURRENT_SOURCE_DIR}/made.in made.c
                   DEPENDS made.in COMMENT "Making made.c" VERBATIM)
add_library(words_of STATIC lib/words.c made.c)
target_include_directories(words_of PUBLIC lib ${CMAKE_CURRENT_BINARY_DIR})
add_executable(words src/main.c)
target_compile_options(words PRIVATE -Wall)
target_link_libraries(words PRIVATE words_of)
enable_testing()
add_test(NAME three COMMAND words 3)
add_test(NAME four COMMAND words 4)
set_tests_properties(four PROPERTIES WILL_FAIL ON)
install(TARGETS words words_of)
install(FILES lib/words.h TYPE INCLUDE)
""",
    "limit.h.in": "#define LIMIT 3 /* of @PROJECT_NAME@ @PROJECT_VERSION@ */\n",
    "made.in": "int made;\n",
    "lib/words.c": _WORDS_C,
    "lib/words.h": _WORDS_H,
    "src/main.c": _MAIN_C,
}
"""A library, a header that cmake writes, a source that the build makes, tests, and what is installed."""
