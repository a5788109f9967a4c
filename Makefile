# Two commands do everything: `make train` and `make test`. Both install what is missing into .venv first.

PYTHON ?= python3
SEED ?= 0
LOGS ?= logs
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

LOWEST := .venv-lowest
# About two minutes of tests, in which each dependency is used
LOWEST_TESTS := $(patsubst %,tests/%.py,test_a2c_parity test_normalization test_spaces test_refused_spaces checkpoints/test_env_attributes \
	persistence/test_json_codec persistence/test_save_load zoo/test_tracking zoo/tuning/test_best_entry \
	zoo/tuning/test_search_space zoo/agents/test_trained_agents zoo/agents/test_videos zoo/hub/test_hub compare/test_ray \
	compare/test_report)
# The others in the lowest versions are the newest of this day, so that the same command tests the same
LOWEST_DAY := 2026-11-29

.DEFAULT_GOAL := help
.PHONY: help train test test-lowest test-pythons format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY) ## train VPG on CartPole-v1 (SEED=0), score it over 100 episodes, draw its learning curve
	$(BIN)/sb3-vpg train --env CartPole-v1 --seed $(SEED) --num-threads 1 --progress --verbose 0 -f "$(LOGS)"
	$(BIN)/sb3-vpg evaluate --env CartPole-v1 -f "$(LOGS)"

# NumPy's last release for Python 3.10 has stubs in which np.ndarray means nothing without its type arguments
test: $(READY) ## run every check: lint, format, floors, types, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy `$(BIN)/python -c 'import sys; print("--allow-any-generics" * (sys.version_info < (3, 11)))'`
	$(BIN)/$(PYTEST) --cov --durations=10

# Old releases call what newer ones deprecate
test-lowest: $(LOWEST)/ready ## run a part of the tests with the lowest versions that pyproject.toml allows
	@echo "The lowest versions that pyproject.toml allows, but for torch: `cat $(LOWEST)/torch.txt`"
	$(LOWEST)/bin/$(PYTEST) -W ignore::DeprecationWarning $(LOWEST_TESTS)

test-pythons: ## run make test on every Python that pyproject.toml claims and this machine has
	$(PYTHON) scripts/test_pythons.py

format: $(READY) ## let ruff format the code and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environments and what the tools leave behind (logs/ stays)
	rm -rf .venv .venv-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# A stamp is written last, so that an interrupted installation is repeated
$(READY): pyproject.toml constraints.txt
	$(call new-environment,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# uv finds the versions; pip installs them, since it may know of builds that uv does not look for. torch is the one of
# constraints.txt: of older releases PyPI has only builds for CUDA, of several GB. box2d is left out: the one that the lowest
# gymnasium asks for has to be compiled
$(LOWEST)/ready: pyproject.toml constraints.txt
	rm -rf $(LOWEST)
	$(call new-environment,$(LOWEST))
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints.txt uv
	$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --extra dev \
		--exclude-newer $(LOWEST_DAY) --constraint $(LOWEST)/torch.txt --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[track,mujoco,ray]' \
		hypothesis pytest pytest-xdist
	@touch $@

# $(1): the folder
define new-environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "sb3-vpg needs Python >= 3.10, but '$(PYTHON)' is `$(PYTHON) --version 2>&1`; name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(1) || \
		{ echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(1), once; this takes a few minutes ..."
endef
