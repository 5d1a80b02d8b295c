# One command per need; `make help` lists them. All but `clean` make .venv first, if need be.

PYTHON ?= python3
export PYTHON

PY := .venv/bin/python
PY_SCRIPTS := $(filter-out scripts/venv scripts/__pycache__,$(wildcard scripts/*))
COVERAGE := $(PY) -m coverage

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types format bench soak docs coverage clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 12

venv: .venv/made ## make .venv with pinned dependencies (PYTHON=python3 chooses the Python)

.venv/made: scripts/venv pyproject.toml $(wildcard requirements/*.txt)
	@scripts/venv

demo: venv ## 200 clients, 2 workers, a kill -9, CPU-bound work: about a minute
	@$(PY) scripts/demo

test: venv ## every layer of tests, with times and what was skipped (ARGS="unit vectors")
	@$(PY) scripts/test-layers $(ARGS)

lint: venv ## style and common mistakes
	$(PY) -m ruff check . $(PY_SCRIPTS)
	$(PY) -m ruff format --check . $(PY_SCRIPTS)

types: venv ## type annotations, strictly
	$(PY) -m mypy
	$(PY) -m mypy --scripts-are-modules $(PY_SCRIPTS)

format: venv ## put the source into its form
	$(PY) -m ruff check --select I --fix . $(PY_SCRIPTS)
	$(PY) -m ruff format . $(PY_SCRIPTS)

bench: venv ## cost of an echo against pyzmq and uvicorn, gain of a second worker
	$(PY) -m pip -qq --disable-pip-version-check install --requirement requirements/bench.txt
	$(PY) -m bench.echo_cost --load 64x16 --load 2k --load 4k --baseline plain --baseline proxy
	$(PY) -m bench.echo_cost --load 64k --load 1m --baseline plain --baseline uvicorn
	$(PY) -m bench.cpu_scaling

soak: venv ## the long form of the tests that have one
	$(PY) -m pytest -m soak --timeout 0 tests

docs: venv ## write the generated pages of docs/
	$(PY) -m docs.generate

coverage: venv ## which lines the tests reach, workers and I/O processes included
	@mkdir -p build/coverage
	$(COVERAGE) run -m pytest -q -m "not soak" tests
	$(COVERAGE) combine -q
	$(COVERAGE) report --skip-covered --sort cover

clean: ## remove what was made, but .venv
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
