# `make demo`, `make test` and `make check` need Python 3.11 or newer, make and a package index.
# Each creates .venv, installs what it needs at the versions of constraints.txt, and runs.
# pip follows its usual environment variables and configuration files.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTHONS := $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14
CHECK_PYTHON := import sys; sys.exit(sys.version_info < (3, 11))

# Tests run two at a time; those marked `serial` run alone, afterwards.
PYTEST := $(BIN)/python -m pytest -q --durations=10 --durations-min=5
JOBS ?= 2
EXTRAS := torch or brian2 or monitor or loadtest

.PHONY: help demo kafka simulate faults hostile test test-servers test-faults test-images check lint test-extras install-demo install-test install-check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# KAFKA=apache: on an Apache Kafka and a Redis that are started for it (Java 17, mvn).
demo: install-demo ## serve the digits network, kill a worker, compare every output bit
	@$(BIN)/spikerouter demo $(if $(KAFKA),--kafka $(KAFKA) --redis $(or $(REDIS),server))

kafka: install-demo ## start Apache Kafka on this machine; BROKERS=3 for a cluster (Java 17, mvn)
	@$(BIN)/spikerouter kafka start --brokers $(or $(BROKERS),1)

# One seed that failed is played again, with all that happened, by SEEDS=1 SEED=...
simulate: install-test ## seeded worlds of the task protocol on all cores; SEEDS=100000 SEED=0
	@$(BIN)/python -m loadtest.simulate --seeds $(or $(SEEDS),100000) --seed $(or $(SEED),0) $(SIMULATE)

# The seed is printed first; APACHE=1 for three real brokers; FAULTS takes more options (--help).
faults: install-test ## break a running stack 1,000 times on purpose, see that no bit changes; SEED=
	@$(BIN)/python -m loadtest.faults --faults 1000 $(if $(SEED),--seed $(SEED)) $(if $(APACHE),--apache) $(FAULTS)

# The seed is printed first; INPUTS=1000000; a minute of it: HOSTILE="--seconds 60".
hostile: install-test ## a million hostile inputs at every door, a good client beside them; SEED=
	@$(BIN)/python -m loadtest.hostile --inputs $(or $(INPUTS),1000000) $(if $(SEED),--seed $(SEED)) $(HOSTILE)

test: install-test ## all tests that need neither PyTorch nor a real server
	$(PYTEST) -n $(JOBS) --dist loadgroup -m "not serial and not servers and not faults and not images and not ($(EXTRAS))"
	$(PYTEST) -m "serial and not servers and not faults and not images and not ($(EXTRAS))"

check: install-check ## what CI runs: lint, types, import rules, all tests
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) test-servers
	$(MAKE) test-faults
	$(MAKE) test-extras

lint: install-check ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-servers: install-test ## the tests on Apache Kafka and redis-server (Java 17, mvn, openssl)
	$(PYTEST) -m "servers and not faults and not ($(EXTRAS))"

test-faults: install-test ## a few minutes of faults in real processes, some on Apache Kafka; SEED=
	$(PYTEST) -m faults

test-images: install-test ## the install steps of all images, in clean virtual environments (slow)
	$(PYTEST) -m images

test-extras: install-check ## the tests that need PyTorch, the SNN libraries, Faust or locust
	$(PYTEST) -m "$(EXTRAS)"

install-demo: $(VENV)/.demo
install-test: $(VENV)/.test
install-check: $(VENV)/.check

$(VENV)/.demo: extras := embedded
$(VENV)/.test: extras := embedded,dev
$(VENV)/.check: extras := embedded,dev,torch,brian2,monitor,loadtest
# What builds source packages: pinned as well, so nothing is built in isolation. Norse needs the second.
$(VENV)/.demo $(VENV)/.test: builders := setuptools
$(VENV)/.check: builders := setuptools setuptools-scm

$(VENV)/.demo $(VENV)/.test $(VENV)/.check: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing spikerouter[$(extras)] into $(VENV) ..."
	@$(PIP_INSTALL) $(builders)
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --no-build-isolation --editable '.[$(extras)]'
	@touch $@

$(VENV)/.python: constraints.txt
	@python=; \
	for candidate in $(PYTHONS); do \
	    if "$$candidate" -c "$(CHECK_PYTHON)" 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "No Python 3.11 or newer was found as any of: $(PYTHONS)." >&2; \
	    echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
	    exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ]; then \
	    "$$python" -m venv $(VENV) || { \
	        rm -rf $(VENV); \
	        echo "$$python cannot create a virtual environment; on Debian and Ubuntu install python3-venv." >&2; \
	        exit 1; \
	    }; \
	fi
	@$(PIP_INSTALL) pip
	@touch $@

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
