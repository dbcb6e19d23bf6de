# Each target does its own set-up: a machine needs Python 3.11 or newer, make and git.

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shared services/lobby services/imd services/trajectory clients/python services/gateway

# The first Python that is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

# The peers' own programs, for compatibility tests, in an environment of their own.
PEERS := .venv-peers
PEER_PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 \
		"$$(pyenv root 2>/dev/null)"/versions/3.1[2-9]*/bin/python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo "$$python"; break; }; done)

# What to run: PATH[?option=value&...] or demo:NAME, several separated by spaces. Unset runs the demo.
INPUT ?=
ARGS ?=
PYTEST_ARGS ?=

# What `make web` ends with: build, or check:built, which says whether what is served is what the sources give.
WEB_BUILD ?= build

LOCK := uv pip compile requirements.in --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup session test validate verify fix protos web bench peers up down lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.packages ## install everything into .venv (the other targets do it when needed)

session: setup ## run a whole session here; Ctrl-C ends it (INPUT=path for your own system, ARGS=... for narupa session)
	@exec $(BIN)/narupa session $(ARGS) $(foreach input,$(INPUT),'$(input)')

test: setup ## run every test that needs no container engine, and is no long validation (PYTEST_ARGS=... is passed on)
	@$(BIN)/pytest -m "not containers and not clean_clone and not validation" $(PYTEST_ARGS)

validate: setup ## hold the physics against its bounds, and write docs/validation.md (some minutes)
	@$(BIN)/pytest tests/validation --validation-report docs/validation.md $(PYTEST_ARGS)

verify: setup ## run every check that changes nothing: style, types, contracts, protos, docs, lock
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python protos/generate.py --check
	$(BIN)/python -m narupa_shared.access | diff -u docs/access.md -
	@echo "lock: every requirement is pinned and hashed, and no index is named"
	@awk '/^[A-Za-z0-9]/ { if (name && !hashed) { print "requirements.lock: " name " has no hash"; bad = 1 } \
			name = $$1; hashed = 0; if (name !~ /==/) { print "requirements.lock: " name " is not pinned"; bad = 1 } } \
		/--hash=sha256:/ { hashed = 1 } \
		/:\/\// || /index-url|find-links/ { print "requirements.lock: names an address: " $$0; bad = 1 } \
		END { if (name && !hashed) { print "requirements.lock: " name " has no hash"; bad = 1 } exit bad }' requirements.lock tests/compat/nanover/requirements.lock
	@$(BIN)/python -m pip check
	@echo "paths: no tracked file names somebody's home folder"
	@! git grep -nIE '/(home|Users)/[A-Za-z]|/root/' -- . ':!Makefile'

fix: setup ## mend what can be mended by machine: imports, style, format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup ## generate all code from protos/, and the pages that are made from code
	$(BIN)/python protos/generate.py
	$(BIN)/python -m narupa_shared.access > docs/access.md

web: ## check, test and build the viewer that the gateway serves (needs Node 20.19 or newer)
	@node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null || { \
		echo "make: no Node 20.19 or newer found, which building the viewer needs; what is served has been built already" >&2; exit 1; }
	cd clients/web && npm ci --no-audit --no-fund --ignore-scripts
	cd clients/web && npm run --silent check && npm run --silent test && npm run --silent $(WEB_BUILD)

bench: setup ## measure, and write docs/bench/ (many minutes, alone on the machine; ARGS="delivery crowd" for some of it)
	@$(BIN)/python -m benchmarks $(ARGS)

peers: $(PEERS)/.requirements ## set up the NanoVer client, for the tests that join with it (needs Python 3.12 or newer)

up: ## build and run a whole session in containers; Ctrl-C stops it
	docker compose up --build

down: ## remove the containers of `make up`
	docker compose down

lock: setup ## pin requirements.in anew, with hashes, in requirements.lock
	$(BIN)/$(LOCK) --upgrade -o requirements.lock
	$(BIN)/uv pip compile tests/compat/nanover/requirements.in --no-deps --universal --python-version 3.12 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -o tests/compat/nanover/requirements.lock

$(PEERS)/.requirements: tests/compat/nanover/requirements.lock
	@test -n "$(PEER_PYTHON)" || { echo "make: no Python 3.12 or newer found, which the NanoVer client needs" >&2; exit 1; }
	@echo "making $(PEERS) with $$($(PEER_PYTHON) --version)"
	@$(PEER_PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $$($(PYTHON) --version) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.requirements: requirements.lock | $(BIN)/python
	@echo "installing the packages of requirements.lock (about a minute the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.packages: $(VENV)/.requirements $(PACKAGES:%=%/pyproject.toml)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	@touch $@
