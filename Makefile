# Every target does its own set-up: it creates .venv and installs what it needs there.
# PYTHON picks the interpreter (>= 3.10) and PIP_ARGS is handed to pip; see README.md.

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := .venv/bin
CPP := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')
SOURCES := pyproject.toml CMakeLists.txt README.md constraints.txt \
    $(shell find cmake csrc python -type f -not -name '*.pyc')

.DEFAULT_GOAL := help
.PHONY: bench bench-check build clean demo docs format help lint sanitize test

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

demo: .venv/installed-cli  ## Train LPG-Net, compare it with its rivals and write a report
	$(BIN)/fastunroll demo $(DEMO_ARGS)

test: .venv/installed-dev  ## Run the test suite on the installed package
	$(BIN)/pytest -n auto $(PYTEST_ARGS)

bench: .venv/installed-bench  ## Measure speed against PyTorch and others; refresh the tables
	$(BIN)/pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds $(PYTEST_ARGS)
	$(BIN)/fastunroll bench --output build/bench --targets benchmarks/targets.toml \
	    --update README.md --update docs/performance.md $(BENCH_ARGS)

bench-check: .venv/installed-bench  ## Measure the targets; fail where one is missed
	$(BIN)/fastunroll bench --output build/bench-check --targets benchmarks/targets.toml --check \
	    $(BENCH_ARGS)

# With ThreadSanitizer, GCC 12 spills the lower half of an AVX-512 mask and reads all of it back, so
# that threads are checked with the generic code: they do not depend on the instruction set.
sanitize:  ## Run the native checks under the compiler's sanitizers of memory and threads
	+$(MAKE) -C tests/native SANITIZE=address,undefined BUILD=$(CURDIR)/build/sanitize-memory run
	+$(MAKE) -C tests/native SANITIZE=thread BUILD=$(CURDIR)/build/sanitize-threads ISAS=generic \
	    run

lint: .venv/installed-dev  ## Check style, types and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: .venv/installed-dev  ## Put all sources into the common format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

docs: .venv/installed-docs  ## Write the API reference to build/docs
	$(BIN)/pdoc --docformat numpy --output-directory build/docs fastunroll

build: .venv/installed-dev  ## Build a wheel into dist
	$(BIN)/pip wheel $(PIP_ARGS) --no-deps --wheel-dir dist .

clean:  ## Remove .venv and everything built
	rm -rf .venv build dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed")'
	$(PYTHON) -m venv .venv

# The constraints also hold for the tools of the isolated build: older versions of pip take them
# there from PIP_CONSTRAINT, newer ones from PIP_BUILD_CONSTRAINT.
.venv/installed-%: $(SOURCES) | .venv/bin/python
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	    $(BIN)/pip install $(PIP_ARGS) '.[$*]'
	touch $@
