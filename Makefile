# make run    everything on this machine: environment, packages, server        make test   what CI runs
# make dev    the same, with reload on save                                     make help   all of it

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

GUESTS := tests/guests/programs

.PHONY: help run dev test style types audit unit guests proofs soak bench-store packages-for-tests requirements clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(VENV)/installed ## install what is missing and start the server
	@exec $(BIN)/tornado-live serve

dev: $(VENV)/installed ## the same, restarted whenever a file is saved
	@exec $(BIN)/tornado-live dev

test: $(VENV)/installed-dev packages-for-tests style types audit unit ## style, types, audit and all tests

style: $(VENV)/installed-dev ## ruff check and ruff format --check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## mypy, strict, on the package
	@$(BIN)/mypy

audit: $(VENV)/installed-dev ## the packages: pins, hashes, licences, known holes
	@$(BIN)/python tests/audit.py

# Two at a time; what measures time runs by itself, afterwards.
unit: $(VENV)/installed-dev guests
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone"
	@$(BIN)/python -m pytest -m alone

proofs: $(VENV)/installed-dev ## which test proves which fault of docs/faults.md
	@$(BIN)/python tests/proofs.py

soak: $(VENV)/installed-dev ## what schemathesis makes up of the OpenAPI document in ten minutes, other requests each time
	@SCHEMATHESIS_S=600 $(BIN)/python -m pytest -s tests/test_openapi_fuzzed.py

bench-store: $(VENV)/installed-dev ## what the session store costs; ARGS="--redis redis://127.0.0.1" for Redis too
	@$(BIN)/python bench/store.py $(ARGS)

# One file that is newer than what it was made from says that the environment is complete, so that a second
# start costs nothing.
$(VENV)/installed: requirements/build.txt requirements/runtime.txt requirements/voice.txt setup.py | $(BIN)/python
	@echo "Installing the packages; the first time this takes a minute."
	@$(PIP) install --quiet --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) install --quiet --require-hashes -r requirements/voice.txt || { \
		echo; \
		echo "The voice packages could not be installed here (there may be no wheels for this machine or Python)."; \
		echo "Everything works but this: the simulator then takes typed text and answers in text, it neither"; \
		echo "hears nor speaks. With a Gemini key, voice works all the same."; \
		echo; }
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements/dev.txt $(VENV)/installed
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

# Google's own clients, each in an environment of its own, as their users have them: a Python without this
# project's packages, and a Node that is newer than most systems'. npm leaves alone what packages want to run.
guests: .cache/guests/installed $(GUESTS)/node_modules/installed

.cache/guests/installed: requirements/guests.txt | $(BIN)/python
	@rm -rf $(@D) && $(BIN)/python -m venv --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install --quiet --require-hashes -r requirements/guests.txt
	@touch $@

$(GUESTS)/node_modules/installed: $(GUESTS)/package-lock.json
	@command -v npm >/dev/null || { \
		echo "npm was not found, so the tests with Google's clients are skipped; install it to run them."; exit 0; }; \
	cd $(GUESTS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/installed

$(BIN)/python:
	@for python in python3.13 python3.12 python3.11 python3 python; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)."; \
			"$$python" -m venv $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "$$python cannot make an environment. On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "Python 3.11 or newer is needed and was not found. Install it from your system's packages" >&2; \
	echo "or from python.org, then run this again." >&2; \
	exit 1

# The browser tests drive Chromium, the proxy tests nginx, the tests of stores a Redis and the SQL tests a PostgreSQL
# server that they start; npm brings Google's JavaScript client, libfaketime another time. What cannot be installed
# is skipped visibly; where CI is set a skip fails the run (tests/conftest.py).
packages-for-tests:
	@missing=""; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	PATH="$$PATH:/usr/sbin:/sbin"; command -v nginx >/dev/null || missing="$$missing nginx-light"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	command -v slowhttptest >/dev/null || missing="$$missing slowhttptest"; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$$missing libfaketime"; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
		|| missing="$$missing postgresql"; \
	[ -n "$$missing" ] || exit 0; \
	root=""; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
		echo "Installing for the tests:$$missing"; \
		$$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			$$root apt-get install -y -qq --no-install-recommends $$missing >/dev/null && exit 0; \
	fi; \
	echo "Not installed:$$missing. Tests that need it are skipped; install it to run them."

requirements: | $(BIN)/pip-compile ## resolve setup.py's dependencies anew into requirements/*.txt
	@export CUSTOM_COMPILE_COMMAND="make requirements"; \
	$(COMPILE) --allow-unsafe -o requirements/build.txt requirements/build.in; \
	$(COMPILE) -o requirements/runtime.txt setup.py; \
	$(COMPILE) --extra voice -c requirements/runtime.txt -o requirements/voice.txt setup.py; \
	$(COMPILE) --allow-unsafe --extra dev -c requirements/runtime.txt -c requirements/build.txt \
		-o requirements/dev.txt setup.py; \
	$(COMPILE) -o requirements/guests.txt requirements/guests.in

$(BIN)/pip-compile: | $(VENV)/installed-dev

clean: ## remove everything that make made, but not data/
	@rm -rf $(VENV) .cache $(GUESTS)/node_modules build dist *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
