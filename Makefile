# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= .demo/foveal-demo

.PHONY: demo test check bench docs setup clean kernels sanitize
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch scikit-build-core nanobind cmake ninja
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable . --group dev
	touch $@

demo: setup  ## Assemble the demo VLM, serve it, ask three questions about real pictures
	$(BIN)/python examples/demo.py --model $(DEMO_DIR)

test: setup  ## All tests that need no network beyond the package registry
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: setup  ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## The serving table of the README, on the demo VLM
	$(BIN)/python benchmarks/serving_table.py --model $(DEMO_DIR)

docs: setup  ## Regenerate the reference pages from code
	$(BIN)/python docs/generate.py

kernels: setup  ## Build what changed of the native kernels
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .

sanitize: setup  ## The kernel tests under the address and undefined-behaviour sanitizers
	PYTHON=$(abspath $(BIN)/python) benchmarks/kernels/sanitize.sh

clean:
	rm -rf $(VENV) .demo
