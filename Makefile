# `make train` and `make test` first install the dependencies into .venv. `make` lists all targets.

PYTHON ?= python3
SEED ?= 0
LOGS ?= logs
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

LOWEST := .venv-lowest
# About two minutes of tests, in which each dependency is used
LOWEST_TESTS := $(patsubst %,tests/%.py,test_a2c_parity test_maskable_vpg test_normalization test_spaces test_refused_spaces checkpoints/test_env_attributes \
	persistence/test_json_codec persistence/test_save_load zoo/test_tracking zoo/tuning/test_best_entry \
	zoo/tuning/test_search_space zoo/agents/test_trained_agents zoo/agents/test_videos zoo/hub/test_hub compare/test_ray \
	compare/test_report)
# Indirect dependencies are the newest of this day, so that the same command always tests the same versions
LOWEST_DAY := 2026-11-29

.DEFAULT_GOAL := help
.PHONY: help train test docs test-lowest test-processes test-export test-pythons format clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(READY) ## train VPG on CartPole-v1 (SEED=0), score it over 100 episodes, draw its learning curve
	$(BIN)/sb3-vpg train --env CartPole-v1 --seed $(SEED) --num-threads 1 --progress --verbose 0 -f "$(LOGS)"
	$(BIN)/sb3-vpg evaluate --env CartPole-v1 -f "$(LOGS)"

# In the stubs of NumPy's last release for Python 3.10, np.ndarray has no default type arguments
test: $(READY) ## run every check: lint, format, imports, types, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy `$(BIN)/python -c 'import sys; print("--allow-any-generics" * (sys.version_info < (3, 11)))'`
	$(BIN)/$(PYTEST) --cov --durations=10

# Each lesson's kernel gets one thread, because small networks train fastest with one
docs: $(READY) ## build the documentation site in docs/_build/html; run the longer commands of its pages
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --jobs 2 -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m pytest tests/test_documentation_runs.py --documentation --numprocesses 2 --dist loadscope -q -rs

# Old releases call functions that newer Python or NumPy versions deprecate
test-lowest: $(LOWEST)/ready ## run a part of the tests with the lowest versions that pyproject.toml allows
	@echo "The lowest versions that pyproject.toml allows, except torch: `cat $(LOWEST)/torch.txt`"
	$(LOWEST)/bin/$(PYTEST) -W ignore::DeprecationWarning $(LOWEST_TESTS)

test-processes: $(READY) ## train long on up to eight processes, and kill a worker of Ray
	$(BIN)/python -m pytest tests/distributed tests/compare/test_ray.py --processes -q

test-export: $(READY) ## export every agent that ships, and agents for all pairs of spaces
	$(BIN)/python -m pytest tests/export tests/zoo/agents/test_export.py --export -q

test-pythons: ## run make test with every Python version of pyproject.toml that this machine has
	$(PYTHON) scripts/test_pythons.py

format: $(READY) ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove environments, builds and caches, but not logs/
	rm -rf .venv .venv-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# The file "ready" is written last, so that an interrupted installation is repeated
$(READY): pyproject.toml constraints.txt
	$(call new-environment,$(VENV))
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# uv resolves the versions; pip installs them, as it may be configured for other indexes. torch is the version of
# constraints.txt: older releases exist on PyPI only with CUDA, with several GB. box2d is left out, because the version for the
# lowest gymnasium has to be compiled
$(LOWEST)/ready: pyproject.toml constraints.txt
	rm -rf $(LOWEST)
	$(call new-environment,$(LOWEST))
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints.txt uv
	$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --extra dev \
		--exclude-newer $(LOWEST_DAY) --constraint $(LOWEST)/torch.txt --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[track,mujoco,ray,export]' \
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
