# make demo        see it work: a service on a private socket, a small C project built through it
# make test        lint, types and all tests; as root also what needs other users. Says first what it will skip for want
#                  of a tool, and how to get that. TESTS="-k wrapper" picks some
# make test-pythons  the shipped programs with the other Pythons of this machine
# make test-container  rootless podman for real, as root; says what is missing. TESTS= as above
# make test-systemd  the units for real, as root: boots a systemd in namespaces; says what is missing. TESTS= as above
# make fuzz        the parsers under coverage-guided fuzzing for SECONDS=60 in all; FUZZ=--keep renews tests/fuzz/corpus
# make differential  the argument walkers against the real make, ninja, cmake and ctest with COUNT=20000 command lines
# make bench       what it costs: time, throughput, memory
# make assurance   every attack at once, as the table of docs/ASSURANCE.md
# make mutate      whether the tests would notice: faults put into copies of the tree, one at a time; slow, for the time
#                  before a release; MUTANTS="keys 20-30" picks some by pattern or number
# make soak        mixed builds of several users at once, and that nothing of them is left: BUILDS=500
# make dist        the single-file programs dist/build-service and dist/build-cli; the client compiled for every
#                  python3.N on PATH, or for those that DIST_PYTHONS= names
# make static-client  dist/build-cli-static: the client in C, for images without Python; with musl-gcc where there is one,
#                  else with cc, which needs a static C library; CLIENT_CC= names another
# make test-static-client  the tests of the client with that one, as it ships and with sanitizers
# make install     DESTDIR= PREFIX=/usr/local, and make uninstall
# make rpm         packages in dist/, the service and the client alone, for Rocky Linux and its kin; make deb for
#                  Debian and its kin, make wheel of the library; make rpm-static-client and deb-static-client of the
#                  client in C
# make release     all of that and SHA256SUMS, of a commit that is tagged; says what is wrong with it first

PREFIX        = /usr/local
SYSCONFDIR    = /etc
UNITDIR       = /usr/lib/systemd/system
USERUNITDIR   = /usr/lib/systemd/user
TMPFILESDIR   = /usr/lib/tmpfiles.d
MANDIR        = $(PREFIX)/share/man
COMPLETIONDIR = $(PREFIX)/share/bash-completion/completions

# The first Python that is new enough; make PYTHON=... names another.
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && { echo "$$python"; break; }; done)

VENV       = .venv
VENV_STAMP = $(VENV)/installed
TEST_TOOLS = 'hypothesis>=6' 'meson>=1.0' 'mypy>=1.11' 'pytest>=7.3' 'pytest-randomly>=3.15' 'ruff>=0.6' tomli
SOURCES    = lib tests etc/packaging bin/build-cli bin/build-ctl bin/build-service

DIST     = dist
PROGRAMS = build-service build-cli build-ctl
SHARED   = bin/make-wrapper.sh etc/config.toml etc/Containerfile.snippet etc/selinux/build-service.cil README.md \
	CHANGELOG.md CONTRIBUTING.md LICENSE
DOCS     = $(wildcard docs/*.md)

BINDIR           = $(PREFIX)/bin
SHAREDIR         = $(PREFIX)/share/build-service
CONFIGDIR        = $(SYSCONFDIR)/build-service
INSTALLED_CONFIG = $(DESTDIR)$(CONFIGDIR)/config.toml

# What is installed besides the configuration: a directory and the files that go there.
UNITS      = $(wildcard etc/systemd/*.s*)
USERUNITS  = $(wildcard etc/systemd/user/*.s*)
MAN1       = $(wildcard etc/man/*.1)
MAN5       = $(wildcard etc/man/*.5)
MAN8       = $(wildcard etc/man/*.8)
COMPLETION = $(wildcard etc/completion/*)
INSTALLED  = $(addprefix $(BINDIR)/,$(PROGRAMS)) $(addprefix $(SHAREDIR)/,$(notdir $(SHARED))) \
	$(addprefix $(SHAREDIR)/,$(DOCS)) \
	$(addprefix $(UNITDIR)/,$(notdir $(UNITS))) $(addprefix $(USERUNITDIR)/,$(notdir $(USERUNITS))) \
	$(addprefix $(MANDIR)/man1/,$(notdir $(MAN1))) $(addprefix $(MANDIR)/man5/,$(notdir $(MAN5))) \
	$(addprefix $(MANDIR)/man8/,$(notdir $(MAN8))) $(addprefix $(COMPLETIONDIR)/,$(notdir $(COMPLETION))) \
	$(TMPFILESDIR)/build-service.conf

.PHONY: help test test-pythons lint types check-python demo bench dist install uninstall no-blanks rpm deb wheel clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

check-python:
	@test -n "$(PYTHON)" || { echo "Python 3.9 or later is needed and was not found on PATH" >&2; exit 1; }

# The time is that of all of it: of making .venv, lint and types as well. What root made is given to the checkout's
# owner, who may want to run the tests too.
MADE = $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
test:
	@start=$$(date +%s); $(MAKE) --no-print-directory checked-and-tested; code=$$?; \
	test "$$(id -u)" != 0 || chown -hR --reference=. $(MADE) 2>/dev/null; \
	seconds=$$(($$(date +%s) - start)); echo "make test took $$((seconds / 60)) min $$((seconds % 60)) s"; exit $$code

.PHONY: checked-and-tested own-checkout
checked-and-tested: lint types
	$(VENV)/bin/python tests/run.py $(TESTS)

test-pythons: $(VENV_STAMP)
	$(VENV)/bin/python tests/pythons.py

.PHONY: test-container
test-container: $(VENV_STAMP)
	@PYTHONPATH='$(CURDIR)/tests' $(VENV)/bin/python -B -m container.run $(TESTS)

.PHONY: test-systemd
test-systemd: $(VENV_STAMP)
	@exec env PYTHONPATH='$(CURDIR)/tests' $(VENV)/bin/python -B -m systemd.run $(TESTS)

own-checkout:
	@test -w . || { \
		echo "this checkout is not $$(id -un)'s to write: run make as its owner, or clone it anew" >&2; exit 1; }
	@other=$$(find $(MADE) ! -type l ! -user $$(id -u) ! -writable -print -quit 2>/dev/null); test -z "$$other" || { \
		echo "$$other is another user's, who ran make here: sudo make clean takes it away" >&2; exit 1; }

lint: $(VENV_STAMP)
	$(VENV)/bin/ruff check $(SOURCES)

# The one tool that is no plain Python package: only those who fuzz need it.
FUZZ_STAMP = $(VENV)/fuzz-installed
$(FUZZ_STAMP): $(VENV_STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	@touch $@

.PHONY: fuzz differential
SECONDS = 60
fuzz: $(FUZZ_STAMP)
	@PYTHONPATH='lib:tests' $(VENV)/bin/python -B -m fuzz.run $(FUZZ) $(SECONDS)

COUNT = 20000
differential: $(VENV_STAMP)
	@PYTHONPATH='lib:tests' $(VENV)/bin/python -B -m fuzz.differential $(COUNT)

types: $(VENV_STAMP)
	$(VENV)/bin/mypy

$(VENV_STAMP): Makefile | check-python own-checkout
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TEST_TOOLS)
	@touch $@

demo: check-python
	@$(PYTHON) tests/demo.py

bench: check-python
	@$(PYTHON) tests/bench.py

.PHONY: assurance
assurance: $(FUZZ_STAMP)
	@$(VENV)/bin/python tests/assurance.py

.PHONY: mutate
mutate: $(VENV_STAMP)
	@$(VENV)/bin/python -B tests/mutate.py $(MUTANTS)

.PHONY: soak
soak: check-python
	@$(PYTHON) tests/soak.py $(BUILDS)

dist: check-python
	@$(PYTHON) etc/packaging/dist.py --output $(DIST) $(DIST_PYTHONS)

# musl's program is the smaller one. names.h is what the client has in common with the library.
CLIENT_CC     := $(shell command -v musl-gcc || echo cc)
CLIENT_CFLAGS  = -std=c11 -Os -static -s
CLIENT_C       = $(wildcard lib/static_client/*.c)
.PHONY: static-client test-static-client
static-client: check-python
	@mkdir -p $(DIST) build/static_client
	@$(PYTHON) etc/packaging/client_names.py >build/static_client/names.h
	$(CLIENT_CC) $(CLIENT_CFLAGS) -I build/static_client -o $(DIST)/build-cli-static $(CLIENT_C)

test-static-client: $(VENV_STAMP)
	$(VENV)/bin/python -B tests/static_client.py

no-blanks:
	@test -z "$(word 2,x$(DESTDIR)$(PREFIX)$(SYSCONFDIR)x)" || { echo "a path with a blank in it cannot be installed to" >&2; exit 1; }

install: no-blanks dist
	install -d $(sort $(dir $(addprefix $(DESTDIR),$(INSTALLED)))) $(DESTDIR)$(CONFIGDIR)
	install -m 0755 $(addprefix $(DIST)/,$(PROGRAMS)) $(DESTDIR)$(BINDIR)
	install -m 0644 $(wildcard $(SHARED)) $(DESTDIR)$(SHAREDIR)
	install -m 0644 $(DOCS) $(DESTDIR)$(SHAREDIR)/docs
	chmod 0755 $(DESTDIR)$(SHAREDIR)/make-wrapper.sh
	install -m 0644 $(UNITS) $(DESTDIR)$(UNITDIR)
	install -m 0644 $(USERUNITS) $(DESTDIR)$(USERUNITDIR)
	sed -i -e 's|/usr/local/|$(PREFIX)/|' -e 's|/etc/build-service|$(CONFIGDIR)|' \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS))) $(addprefix $(DESTDIR)$(USERUNITDIR)/,$(notdir $(USERUNITS)))
	install -m 0644 etc/tmpfiles.d/build-service.conf $(DESTDIR)$(TMPFILESDIR)
	$(if $(MAN1),install -m 0644 $(MAN1) $(DESTDIR)$(MANDIR)/man1)
	$(if $(MAN5),install -m 0644 $(MAN5) $(DESTDIR)$(MANDIR)/man5)
	$(if $(MAN8),install -m 0644 $(MAN8) $(DESTDIR)$(MANDIR)/man8)
	$(if $(COMPLETION),install -m 0644 $(COMPLETION) $(DESTDIR)$(COMPLETIONDIR))
	test -e $(INSTALLED_CONFIG) || install -m 0644 etc/config.toml $(INSTALLED_CONFIG)
	@test -n "$(DESTDIR)" || echo "next: systemctl daemon-reload && systemctl enable --now build-service.socket"

# A config.toml that is still as installed goes; one that was changed stays, and so do the logs.
uninstall: no-blanks
	if cmp -s $(DESTDIR)$(SHAREDIR)/config.toml $(INSTALLED_CONFIG); then rm -f $(INSTALLED_CONFIG); fi
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	-rmdir $(addprefix $(DESTDIR),$(SHAREDIR)/docs $(SHAREDIR) $(CONFIGDIR)) 2>/dev/null || true

# Each packs what `make install` installs. Times in a package are those of the last commit, or of the changelog where
# there is no git: the same sources, Pythons and tools give the same bytes.
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' lib/buildcore/__init__.py)
RELEASE  = 1
rpm deb wheel rpm-static-client deb-static-client: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date -r CHANGELOG.md +%s)

rpm:
	@command -v rpmbuild >/dev/null || { \
		echo "rpmbuild is needed; on Rocky Linux: dnf install rpm-build, on Debian: apt-get install rpm" >&2; exit 1; }
	rm -rf build/rpm
	mkdir -p build/rpm
	rpmbuild -bb --quiet --define '_topdir $(CURDIR)/build/rpm' --define '_tmppath $(CURDIR)/build/rpm' \
		--define '_sourcedir $(CURDIR)' \
		--define '_rpmdir $(abspath $(DIST))' --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
		--define 'package_version $(VERSION)' --define 'package_release $(RELEASE)' etc/packaging/build-service.spec
	@ls $(DIST)/build-service-*$(VERSION)-$(RELEASE).noarch.rpm

deb: check-python
	rm -rf build/deb
	$(MAKE) install DESTDIR=$(CURDIR)/build/deb PREFIX=/usr
	$(PYTHON) etc/packaging/deb.py --tree build/deb --version $(VERSION)-$(RELEASE) --output $(DIST)

# The client in C as a package of its own, of this machine's architecture, in place of build-service-client.
.PHONY: rpm-static-client deb-static-client
rpm-static-client: static-client
	@command -v rpmbuild >/dev/null || { \
		echo "rpmbuild is needed; on Rocky Linux: dnf install rpm-build, on Debian: apt-get install rpm" >&2; exit 1; }
	rm -rf build/rpm-static
	mkdir -p build/rpm-static
	rpmbuild -bb --quiet --define '_topdir $(CURDIR)/build/rpm-static' --define '_tmppath $(CURDIR)/build/rpm-static' \
		--define '_sourcedir $(CURDIR)' \
		--define '_rpmdir $(abspath $(DIST))' --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
		--define 'package_version $(VERSION)' --define 'package_release $(RELEASE)' \
		etc/packaging/build-service-client-static.spec
	@ls $(DIST)/build-service-client-static-$(VERSION)-$(RELEASE).*.rpm

deb-static-client: static-client
	rm -rf build/deb-static
	$(MAKE) install DESTDIR=$(CURDIR)/build/deb-static PREFIX=/usr
	$(PYTHON) etc/packaging/deb.py --tree build/deb-static --version $(VERSION)-$(RELEASE) --output $(DIST) \
		--static $(DIST)/build-cli-static

wheel: check-python
	@$(PYTHON) -c 'import pip' 2>/dev/null || { \
		echo "pip is needed; on Debian: apt-get install python3-pip, on Rocky Linux: dnf install python3-pip" >&2; exit 1; }
	rm -rf build/lib build/bdist.*
	umask 022; $(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(DIST) .
	@ls $(DIST)/buildcore-$(VERSION)-*.whl

# One after the other, as each of the packages installs from the same dist; and of the kinds that this machine makes.
.PHONY: release
release: check-python
	@$(PYTHON) etc/packaging/release.py check
	@rm -f $(addprefix $(DIST)/,$(PROGRAMS) SHA256SUMS build-service-*.rpm build-service*_all.deb buildcore-*.whl)
	@$(MAKE) --no-print-directory -s wheel dist
	@if command -v rpmbuild >/dev/null; then $(MAKE) --no-print-directory -s rpm; fi
	@if command -v dpkg-deb >/dev/null; then $(MAKE) --no-print-directory -s deb; fi
	@$(PYTHON) etc/packaging/release.py verify --release $(RELEASE) --output $(DIST)

clean:
	rm -rf $(VENV) build dist lib/buildcore.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find lib tests etc -name __pycache__ -type d -prune -exec rm -rf {} +
