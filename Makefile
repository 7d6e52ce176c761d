# Every target prepares what it needs by itself, on a fresh Debian 12 or 13, as root or as a user with sudo.
# How: tests/set-up. Environments are made in .venv and .venvs, everything else below build.

DURATION ?= 60
DJANGO ?= 5.2
PYTHON ?= python3
export PYTHON
# These would let the tests see another linod, or other habits of Python, than its users do.
unexport PYTHONPATH PYTHONUNBUFFERED

python = .venv/bin/python
# The limit is for a test that hangs; none needs a fraction of it.
pytest = -m pytest --timeout=300 --durations=5
# These mostly wait for something to fall due.
together = $(pytest) --numprocesses=2 --dist=worksteal

help:
	@echo 'make demo           run six tasks of a demo site, with mail to a real server (DURATION=60, 0: until Ctrl-C)'
	@echo 'make test           everything that must pass: check, unit and integration tests, on each version of Django'
	@echo 'make check          ruff and mypy'
	@echo 'make unit           the unit tests, in seconds'
	@echo 'make integration    the integration tests, on Django $(DJANGO)'
	@echo 'make bench          measure, beside other schedulers'
	@echo 'make dev            prepare .venv for a developer'
	@echo 'make release-check  make test, the long tests, and the built packages'
	@echo 'make clean          remove what these made'

demo:
	@tests/set-up .venvs/demo demo $(DJANGO)
	@.venvs/demo/bin/python -m tests.demo --seconds $(DURATION)

test: check unit integration compatibility

check: .venv
	$(say) 'ruff and mypy'
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy linod

unit: .venv
	$(say) 'unit tests'
	@$(python) $(pytest) --numprocesses=2 tests/unit

integration: .venv
	$(say) 'integration tests with Django $(DJANGO)'
	@$(python) $(together) tests/integration

# On the other versions of Django, all but what takes long and has little to do with Django.
compatibility:
	@for django in $$(tests/set-up djangos); do \
	    tests/set-up .venvs/django-$$django test $$django || exit; \
	    $(quiet_say) "integration tests with Django $$django"; \
	    .venvs/django-$$django/bin/python $(together) -m 'not slow' tests/integration || exit; \
	done

bench: .venv
	@$(python) -m tests.benchmarks

dev: .venv
	@echo 'Ready. Begin with: . .venv/bin/activate'

release-check: test
	$(say) 'the long tests'
	@LINOD_SOAK=10 $(python) $(pytest) --timeout=7200 -m slow tests/integration
	$(say) 'the packages'
	@rm -rf build/dist build/lib build/wheel && mkdir -p build
	@$(python) -m build --outdir build/dist >build/build.log || { cat build/build.log; exit 1; }
	@$(python) -m venv build/wheel
	@build/wheel/bin/python -m pip install --quiet --disable-pip-version-check build/dist/linod-*.whl
	@cd tests/projects/roger && ../../../build/wheel/bin/python manage.py linod --list
	@cd tests/projects/noi1e && ../../../build/wheel/bin/python manage.py linod --list
	@ls build/dist

clean:
	rm -rf .venv .venvs .cache build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv:
	@tests/set-up .venv dev,test $(DJANGO)

quiet_say = echo; echo "== $$(date +%H:%M:%S)"
say = @$(quiet_say)

.NOTPARALLEL:
.PHONY: help demo test check unit integration compatibility bench dev release-check clean .venv
