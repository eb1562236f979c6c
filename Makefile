# Every task of the project; `make` lists them. It needs python3 (3.11 or newer) with venv.
.DEFAULT_GOAL := help
.PHONY: help demo cluster test test-quick test-all test-quick-pythons lint docs bench chaos fuzz clean

# Passed on: make demo ARGS=--keep, make test ARGS='-k promote'
ARGS ?=
# Another interpreter for .venv: make PYTHON=python3.12 test
PYTHON ?=
export PYTHON
# Where make chaos keeps what came of each fault
CHAOS_RESULTS ?= $(CURDIR)/build/chaos
export CHAOS_RESULTS
# Without compiled files each run would compile every test and every module of the broker again
unexport PYTHONDONTWRITEBYTECODE

in_demo := @requirements/install demo &&
in_test := @requirements/install test &&
BIN := .venv/bin
# Most tests wait for servers, so there are more processes than cores; `conftest.py` has the order
SPREAD := -q -n 4 --dist loadscope --no-loadscope-reorder
PYTEST := $(BIN)/pytest $(SPREAD)
# The Pythons of make test-quick-pythons: those that are found
PYTHONS ?= $(foreach v,3.12 3.13 3.14,$(if $(shell command -v python$v),python$v))
SHELL_SCRIPTS := deploy/image/prepare .ci/peers .ci/run .ci/wheels requirements/compile requirements/install policies/setup.sh $(wildcard examples/*/*.sh)

help: ## list these
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

demo: ## the whole job against a separate vault and partner (ARGS=--keep leaves them running)
	$(in_demo) $(BIN)/broker demo $(ARGS)

cluster: ## two brokers on three vaults, whose leader is killed while an application fetches (ARGS=--keep)
	$(in_demo) $(BIN)/python -m broker_demo.cluster $(ARGS)

test: ## every test but the long ones, some minutes (ARGS='-k name' for some of them)
	$(in_test) $(PYTEST) $(ARGS)

test-quick: ## those that take a moment: a minute
	$(in_test) $(PYTEST) -m "not slow and not deep and not chaos and not fuzz" $(ARGS)

test-all: ## the long ones too (marked deep): some 20 minutes; .ci/run runs this
	$(in_test) $(PYTEST) -m "not chaos and not fuzz" $(ARGS)

test-quick-pythons: ## test-quick with other Pythons (PYTHONS="python3.13 /path/to/python3.14")
	@for python in $(PYTHONS); do \
	  venv=build/venv-$$(basename $$python); \
	  echo "== $$($$python -V)" && VENV=$$venv PYTHON=$$python requirements/install test && \
	  $$venv/bin/pytest $(SPREAD) -m "not slow and not deep and not chaos and not fuzz" $(ARGS) || exit; \
	done

lint: ## style, types and shell scripts; changes nothing
	$(in_test) $(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/mypy --no-error-summary && $(BIN)/shellcheck $(SHELL_SCRIPTS) && $(BIN)/zizmor --offline -q .github/workflows

docs: ## rewrite docs/reference from the code
	$(in_test) $(BIN)/python docs/generate.py

clean: ## remove .venv, caches and builds
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find broker tests docs bench -name __pycache__ -type d -prune -exec rm -rf {} +

bench: ## start-up times beside those of bao; bench/NAME runs one
	$(in_test) found=; for bench in bench/*; do \
	  if [ -f "$$bench" ] && [ -x "$$bench" ]; then found=1; "$$bench" $(ARGS) || exit; fi; \
	done; [ "$$found" ] || echo "nothing to measure yet: bench/ is empty"

chaos: ## kill, fault and race every command everywhere: an hour and a half; its reports are build/chaos/*.md
	$(in_test) mkdir -p $(CHAOS_RESULTS) && $(BIN)/pytest -q -n 2 --dist worksteal -m chaos tests/chaos $(ARGS); \
	  code=$$?; $(BIN)/python -m tests.chaos.report $(CHAOS_RESULTS); exit $$code

fuzz: ## hostile input for what reads strangers' bytes, a minute a kind (FUZZ_SECONDS=600 FUZZ_SEED=7)
	$(in_test) requirements/install fuzz && $(BIN)/pytest -q -n 2 -m fuzz tests/fuzz $(ARGS)
