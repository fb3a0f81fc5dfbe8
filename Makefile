# make demo        see it work: a service on a private socket, a small C project built through it
# make test        lint, types and all tests; as root also what needs other users. TESTS="-k wrapper" picks some
# make bench       what it costs: time, throughput, memory
# make dist        the single-file programs dist/build-service and dist/build-cli; the client compiled for every
#                  python3.N on PATH, or for those that DIST_PYTHONS= names
# make install     DESTDIR= PREFIX=/usr/local, and make uninstall

PREFIX      = /usr/local
SYSCONFDIR  = /etc
UNITDIR     = /usr/lib/systemd/system
TMPFILESDIR = /usr/lib/tmpfiles.d

# The first Python that is new enough; make PYTHON=... names another.
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && { echo "$$python"; break; }; done)

VENV       = .venv
VENV_STAMP = $(VENV)/installed
TEST_TOOLS = 'hypothesis>=6' 'mypy>=1.11' 'pytest>=7.3' 'ruff>=0.6' tomli
SOURCES    = lib tests etc/packaging bin/build-cli bin/build-service

DIST              = dist
INSTALLED_BIN     = $(DESTDIR)$(PREFIX)/bin
INSTALLED_SHARE   = $(DESTDIR)$(PREFIX)/share/build-service
INSTALLED_CONFIG  = $(DESTDIR)$(SYSCONFDIR)/build-service
INSTALLED_UNIT    = $(DESTDIR)$(UNITDIR)/build-service.service
INSTALLED_TMPFILE = $(DESTDIR)$(TMPFILESDIR)/build-service.conf
SHARED_FILES      = bin/make-wrapper.sh etc/config.toml etc/Containerfile.snippet README.md LICENSE

.PHONY: help test lint types check-python demo bench dist install uninstall clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

check-python:
	@test -n "$(PYTHON)" || { echo "Python 3.9 or later is needed and was not found on PATH" >&2; exit 1; }

test: lint types
	$(VENV)/bin/python tests/run.py $(TESTS)

lint: $(VENV_STAMP)
	$(VENV)/bin/ruff check $(SOURCES)

types: $(VENV_STAMP)
	$(VENV)/bin/mypy

$(VENV_STAMP): Makefile | check-python
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TEST_TOOLS)
	@touch $@

demo: check-python
	@$(PYTHON) tests/demo.py

bench: check-python
	@$(PYTHON) tests/bench.py

dist: check-python
	@$(PYTHON) etc/packaging/dist.py --output $(DIST) $(DIST_PYTHONS)

install: dist
	install -d $(INSTALLED_BIN) $(INSTALLED_SHARE) $(INSTALLED_CONFIG) $(dir $(INSTALLED_UNIT)) $(dir $(INSTALLED_TMPFILE))
	install -m 0755 $(DIST)/build-service $(DIST)/build-cli $(INSTALLED_BIN)
	install -m 0644 $(SHARED_FILES) $(INSTALLED_SHARE)
	chmod 0755 $(INSTALLED_SHARE)/make-wrapper.sh
	sed -e 's|/usr/local/|$(PREFIX)/|' -e 's|/etc/build-service|$(SYSCONFDIR)/build-service|' \
		etc/build-service.service > $(INSTALLED_UNIT)
	chmod 0644 $(INSTALLED_UNIT)
	install -m 0644 etc/tmpfiles.d/build-service.conf $(INSTALLED_TMPFILE)
	test -e $(INSTALLED_CONFIG)/config.toml || install -m 0644 etc/config.toml $(INSTALLED_CONFIG)/config.toml
	@test -n "$(DESTDIR)" || echo "next: systemctl daemon-reload && systemctl enable --now build-service"

# A config.toml that is still as installed goes; one that was changed stays, and so do the logs.
uninstall:
	if cmp -s $(INSTALLED_SHARE)/config.toml $(INSTALLED_CONFIG)/config.toml; then rm -f $(INSTALLED_CONFIG)/config.toml; fi
	rm -f $(INSTALLED_BIN)/build-service $(INSTALLED_BIN)/build-cli $(INSTALLED_UNIT) $(INSTALLED_TMPFILE)
	rm -f $(addprefix $(INSTALLED_SHARE)/,$(notdir $(SHARED_FILES)))
	-rmdir $(INSTALLED_SHARE) $(INSTALLED_CONFIG) 2>/dev/null || true

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find lib tests etc -name __pycache__ -type d -prune -exec rm -rf {} +
