# Two commands do everything: `make train` and `make test`. Both install what is missing into .venv first.

PYTHON ?= python3
SEED ?= 0
LOGS ?= logs
BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help train test format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY) ## train VPG on CartPole-v1 (SEED=0), score it over 100 episodes, draw its learning curve
	$(BIN)/sb3-vpg train --env CartPole-v1 --seed $(SEED) --num-threads 1 --progress --verbose 0 -f "$(LOGS)"
	$(BIN)/sb3-vpg evaluate --env CartPole-v1 -f "$(LOGS)"

test: $(READY) ## run every check: lint, format, types, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --cov --durations=10 --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

format: $(READY) ## let ruff format the code and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and what the tools leave behind (logs/ stays)
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# The stamp is written last, so that an interrupted installation is repeated
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "sb3-vpg needs Python >= 3.10, but '$(PYTHON)' is `$(PYTHON) --version 2>&1`; name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into .venv, once; this takes a few minutes ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)
