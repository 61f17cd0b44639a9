# make quickstart   install, train in two stages, test, draw: minutes on two cores
# make test         ruff, mypy, pytest with run-time shape checks and doctests, documentation
# make docs         the documentation as a web site, in site/

export NO_MKDOCS_2_WARNING := 1

VENV := .venv
BIN := $(VENV)/bin
CONFIG := configs/quickstart.yaml
INPUTS := pyproject.toml constraints.txt

.PHONY: quickstart test docs clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed
	$(BIN)/geopix fit --config $(CONFIG)
	$(BIN)/geopix test --config $(CONFIG) --ckpt_path last

# One thread: the tests' tensors are so small that a second one only costs time.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy src
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
	$(BIN)/mkdocs build --strict

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict

clean:
	rm -rf site .pytest_cache .mypy_cache .ruff_cache

# The environment: made once, renewed when what it is made from changes. PYTHON=... chooses the interpreter.
$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,docs]"
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@found=; for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "geopix needs Python 3.11 or newer; none of python3.11 ... python3 is. Say which: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "making $(VENV) with $$found; installing takes some minutes and 7 GB"; $$found -m venv $(VENV)
