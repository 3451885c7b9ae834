# Everything a fresh machine needs: `make demo`, `make test`. Python 3.11 or newer, nothing else.
#
#   make demo            set up, then the main job: SFT checkpoint -> RL -> instruct checkpoint
#   make demo ARGS=seed=1
#   make test            set up, then the tests        make test ARGS='-k config'
#   make soak            the tests that `make test` leaves out: more deaths, nodes and processes
#   make suites          install the suites that CI runs (vlarl suite), then their tests; ManiSkill
#                        where Vulkan is good enough     make suites SUITES=metaworld
#   make lint types      ruff; mypy
#   PYTHON=/path/to/python make ...   another interpreter for the virtual environment

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# CPU wheels of torch; used where there is no NVIDIA driver and the index answers.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
INSTALLED := $(VENV)/.installed
ARGS ?=
# Suites of others that have pins here and whose tests take minutes, not hours.
SUITES ?= $(filter metaworld libero,$(patsubst envservers/environments/%.txt,%,$(wildcard envservers/environments/*.txt)))

.PHONY: demo test soak suites lint format types setup clean

demo: $(INSTALLED)
	$(BIN)/vlarl demo $(ARGS)

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak --durations 0 $(ARGS)

# One process: environments of suites are big, and drawing takes all of a core.
suites: $(INSTALLED)
ifneq ($(SUITES),)
	$(BIN)/vlarl suite install $(SUITES)
endif
ifeq ($(origin SUITES),file)
	@if $(BIN)/python -c 'from envservers import vulkan; vulkan.usable()' >/dev/null 2>&1; \
	    then $(BIN)/vlarl suite install maniskill; \
	    else echo "maniskill: left out, no Vulkan here that SAPIEN takes (vlarl doctor)"; fi
endif
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m suites -n 1 --durations 10 -rs $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

setup: $(INSTALLED)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "vlarl needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Installed again only when what to install has changed.
$(INSTALLED): pyproject.toml constraints-cpu.txt | $(VENV)/bin/python
	@set -e; constraint=""; index=""; \
	if ! command -v nvidia-smi >/dev/null 2>&1; then \
	    constraint="-c constraints-cpu.txt"; \
	    if $(BIN)/python -c "import urllib.request as r; r.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	    then index="--extra-index-url $(TORCH_CPU_INDEX)"; fi; \
	fi; \
	set -x; $(BIN)/python -m pip install --quiet --disable-pip-version-check $$constraint $$index -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
