# Each command does all of its own set-up on a fresh machine; see README.md.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-warn-conflicts -c constraints.txt
# Only its tritonserver folder is used: its own pins (old numpy) must not decide ours.
PYTRITON := nvidia-pytriton==0.7.0
SYSTEM_PYTHON := $(shell command -v python3 || command -v python3.13 || command -v python3.12 || command -v python3.11 || command -v python3.10)
# PYTHON=/path/to/python3.12 chooses the interpreter; TORCH_INDEX=https://download.pytorch.org/whl/cpu
# keeps CUDA's wheels (5 GB) away where PyPI would bring them along with torch.
PYTHON ?=
TORCH_INDEX ?=
ARGS ?=

.PHONY: help setup setup-dev serve test check demo bench load proto lock doctor clean

help:
	@echo "make serve   the service with its web page on http://localhost:8080"
	@echo "make demo    renders out/demo.mp4 with the embedded voice and avatar"
	@echo "make test    the whole test suite       make check   format, lint, types, manifests"
	@echo "make load    load test of the whole system, out/load/report.html"
	@echo "make bench   benchmarks, out/bench.json  make doctor  what this machine has"

$(VENV)/.serve: pyproject.toml constraints.txt orchestrator/preflight.py
	@[ -n "$(SYSTEM_PYTHON)" ] || { echo "make: no Python on PATH: install Python 3.11 (apt-get install python3 python3-venv)" >&2; exit 1; }
	@python=$$(PYTHON="$(PYTHON)" $(SYSTEM_PYTHON) orchestrator/preflight.py) && \
	  { $(BIN)/python -c 'import pip' 2>/dev/null || "$$python" -m venv --clear $(VENV); }
	@echo "Installing the serving packages (a few minutes the first time)"
	@$(PIP) -e '.[piper]'
	@$(PIP) --no-deps $(PYTRITON)
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "Installing the export and development packages"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[piper,export,demo,telemetry,loadtests,dev]'
	@touch $@

setup: $(VENV)/.serve

setup-dev: $(VENV)/.dev

serve: setup
	@$(BIN)/musetalk serve $(ARGS)

demo: setup
	@mkdir -p out
	@$(BIN)/musetalk speak "Hello! I am a talking avatar, rendered on this very machine." -o out/demo.mp4 $(ARGS)

doctor: setup
	@$(BIN)/musetalk doctor

# Three at a time: many of them wait for media that plays in real time. ARGS="-n 0" for one.
test: setup-dev
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/deploy/test_kubernetes.py tests/deploy/test_compose.py

bench: setup-dev
	@mkdir -p out
	@$(BIN)/python -m loadtests.bench --output out/bench.json $(ARGS)

$(VENV)/.load: $(VENV)/.serve
	@$(PIP) -e '.[piper,loadtests]'
	@touch $@

load: $(VENV)/.load
	@$(BIN)/python -m loadtests.load --output out/load $(ARGS)

# The Python of the gRPC API, from its .proto file; it lies in git.
proto: setup-dev
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
	  orchestrator/api/musetalk/v1/musetalk.proto

# The lock: every version, for every supported Python. CUDA's wheels are left out, they follow
# torch; torch itself is pinned by hand (this version has a CPU wheel wherever we test).
lock:
	@$(BIN)/python -m pip install -q uv
	@echo "torch==2.13.0" > $(VENV)/torch.in
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.10 --no-annotate --no-header \
	  --extra piper --extra export --extra demo --extra telemetry --extra gpu --extra loadtests --extra dev -c $(VENV)/torch.in -q -o $(VENV)/lock.txt
	@{ echo "# Locked versions for Python 3.10 to 3.13 on Linux, all extras; written by make lock."; \
	  grep -vE '^(nvidia-(cu|nccl|nv)|cuda-|triton=)' $(VENV)/lock.txt; } > constraints.txt

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
