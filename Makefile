# Two commands matter: `make demo` and `make test`. Both set up everything they need from the lock file.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test check format lock conformance-vango clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

setup: $(STAMP)  ## create the virtual environment from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Moorage needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## the main job on the embedded default, narrated
	$(BIN)/python -m demo

test: $(STAMP) check  ## everything: checks and fast tests, then those on real servers
	@# Real faults on real processes: what fails on a noisy machine runs once more, and is named. Twice is a failure.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "servers or browser" || \
	    { echo "== failed once, second and last run of those tests"; \
	      $(BIN)/python -m pytest -m "servers or browser" --last-failed --last-failed-no-failures none; }

check: $(STAMP)  ## format, lint, strict types, arrows, tidy and fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 3 -m "not servers and not browser"  # they wait a little, so three for two cores

format: $(STAMP)  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## resolve requirements.lock anew (needs uv; writes no download address)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --extra dev pyproject.toml -o requirements.lock

bench-%: $(STAMP)  ## run one bench, e.g. make bench-first-light
	$(BIN)/python -m bench.$(subst -,_,$*)

conformance-vango: $(STAMP)  ## the Vango host contract, asked through our edge by the framework's tool and by us (needs Go)
	$(BIN)/python -m conformance.vango

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
