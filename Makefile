# Every habit of the project. `make` or `make help` lists them. Nothing is needed but python3 (3.11 or newer) with venv.
.DEFAULT_GOAL := help
.PHONY: help demo test test-quick lint docs bench chaos chaos-pages fuzz clean

# Passed on: make demo ARGS=--keep, make test ARGS='-k promote'
ARGS ?=
# Another interpreter for .venv: make PYTHON=python3.12 test
PYTHON ?=
export PYTHON
# Where make chaos keeps what came of each fault
CHAOS_RESULTS ?= $(CURDIR)/build/chaos
export CHAOS_RESULTS

in_demo := @requirements/install demo &&
in_test := @requirements/install test &&
BIN := .venv/bin
SHELL_SCRIPTS := .ci/peers .ci/run .ci/wheels requirements/compile requirements/install policies/setup.sh

help: ## list these
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 13

demo: ## the whole job against a vault and a partner of its own (ARGS=--keep leaves them running)
	$(in_demo) $(BIN)/broker demo $(ARGS)

test: ## every test but the long ones, about ten minutes (ARGS='-k name' for some of them)
	$(in_test) $(BIN)/pytest -q -n 2 --dist loadscope $(ARGS)

test-quick: ## those that take a moment: under two minutes
	$(in_test) $(BIN)/pytest -q -n 2 --dist loadscope -m "not slow and not chaos and not fuzz" $(ARGS)

lint: ## style, types and shell scripts; changes nothing
	$(in_test) $(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/mypy --no-error-summary && $(BIN)/shellcheck $(SHELL_SCRIPTS) && $(BIN)/zizmor --offline -q .github/workflows

docs: ## write docs/reference anew from the code
	$(in_test) $(BIN)/python docs/generate.py

clean: ## remove .venv, caches and builds
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find broker tests docs bench -name __pycache__ -type d -prune -exec rm -rf {} +

# By hand, and long. Each gets its line in `make help` once there is something behind it.

bench: ## start-up times beside those of bao; bench/NAME runs one
	$(in_test) found=; for bench in bench/*; do \
	  if [ -f "$$bench" ] && [ -x "$$bench" ]; then found=1; "$$bench" $(ARGS) || exit; fi; \
	done; [ "$$found" ] || echo "nothing to measure yet: bench/ is empty"

chaos: ## kill, fault and race every command everywhere: an hour and a half, and its last lines say how often
	$(in_test) mkdir -p $(CHAOS_RESULTS) && $(BIN)/pytest -q -n 2 --dist worksteal -m chaos tests/chaos $(ARGS)

chaos-pages: ## write into docs/reference what the last whole make chaos found
	$(in_test) $(BIN)/python docs/faults.py $(CHAOS_RESULTS) && $(BIN)/python docs/faults_killed.py $(CHAOS_RESULTS)

fuzz: ## hostile input for what reads strangers' bytes, a minute a kind (FUZZ_SECONDS=600 FUZZ_SEED=7)
	$(in_test) $(BIN)/pytest -q -n 2 -m fuzz tests/fuzz $(ARGS)
