# Every target prepares what it needs by itself, on a fresh Debian 12 or 13, as root or as a user with sudo.
# How: tests/set-up. Environments are made in .venv and .venvs, everything else below build.

DURATION ?= 60
# Of a storm, of load, and of each target of fuzz. The seed of a storm is drawn, and printed, where none is given.
# FAULTS: the names of those that shall be drawn from.
MINUTES ?= 10
SEED =
FAULTS =
# Where `make install` puts what; a package adds DESTDIR.
DESTDIR =
BIN = /usr/bin
LIBRARY = /usr/lib/python3/dist-packages
UNITS = /usr/lib/systemd/system
CATALOG = /usr/lib/systemd/catalog
TMPFILES = /usr/lib/tmpfiles.d
SHARE = /usr/share
NEEDRESTART = /etc/needrestart/conf.d
DJANGO ?= 5.2
PYTHON ?= python3
export PYTHON
# These would let the tests see another linod, or other habits of Python, than its users do.
unexport PYTHONPATH PYTHONUNBUFFERED

python = .venv/bin/python
storm = $(python) -m tests.chaos
# The limit is for a test that hangs; none needs a fraction of it.
pytest = -m pytest --timeout=300 --durations=5
# These mostly wait for something to fall due.
together = $(pytest) --numprocesses=4 --dist=worksteal
# These boot systems, which root alone may, and nothing of root's stays in here.
as_root = $(shell [ "$$(id -u)" = 0 ] || echo sudo) env PYTHONDONTWRITEBYTECODE=1
booted = $(pytest) -p no:cacheprovider --numprocesses=2 --dist=loadgroup

help:
	@echo 'make demo           run six tasks of a demo site, with mail to a real server (DURATION=60, 0: until Ctrl-C)'
	@echo 'make test           everything that must pass: check, unit, integration on each Django, test-lino, system, package'
	@echo 'make check          ruff and mypy'
	@echo 'make unit           the unit tests, in seconds'
	@echo 'make integration    the integration tests, on Django $(DJANGO)'
	@echo 'make test-lino      real Lino sites of 2021 and 2026, made with what PyPI has'
	@echo 'make system         the tests in booted Debian 12 and 13, as root'
	@echo 'make package        the tests of the Debian packages, likewise'
	@echo 'make bench          measure, beside other schedulers and beside Lino on its sites'
	@echo 'make chaos          let all go wrong that can (MINUTES=10 SEED=... FAULTS="...") and see what becomes of each due time'
	@echo 'make fuzz           try what nobody thought of, MINUTES=10 for each target'
	@echo 'make load           10,000 tasks, 200 due each second, for MINUTES=10: nothing is missed, memory is flat'
	@echo 'make dev            prepare .venv for a developer'
	@echo 'make deb            build the Debian packages into dist'
	@echo 'make install        put it where a package would, below DESTDIR'
	@echo 'make release-check  make test, the long tests, five storms, load, fuzz, autopkgtest, piuparts, promtool, and the wheel'
	@echo 'make clean          remove what these made'

demo:
	@tests/set-up .venvs/demo demo $(DJANGO)
	@.venvs/demo/bin/python -m tests.demo --seconds $(DURATION)

test: ahead check unit integration compatibility test-lino system package

# Systems and sites are made while the first tests wait for what falls due. Tests that need one wait until it is whole;
# what went wrong is told there, for they try again.
ahead: .venv
	@tests/set-up system
	@mkdir -p build
	@{ $(as_root) $(python) -m tests.support.roots; $(as_root) $(python) -m tests.support.package_roots; \
	    $(python) -m tests.support.lino; } </dev/null >build/ahead.log 2>&1 &

check: .venv
	$(say) 'ruff and mypy'
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy linod

unit: .venv
	$(say) 'unit tests'
	@$(python) $(pytest) --numprocesses=2 tests/unit
	@$(python) $(pytest) --numprocesses=2 tests/fuzz

integration: .venv
	$(say) 'integration tests with Django $(DJANGO)'
	@$(python) $(together) tests/integration tests/chaos

# On the other versions of Django, all but what takes long and has little to do with Django.
compatibility:
	@for django in $$(tests/set-up djangos); do \
	    tests/set-up .venvs/django-$$django test $$django || exit; \
	    $(quiet_say) "integration tests with Django $$django"; \
	    .venvs/django-$$django/bin/python $(together) -m 'not slow' tests/integration || exit; \
	done

test-lino: .venv
	$(say) 'real Lino sites'
	@$(python) -m tests.support.lino
	@$(python) $(together) tests/lino

system: .venv
	@tests/set-up system
	$(say) 'tests in booted Debian 12 and 13'
	@$(as_root) $(python) $(booted) --numprocesses=4 tests/system

package: .venv
	@tests/set-up system
	$(say) 'tests of the Debian packages'
	@$(as_root) $(python) -m tests.support.package_roots
	@$(as_root) $(python) $(booted) --timeout=600 -m 'not slow' tests/package

bench: .venv
	@$(python) -m tests.benchmarks
	@$(python) -m tests.benchmarks.lino

chaos: .venv
	@$(storm) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS))

fuzz: .venv
	$(say) 'fuzzing, $(MINUTES) minutes for each target'
	@$(python) -m tests.fuzz --minutes $(MINUTES)

load: .venv
	$(say) '10,000 tasks for $(MINUTES) minutes'
	@$(python) -m tests.benchmarks.load --minutes $(MINUTES)

dev: .venv
	@echo 'Ready. Begin with: . .venv/bin/activate'

release-check: test
	$(say) 'the long tests'
	@LINOD_SOAK=10 $(python) $(pytest) --timeout=7200 -m slow tests/integration
	$(say) 'five storms of half an hour'
	@for number in 1 2 3 4 5; do $(storm) --minutes 30 || exit; done
	@$(MAKE) --no-print-directory load fuzz
	$(say) 'the long tests of the Debian packages, with autopkgtest and piuparts'
	@$(as_root) $(python) $(booted) --timeout=1200 -m slow tests/package
	@tests/set-up prometheus
	$(say) 'promtool and node_exporter'
	@$(python) $(pytest) tests/prometheus
	$(say) 'the wheel'
	@rm -rf build/dist build/lib build/wheel && mkdir -p build
	@$(python) -m build --outdir build/dist >build/build.log || { cat build/build.log; exit 1; }
	@$(python) -m venv build/wheel
	@build/wheel/bin/python -m pip install --quiet --disable-pip-version-check build/dist/linod-*.whl
	@cd tests/projects/roger && ../../../build/wheel/bin/python manage.py linod --list
	@cd tests/projects/noi1e && ../../../build/wheel/bin/python manage.py linod --list
	@ls build/dist

deb:
	@tests/set-up deb
	@debian/build

install: install-library install-host

install-library:
	@find linod -name '*.py' -o -name py.typed | xargs -I FILE install -D -m 644 FILE '$(DESTDIR)$(LIBRARY)/FILE'

# All that is not imported. A site without linod finds it through the two links: see linod/launch.py.
install-host:
	@install -D -t '$(DESTDIR)$(BIN)' packaging/linodctl
	@$(put) '$(DESTDIR)$(UNITS)' $(wildcard packaging/systemd/linod*.service packaging/systemd/linod*.t*r*)
	@$(put) '$(DESTDIR)$(CATALOG)' $(wildcard packaging/systemd/*.catalog)
	@install -D -m 644 packaging/systemd/tmpfiles.conf '$(DESTDIR)$(TMPFILES)/linod.conf'
	@$(put) '$(DESTDIR)$(NEEDRESTART)' packaging/needrestart/linod.conf
	@$(put) '$(DESTDIR)$(SHARE)/doc/linod' README.md CHANGELOG.md $(wildcard docs/*.md)
	@sed -i -e 's|](docs/|](|g' -e 's|\[BSD-3-Clause\](LICENSE)|BSD-3-Clause|' '$(DESTDIR)$(SHARE)/doc/linod/README.md'
	@find packaging -path '*/examples/*' -type f -exec $(put) '$(DESTDIR)$(SHARE)/doc/linod/examples' {} +
	@for section in 1 5 8; do \
	    find packaging -path "*/man/*.$$section" -exec $(put) "$(DESTDIR)$(SHARE)/man/man$$section" {} +; \
	done
	@find packaging -path '*/completion/linodctl' -exec $(put) '$(DESTDIR)$(SHARE)/bash-completion/completions' {} +
	@find packaging -path '*/completion/_linodctl' -exec $(put) '$(DESTDIR)$(SHARE)/zsh/vendor-completions' {} +
	@install -d '$(DESTDIR)$(SHARE)/linod/site-path'
	@for name in linod schedule; do \
	    ln -sfnr "$(DESTDIR)$(LIBRARY)/$$name" "$(DESTDIR)$(SHARE)/linod/site-path/$$name"; \
	done

clean:
	rm -rf .venv .venvs .cache build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv:
	@tests/set-up .venv dev,test $(DJANGO)

put = install -D -m 644 -t
quiet_say = echo; echo "== $$(date +%H:%M:%S)"
say = @$(quiet_say)

.NOTPARALLEL:
.PHONY: help demo test ahead check unit integration compatibility test-lino system package bench chaos fuzz load dev deb install install-library install-host release-check clean .venv
