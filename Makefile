# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/quickstart.yaml

BIN := $(VENV)/bin
# Bytecode at once, distill's own too: jobs run in processes of their own, and where PYTHONDONTWRITEBYTECODE is set each
# of them would compile torch, vllm and distill again.
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
# uv does not read pip's index setting either.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# With an NVIDIA driver the CUDA flavour, else the CPU one.
FLAVOUR := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
# uv does not read pip's find-links setting: where it is set, the CPU build of torch is expected there; where it is not,
# --torch-backend finds it.
FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
ifeq ($(FLAVOUR),cpu)
UV_OPTIONS := --override cpu-overrides.txt $(if $(FIND_LINKS),--find-links "$(FIND_LINKS)",--torch-backend cpu)
endif

# Quick tests wait for processes and time limits a third of the time.
QUICK_PROCESSES := $(shell expr $$(nproc 2>/dev/null || echo 2) \* 2)

# Slow tests wait for other processes a third of the time; on a GPU, whose memory two would not share, one at a time.
SLOW_PROCESSES := $(if $(filter cpu,$(FLAVOUR)),2,0)

.PHONY: help install sandbox quickstart quickstart-rl r1-tiny test gpu-check lint format clean

help:
	@echo "make quickstart  install, then run $(RECIPE): minutes on 2 cores"
	@echo "make quickstart-rl  the same, then reinforcement learning beside a control"
	@echo "make r1-tiny     the same, then all rounds of DeepSeek-R1 on a small scale: an hour on 2 cores"
	@echo "make test        install, then run all tests"
	@echo "make gpu-check   what a GPU makes of it, in nine minutes, with what is installed (OPTIONS=--help)"
	@echo "make lint        ruff and mypy"
	@echo "make format      let ruff format the code"
	@echo "make clean       remove the environment; runs/ stays"

install: $(VENV)/.installed-$(FLAVOUR)

$(VENV)/.installed-$(FLAVOUR): pyproject.toml cpu-overrides.txt
	@echo "Installing the $(FLAVOUR) flavour into $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "distill needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@$(UV) $(UV_OPTIONS) --editable ".[$(FLAVOUR),dev]"
	@$(BIN)/python -m compileall -q distill
	@touch $@

quickstart: install
	@$(BIN)/python -W ignore scripts/fetch_smollm2.py
	@$(BIN)/distill run $(RECIPE)

quickstart-rl: RECIPE = recipes/quickstart-rl.yaml
quickstart-rl: quickstart

r1-tiny: RECIPE = recipes/r1-tiny.yaml
r1-tiny: quickstart

# Programs of models run in bubblewrap or not at all. Installed where this may; else their tests say why they skip.
sandbox:
	@command -v bwrap >/dev/null && command -v g++ >/dev/null || { test "$$(id -u)" = 0 && apt-get install -qq -y bubblewrap g++ >/dev/null 2>&1; } \
		|| echo "bubblewrap or g++ is missing, and tests that run programs are skipped: apt-get install bubblewrap g++"

test: install sandbox
	@$(BIN)/python -W ignore scripts/fetch_smollm2.py
	@$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses $(QUICK_PROCESSES) --dist loadfile
	@$(BIN)/python -m pytest -m "slow or gpu" --numprocesses $(SLOW_PROCESSES) --dist loadfile --no-loadscope-reorder

# Installs nothing: a machine without network has what it has.
gpu-check:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -W ignore scripts/gpu_check.py $(OPTIONS)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache
