PYTHON ?= python3
PYTHON_OLDEST ?= python3.10
VENV ?= .venv
BIN = $(VENV)/bin
# Small tensors: one thread is faster than two.
export OMP_NUM_THREADS ?= 1
# Python compiles what is imported, once; pip would compile all of torch.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-oldest test-adapters lint format docs benchmark gpu clean

demo: $(VENV)/.ready
	$(BIN)/diffsampler fit --config examples/demo.yaml

# Two processes of one thread each. Neighbours share what they have searched, so each starts with one half of the files.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=20

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

# Python 3.10 and the oldest versions that pyproject.toml promises. On x86 pip brings torch 2.6 with gigabytes of CUDA.
test-oldest: $(VENV)-oldest/.ready
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist worksteal --durations=20

# With the programs of the extras `molecules`, `pymc`, `numpyro`, `pyro`, `stan` and `posterior`, and the pages that use
# them. Stan's own tests are skipped where BridgeStan has not fetched its sources.
test-adapters: $(VENV)-adapters/.ready
	$(VENV)-adapters/bin/python -m pytest -m "adapters and not slow" --durations=20

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs-ready
	$(BIN)/sphinx-build -W --keep-going -j auto docs build/docs

benchmark: $(VENV)/.ready
	$(BIN)/python -m examples.benchmarks.step_time --targets funnel --repeats 10 --threads 1

# On a CUDA card, under nine minutes; goes on where it was cut off.
gpu: $(VENV)/.ready
	$(BIN)/python -m examples.benchmarks.gpu

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable ".[test]" --constraint constraints.txt
	touch $@

# Apart from the rest: who tests or trains needs no Sphinx.
$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --no-compile --editable ".[docs]" --constraint constraints.txt
	touch $@

$(VENV)-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON_OLDEST) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --no-compile --editable ".[test]" --constraint constraints-oldest.txt
	touch $@

$(VENV)-adapters/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-adapters
	$(VENV)-adapters/bin/pip install --quiet --no-compile --constraint constraints.txt \
		--editable ".[test,molecules,posterior,pymc,numpyro,pyro,stan]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-adapters build dist *.egg-info .pytest_cache .ruff_cache
