# make quickstart   install, then a whole study of text found on this machine (CPU, about five minutes)
# make test         install, then every test          make test-unit   only the quick ones
# make check        format, lint, types               make install     only set up .venv
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS ?= all
# Test processes. Each takes whole files, so fixtures of a module are made once; the order is that of tests/conftest.py.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-unit check format clean

help:
	@sed -n '1,3s/^# //p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: setup.py scripts/install.sh
	PYTHON="$(PYTHON)" EXTRAS="$(EXTRAS)" bash scripts/install.sh $(VENV)
	@touch $@

quickstart: install
	$(BIN)/python examples/quickstart.py

test: install
	$(BIN)/python -m pytest $(PARALLEL)

test-unit: install
	$(BIN)/python -m pytest $(PARALLEL) -m "not job and not slow"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
