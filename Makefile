# Everything a person needs: demo, test, check, bench, clean. The environment is made in .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := platform strategies simulator serve
export RAY_AUTH_MODE := disabled
export RAY_USAGE_STATS_ENABLED := 0
export RAY_DEDUP_LOGS := 0

.PHONY: demo test test-slow test-lab test-peers check format bench requirements clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

demo: $(VENV)/.ready-to-run ## one audit, from a simulated cloud to an applied plan (ARGS="--trace FILE ...")
	$(BIN)/trimtab demo $(ARGS)

test: $(VENV)/.ready-to-develop ## all tests but the slow ones, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not (slow or peers or lab)" $(ARGS)

test-slow: $(VENV)/.ready-to-develop ## the whole program on Ray, killed and brought back; the notebooks; crashes at any moment
	$(BIN)/python -m pytest -m "slow and not (peers or lab)" $(ARGS)

test-lab: $(VENV)/.ready-to-develop ## end to end on a real OpenStack control plane (TRIMTAB_LAB names its folder)
	$(BIN)/python tests/peers/environments.py
	$(BIN)/python -m pytest -m lab tests/lab $(ARGS)

test-peers: $(VENV)/.ready-to-develop ## stock clients against a running Trimtab, each in an environment of its own
	$(BIN)/python tests/peers/environments.py
	$(BIN)/python -m pytest -m peers tests/peers $(ARGS)

check: $(VENV)/.ready-to-develop ## format, lint, types, import arrows, dependencies, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry $(SOURCES)
	$(BIN)/codespell $(SOURCES) tests docs README.md

format: $(VENV)/.ready-to-develop ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready-to-develop ## measure speed and quality (PROTOCOL.md beside the benchmarks says how)
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

requirements: ## pin the newest versions that fit (needs uv)
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate -U pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean: ## remove the environment, caches and data
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist out trimtab-data
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# hatchling and editables build the editable install, so that nothing is fetched behind pip's pinned versions.
BUILD := $(shell grep -hE '^(hatchling|editables)==' requirements-dev.txt | sed 's/ ;.*//')

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-to-run: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt $(BUILD)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m trimtab.serve.warm
	@touch $@

$(VENV)/.ready-to-develop: requirements-dev.txt pyproject.toml $(VENV)/.ready-to-run
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@
