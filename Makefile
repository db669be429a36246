# make repro   run the pipeline (creates .venv on first use)        make test   the test suite
# make lint    ruff and mypy                                        make clean  remove the environments and partial work
# make test-vllm   the tests marked vllm, with vLLM for CPU in .venv-vllm (Linux x86-64; needs the system's libnuma1)
#
# Variables: PYTHON=python3.12 chooses the interpreter (3.11 or 3.12); TORCH=cpu|cuda overrides the GPU detection.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo cuda || echo cpu)
TORCH_VERSION := $(shell sed -n 's/.*"torch==\([^"]*\)".*/\1/p' pyproject.toml)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: repro test test-vllm lint clean

repro: $(VENV)/.installed
	$(BIN)/tldr repro

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not (vllm or cluster or containers or pipeline or model)" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "(cluster or containers or pipeline or model) and not vllm" -n 2 --dist loadfile

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python -m pytest -m vllm

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VLLM_VENV) .tldr

$(VLLM_VENV)/.torch: TORCH := cpu

$(VENV)/.torch $(VLLM_VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 13) else "Python 3.11 or 3.12 is needed, this is %s; run: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(@D)
	@if [ "$(TORCH)" = cpu ]; then \
	  echo "Installing the CPU build of torch $(TORCH_VERSION) into $(@D) (make TORCH=cuda takes the CUDA build)."; \
	  : '--no-deps: an index that cannot be reached costs one time-out, not one for each dependency.'; \
	  $(@D)/bin/python -m pip install -q --no-deps "torch==$(TORCH_VERSION)+cpu" 2>/dev/null \
	    || $(@D)/bin/python -m pip install -q --no-deps --retries 0 --timeout 20 --index-url $(TORCH_CPU_INDEX) \
	         "torch==$(TORCH_VERSION)+cpu" \
	    || { echo "The CPU build cannot be reached; installing torch $(TORCH_VERSION) from the package index."; \
	         $(@D)/bin/python -m pip install -q "torch==$(TORCH_VERSION)"; }; \
	else \
	  $(@D)/bin/python -m pip install -q "torch==$(TORCH_VERSION)"; \
	fi
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(BIN)/python -m pip install -q -e ".[stages,html,cluster,test]"
	@touch $@

$(VLLM_VENV)/.installed: pyproject.toml tests/vllm_engine/requirements.txt $(VLLM_VENV)/.torch
	$(VLLM_VENV)/bin/python -m pip install -q -e ".[stages,test]"
	$(VLLM_VENV)/bin/python -m pip install -q --no-deps -r tests/vllm_engine/requirements.txt
	@touch $@
