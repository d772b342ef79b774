# Every target sets up what it needs. Another interpreter or torch: make test PYTHON=python3.12 TORCH=torch==2.15.0
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: FORCE help demo test bench gpu-check lint install clean

help:
	@echo "make demo       train ReLU and smooth networks adversarially on real digits; table and plot in $(DEMO)"
	@echo "make test       the test suite"
	@echo "make bench      benchmarks against PyTorch, with ratios"
	@echo "make gpu-check  tests and benchmarks that need a CUDA device"
	@echo "make lint       ruff"

demo: $(VENV)/installed
	$(BIN)/sat-kernels compare --output $(DEMO)

test: $(VENV)/installed
	$(BIN)/pytest

bench: $(VENV)/installed
	$(BIN)/sat-kernels bench

gpu-check: $(VENV)/installed
	$(BIN)/sat-kernels info
	$(BIN)/pytest -m gpu

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/installed

# Rewritten only when it changes, so that another interpreter or torch makes another environment.
$(VENV).wanted: FORCE
	@echo "$(PYTHON) $(TORCH)" | cmp -s - $@ || echo "$(PYTHON) $(TORCH)" > $@

$(VENV)/torch: $(VENV).wanted
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) "setuptools>=77" "pybind11>=2.12" ninja
	touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml setup.py $(shell find csrc -type f)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[train,dev]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV).wanted build dist *.egg-info sat_kernels/*.so
