# Every target sets up what it needs. Another interpreter or torch: make test PYTHON=python3.12 TORCH=torch==2.15.0
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# test-cuda-build: a release that is built for CUDA, and the oldest that is supported.
CUDA_TORCH ?= torch==2.15.0
OLDEST_TORCH ?= torch==2.11.0
CUDA_VENV ?= $(VENV)-cuda
OLDEST_VENV ?= $(VENV)-oldest
CUDA_HOME ?= $(firstword $(patsubst %/bin/nvcc,%,$(wildcard /usr/local/cuda/bin/nvcc) $(realpath $(shell command -v nvcc))))
CUDA_ARCHS := 8.0;9.0
GPU_CHECK ?= runs/gpu-check

# Threads that wait actively would keep another worker from its core: 3 min 50 s in place of 2 min for a third of the tests.
WORKERS ?= 2
pytest = OMP_WAIT_POLICY=passive $(1)/bin/pytest --numprocesses $(WORKERS) --dist worksteal

PIP_INSTALL := pip install --quiet --disable-pip-version-check
BUILD_NEEDS := "setuptools>=77" "pybind11>=2.12" ninja
SOURCES := pyproject.toml setup.py $(shell find csrc sat_kernels -type f -not -name "*.so" -not -path "*/__pycache__/*")

.PHONY: FORCE help demo test stress test-cuda-build bench gpu-check lint install clean cuda-toolkit

help:
	@echo "make demo             train ReLU and smooth networks adversarially on real digits; table and plot in $(DEMO)"
	@echo "make test             the test suite"
	@echo "make stress           the perturbation operators on 10,000 random cases each: half an hour"
	@echo "make test-cuda-build  without a GPU: the CUDA build, and one binary under several releases of torch; needs nvcc,"
	@echo "                      downloads 8 GB"
	@echo "make bench            limits, kernels, attacks, training, beside PyTorch and other libraries: 15 minutes on 2 cores,"
	@echo "                      goes on where it was; ARGS=--quick 2 minutes, --full all of it, --help tells more;"
	@echo "                      PEERS=1 installs torchattacks, foolbox and AutoAttack to measure beside"
	@echo "make gpu-check        on a GPU, offline: build, tests, benchmarks; one report in $(GPU_CHECK). ARGS=--help tells more"
	@echo "make lint             ruff"

demo: $(VENV)/installed
	$(BIN)/sat-kernels compare --output $(DEMO)

test: $(VENV)/installed
	$(call pytest,$(VENV))

stress: $(VENV)/installed
	SAT_KERNELS_STRESS=1 $(BIN)/pytest --timeout=0 tests/stress

bench: $(VENV)/installed $(if $(PEERS),$(VENV)/peers)
	$(BIN)/sat-kernels bench $(ARGS)

# Named with torch, so that pip takes the torchvision that was made for it, and no other torch.
$(VENV)/peers: $(VENV)/installed
	$(BIN)/$(PIP_INSTALL) $(TORCH) torchvision torchattacks foolbox git+https://github.com/fra31/auto-attack
	touch $@

# With the Python that is there: GPU machines are often offline, and their torch is chosen with care.
gpu-check:
	@$(PYTHON) benchmarks/gpu --output $(GPU_CHECK) $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/installed

# Rewritten only when it changes, so that another interpreter or torch makes another environment.
$(VENV).wanted: FORCE
	@echo "$(PYTHON) $(TORCH)" | cmp -s - $@ || echo "$(PYTHON) $(TORCH)" > $@

$(VENV)/torch: $(VENV).wanted
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/$(PIP_INSTALL) $(TORCH) $(BUILD_NEEDS)
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py $(shell find csrc -type f)
	$(BIN)/$(PIP_INSTALL) --no-build-isolation --editable ".[train,dev]"
	touch $@

# --- The CUDA build, and one binary for several releases.

cuda-toolkit:
	@test -x "$(CUDA_HOME)/bin/nvcc" || { \
	  echo "make test-cuda-build: no CUDA toolkit: set CUDA_HOME to the folder that holds bin/nvcc" >&2; exit 1; }

$(CUDA_VENV)/torch: | cuda-toolkit
	$(PYTHON) -m venv --clear $(CUDA_VENV)
	$(CUDA_VENV)/bin/$(PIP_INSTALL) $(CUDA_TORCH) torchvision timm $(BUILD_NEEDS)
	touch $@

# A wheel, built in a folder of its own: an editable installation would replace the extension of $(VENV).
$(CUDA_VENV)/wheel: $(CUDA_VENV)/torch $(SOURCES)
	rm -rf $(CUDA_VENV)/build $(CUDA_VENV)/wheels
	printf '[build]\nbuild_base=%s\n' $(abspath $(CUDA_VENV))/build > $(CUDA_VENV)/build.cfg
	DIST_EXTRA_CONFIG=$(abspath $(CUDA_VENV))/build.cfg SAT_KERNELS_CUDA=1 CUDA_HOME="$(CUDA_HOME)" \
	  TORCH_CUDA_ARCH_LIST="$(CUDA_ARCHS)" $(CUDA_VENV)/bin/pip wheel --quiet --disable-pip-version-check \
	  --no-build-isolation --no-deps --wheel-dir $(CUDA_VENV)/wheels .
	touch $@

$(CUDA_VENV)/installed: $(CUDA_VENV)/wheel
	$(CUDA_VENV)/bin/$(PIP_INSTALL) --force-reinstall --no-deps $(CUDA_VENV)/wheels/*.whl
	$(CUDA_VENV)/bin/$(PIP_INSTALL) "$$(echo $(CUDA_VENV)/wheels/*.whl)[vision,dev]"
	touch $@

$(OLDEST_VENV)/torch:
	$(PYTHON) -m venv --clear $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/$(PIP_INSTALL) $(OLDEST_TORCH)
	touch $@

$(OLDEST_VENV)/installed: $(OLDEST_VENV)/torch $(CUDA_VENV)/wheel
	$(OLDEST_VENV)/bin/$(PIP_INSTALL) --force-reinstall --no-deps $(CUDA_VENV)/wheels/*.whl
	$(OLDEST_VENV)/bin/$(PIP_INSTALL) "$$(echo $(CUDA_VENV)/wheels/*.whl)[dev]"
	touch $@

# Of which release `torch==2.15.0` or `torch` is; with the extension's file, what .ci/which_build.py is told.
release = $(or $(word 2,$(subst ==, ,$(1))),any)
build_of = .ci/which_build.py --within $(1) --built $(call release,$(2)) --runs $(call release,$(3))
# What may depend on the release. Instruction sets do not; their tests run most of the others again.
OPERATOR_TESTS := tests/ops --ignore tests/ops/test_instruction_sets.py
# Those, with the package in folder $(2), which comes first, in environment $(1).
test_there = PYTHONPATH=$(abspath $(2)) $(call pytest,$(1)) $(OPERATOR_TESTS)
ELSEWHERE := $(CUDA_VENV)/elsewhere

test-cuda-build: $(VENV)/installed $(CUDA_VENV)/installed $(OLDEST_VENV)/installed
	@echo "--- the CUDA build under $(CUDA_TORCH)"
	$(CUDA_VENV)/bin/sat-kernels info
	$(CUDA_VENV)/bin/python $(call build_of,$(CUDA_VENV),$(CUDA_TORCH),$(CUDA_TORCH)) --cuda-archs $(subst ;, ,$(CUDA_ARCHS))
	$(CUDA_VENV)/bin/python -c "import timm, torchvision"  # else their tests would be skipped
	$(call pytest,$(CUDA_VENV)) tests/ops tests/nn tests/attacks tests/test_functional.py tests/test_testing.py
	@echo "--- the same wheel under $(OLDEST_TORCH)"
	$(OLDEST_VENV)/bin/python $(call build_of,$(OLDEST_VENV),$(CUDA_TORCH),$(OLDEST_TORCH)) --cuda-archs $(subst ;, ,$(CUDA_ARCHS))
	$(call pytest,$(OLDEST_VENV)) $(OPERATOR_TESTS)
	@echo "--- its files under $(TORCH)"
	rm -rf $(ELSEWHERE)
	$(CUDA_VENV)/bin/$(PIP_INSTALL) --no-deps --target $(ELSEWHERE)/cuda $(CUDA_VENV)/wheels/*.whl
	PYTHONPATH=$(abspath $(ELSEWHERE))/cuda $(BIN)/python $(call build_of,$(ELSEWHERE)/cuda,$(CUDA_TORCH),$(TORCH))
	$(call test_there,$(VENV),$(ELSEWHERE)/cuda)
	@echo "--- the build under $(TORCH) under $(CUDA_TORCH)"
	mkdir -p $(ELSEWHERE)/cpu
	cp -r sat_kernels $(ELSEWHERE)/cpu
	PYTHONPATH=$(abspath $(ELSEWHERE))/cpu $(CUDA_VENV)/bin/python $(call build_of,$(ELSEWHERE)/cpu,$(TORCH),$(CUDA_TORCH))
	$(call test_there,$(CUDA_VENV),$(ELSEWHERE)/cpu)

clean:
	rm -rf $(VENV) $(VENV).wanted $(CUDA_VENV) $(OLDEST_VENV) build dist *.egg-info sat_kernels/*.so
