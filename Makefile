# The two commands of the README: `make demo` and `make test`. Each sets up what it needs on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml runtime/pyproject.toml constraints.txt

.PHONY: demo test lint types unit coverage test-full test-minimum locked hashes docs clean

demo: $(VENV)/.base
	$(BIN)/perceiver-export demo

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

# A worker that dies ends the run: xdist would go on without it, and may then wait for ever.
UNIT := -m pytest -m "not full" -n 2 --dist loadgroup --max-worker-restart 0

unit: $(VENV)/.dev
	$(BIN)/python $(UNIT)

# The same tests, slower: fails where too many branches are not covered, and lists them by file.
coverage: $(VENV)/.dev
	$(BIN)/python $(UNIT) --cov --cov-branch --cov-report=term

# Released sizes: minutes and gigabytes per test, one at a time.
test-full: $(VENV)/.dev
	$(BIN)/python -m pytest -m full

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python $(INPUTS)
	$(PIP) --editable ./runtime --editable '.[cpu]'
	touch $@

# The lowest versions that pyproject.toml declares, in an environment of their own.
MINIMUM := .venv-minimum
test-minimum:
	$(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/minimum/constraints.txt \
		--editable ./runtime --editable '.[cpu]' pytest pytest-xdist hypothesis pillow
	$(MINIMUM)/bin/python -m pytest -m "not full" -n 2 tests/minimum tests/exporters -k "not tensorrt_takes_them"
	$(MINIMUM)/bin/python -m pytest -m "not full" -n 2 tests/cli/test_export_cli.py -k "not wrong_use"

# The oracles pin old versions of their dependencies, which they do not need: they are installed without them.
$(VENV)/.dev: $(VENV)/.base requirements-oracles.txt
	$(PIP) --editable ./runtime --editable '.[cpu,dev,docs,oracles,tensorrt-rtx]'
	$(PIP) --no-deps --no-build-isolation --ignore-requires-python --requirement requirements-oracles.txt
	$(BIN)/python tests/engines/contract/install.py
	touch $@

# The environment of `make test`, each file checked against its hash; torch alone is not (see the file of hashes).
locked: $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes --requirement requirements-hashes.txt
	$(PIP) --no-deps torch
	$(PIP) --no-deps --no-build-isolation --editable ./runtime --editable .

# After a change of constraints.txt.
hashes: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet uv
	head -n 2 requirements-hashes.txt > requirements-hashes.new
	grep -v '^torch==' constraints.txt | $(BIN)/uv pip compile - --quiet --no-deps --generate-hashes --no-header --no-annotate \
		--python-version 3.11.7 >> requirements-hashes.new
	mv requirements-hashes.new requirements-hashes.txt

# The site is in build/site; a dead link or a warning fails.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.base mkdocs.yml
	$(PIP) --editable ./runtime --editable '.[cpu,docs]'
	touch $@

clean:
	rm -rf $(VENV) $(MINIMUM) demo build/site .cache
