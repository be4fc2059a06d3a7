# make setup   virtual environment in .venv with everything in it (done once)
# make train   the same, then a training run with TRAIN_ARGS
# make test    the same, then the tests, one file per core at a time
# make bench   the same, then the benchmarks with BENCH_ARGS
# make lint    the same, then ruff and mypy
# make docs    the same, then the documentation as a site in build/site

PYTHON ?= python3
TRAIN_ARGS ?= --task split_facts --latent_steps 0 --fuser_gradient decision --stop_when_right 5 --report 200 \
	--out runs/split_facts
TEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs

.PHONY: setup train test bench lint docs clean

setup: $(STAMP)

train: $(STAMP)
	$(BIN)/gcache train $(TRAIN_ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(TEST_ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# A virtual environment whose pip does not answer (none yet, or half made) is made anew. The stamp
# comes last, so an installation that was cut off is taken up again.
$(STAMP): setup.cfg pyproject.toml constraints.txt requirements-embedded.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "gcache needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.11" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	$(BIN)/python -m pip install --no-deps -r requirements-embedded.txt
	@touch $@

# What makes the site is installed by who makes it.
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	@touch $@
