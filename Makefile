# `make run` and `make test` set up what they need; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= onnx,openvino,hub,classical,video,serve,launchers,search,parquet,test,lint,docs
ifndef OUT
OUT := outputs/quickstart/$(shell date +%Y-%m-%d_%H-%M-%S)
endif
FAMILIES := quickstart/dncnn,quickstart/unet,quickstart/nafnet,quickstart/srgan,quickstart/restormer

export NO_ALBUMENTATIONS_UPDATE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the tests start many interpreters: without its bytecode, each would compile the package again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-kills test-faults test-slurm test-wheel test-quick bench zoo-verify lint docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## a virtual environment with the tested versions

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("restora needs Python 3.11 or newer; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV): a few minutes, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

run: setup ## train, compare and export five families on sample photos (under 10 minutes on 2 cores)
	$(BIN)/restora train -m experiments=$(FAMILIES) hydra.sweep.dir=$(OUT)
	$(BIN)/restora report $(OUT) --baselines
	$(BIN)/restora export --best $(OUT) $(OUT)/model
	$(BIN)/restora restore $(OUT)/model $(OUT)/0_dncnn/images/chelsea_degraded.png $(OUT)/chelsea_restored.png
	@echo "page      $(OUT)/report.html"; echo "model     $(OUT)/model"; echo "restored  $(OUT)/chelsea_restored.png"

$(VENV)/.peers: tests/peers.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/peers --requirement tests/peers.txt
	@touch $@

test: setup $(VENV)/.peers ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

KILLS := PYTHONPATH=src $(BIN)/python tests/kill_sweep.py --jobs 20 --kills 10
test-kills: setup ## sweeps of 20 jobs, also on Ray and as a search, killed ten times at random, against undisturbed ones (35 minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[ray]"
	$(KILLS)
	$(KILLS) --search
	$(KILLS) --executor ray

test-slurm: setup ## the same through a real SLURM on this machine, set up for it (Debian, as root; 20 minutes)
	tests/slurm.sh start
	export SLURM_CONF=/tmp/restora-slurm/slurm.conf; $(BIN)/python -m pytest -q tests/end_to_end/test_slurm.py && $(KILLS) --executor slurm; code=$$?; tests/slurm.sh stop; exit $$code

test-faults: setup ## kills, damaged files, full disks, bad servers, poison, strangers, little memory, at random, with a count (FAULTS="--seed 2")
	PYTHONPATH=src $(BIN)/python tests/faults $(FAULTS)

test-wheel: setup ## the README's lines in a new environment, with the wheel and its dependencies alone (minutes; from the package index)
	$(BIN)/python tests/clean_install.py

test-quick: setup $(VENV)/.peers ## what a change breaks first: unit tests and layers, in a minute and a half on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow" tests/unit tests/contracts/test_layers.py

$(VENV)/.peers-bench: benchmarks/peers.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --upgrade --target $(VENV)/peers-bench --requirement benchmarks/peers.txt
	@touch $@

bench: setup ## every figure about speed, beside other people's code, as one table (an hour; BENCH=--quick: a third)
	@$(MAKE) --no-print-directory --keep-going $(VENV)/.peers $(VENV)/.peers-bench || echo "Not all peers could be installed: their rows will say so"
	$(BIN)/python benchmarks $(BENCH)

zoo-verify: setup ## the shipped models measured again on their test sets (DATA=FOLDER holds testsets/)
	$(BIN)/restora zoo verify $(if $(DATA),--data-dir $(DATA))

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## the site, in build/site (open build/site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## removes what runs wrote (not data/ and not the environment)
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache
