# Everything runs from a fresh clone with Python 3.11 or newer; .venv is made on first use.
PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test slow fuzz lint types lowest bench docs compiled interpreted wheel clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/stamp  ## the main job on the shipped traces: a table, and a Gantt chart in build/demo/
	$(BIN)/forksim run traces/asyncthink/*.txt traces/siblings/*.txt traces/recorded/*.jsonl \
		--gpu h100-qwen3-8b-database --capacity 13 --rows 20 --out build/demo
	$(BIN)/forksim score traces/judged.jsonl --capacity 4

test: .venv/stamp  ## all fast tests and doctests
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

slow: .venv/stamp  ## the slow tests
	$(BIN)/python -m pytest -n auto -m slow $(PYTEST_ARGS)

fuzz: .venv/stamp  ## hostile input at every door, FORKSIM_FUZZ_EXAMPLES=100000 of each kind unless you say otherwise
	FORKSIM_SOAK=$${FORKSIM_SOAK:-100} FORKSIM_FUZZ_EXAMPLES=$${FORKSIM_FUZZ_EXAMPLES:-100000} $(BIN)/python -m pytest -n auto -m slow tests/fuzz tests/doors/test_soak.py

lint: .venv/stamp  ## ruff, and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/stamp  ## mypy --strict
	$(BIN)/mypy

build/lowest/stamp: pyproject.toml tools/lowest.py
	rm -rf build/lowest
	$(PYTHON) -m venv build/lowest
	$(PYTHON) tools/lowest.py > build/lowest/constraints.txt
	build/lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint build/lowest/constraints.txt --editable '.[dev]'
	touch $@

lowest: build/lowest/stamp  ## the fast tests with the oldest accepted versions of all dependencies
	build/lowest/bin/python -m pytest -n auto $(PYTEST_ARGS)

bench: .venv/stamp  ## speed, one core, as ratios to a baseline of the same run
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

.venv/docs: .venv/stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: .venv/docs  ## the documentation site in build/docs/: open build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

compiled: .venv/stamp  ## compile the engine in place with mypyc (needs a C compiler): the same results, faster
	$(BIN)/python tools/compiled.py

interpreted:  ## take away what `make compiled` made
	$(PYTHON) tools/compiled.py --clean

wheel: .venv/stamp  ## build the wheel into build/dist/
	rm -rf build/dist
	$(BIN)/python -m build --outdir build/dist .

clean: interpreted  ## remove everything that the other targets made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
