# Set-up is part of both targets, so either works first on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch's threads spin while they wait for each other; where anything else wants the cores, that makes small models
# five times slower.
export OMP_WAIT_POLICY := passive

.PHONY: demo check test lint docs endurance packages setup clean-setup

demo: $(VENV)/ready
	$(BIN)/hvpnet demo --out demo

# What one runs before a commit: two minutes on two cores, without Ray, servers and full-size models.
check: lint
	$(BIN)/pytest --numprocesses auto --dist loadfile -m "not heavy"

test: lint docs $(VENV)/tritonserver/ready
	$(BIN)/pytest --numprocesses auto --dist loadfile

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/site; links that lead nowhere and names that are not there are errors. Its MkDocs is release 1.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# What the tests do a little of, because it takes long: hostile requests to the service, kills of a bulk run.
endurance: $(VENV)/ready
	HVPNET_HOSTILE_BODIES=10000 HVPNET_KILLS=10 $(BIN)/pytest tests/runtime/serving/test_hostile.py tests/runtime/bulk/test_faults.py

# The wheel in a clean environment for each extra, which takes an hour and some 10 GB of downloads.
packages: $(VENV)/ready
	rm -rf build/packages
	$(BIN)/python -m build --outdir build/packages
	$(BIN)/python -m twine check --strict build/packages/*
	$(BIN)/python .ci/try_extras.py build/packages/*.whl

setup: $(VENV)/ready

# An editable installation knows the modules that were there when it was made.
clean-setup:
	rm -f $(VENV)/ready
	$(MAKE) setup

$(VENV)/ready: pyproject.toml CMakeLists.txt $(wildcard runtime/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --editable '.[cpu,train,export,bench,bulk,graph,serve,ray,docs,dev]'
	touch $@

# A Triton server for the tests. Its Python backend reads arrays of NumPy 1 only, which stands beside it.
$(VENV)/tritonserver/ready: | $(VENV)/ready
	$(BIN)/python -m pip install --upgrade --no-deps --only-binary :all: --target $(@D) 'nvidia-pytriton==0.7.0' 'numpy<2'
	touch $@
