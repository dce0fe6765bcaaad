PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Small tensors: one thread is faster than two.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint format docs benchmark gpu clean

demo: $(VENV)/.ready
	$(BIN)/diffsampler fit --config examples/demo.yaml

# Two processes of one thread each.
test: lint
	$(BIN)/python -m pytest -n 2 --durations=20

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

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
	$(BIN)/pip install --quiet --editable ".[test]" --constraint constraints.txt
	touch $@

# Apart from the rest: who tests or trains needs no Sphinx.
$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --editable ".[docs]" --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
