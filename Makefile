# make train    set up .venv, then train and compare three systems on the demo data (runs/demo)
# make test     set up .venv, then lint, types and the quick tests; make lint stops before the tests
# make test-slow  the slow tests alone; make test-all runs lint, types and all tests
# make soak     set up .venv, then kill and resume training 200 times (about five minutes)
# make bench    set up .venv, then the benchmarks, on DATA=PATH beside generated data (about a quarter of an hour;
#               needs torch==2.13.0 in .venv, to compare with)
# make device-pack  download into build/device what `make device` needs beyond JAX and PyTorch, and copy DATA there
# make device   check and measure one accelerator in under eight minutes, without a network, by DEVICE_PYTHON, which has
#               JAX for the accelerator and PyTorch (docs/accelerators.md); the results are in OUT
# make docs     set up .venv, then build the documentation in build/site; a broken link or a missing docstring fails
# make lock     make requirements/lock-*.txt again from requirements.txt, for each Python, with the hash of every file
# make licences make docs/licences.md again from what is installed
# make clean    remove .venv and what tools leave behind; runs/ stays
#
# PYTHON=python3.12 chooses another Python (3.11 to 3.13) for a new .venv.

PYTHON ?= python3
DATA ?= demo
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := .venv/.ready
UNDER_WAY := .venv/.installing

DEVICE_PYTHON ?= python3
DEVICE_PYTHON_VERSION ?= 3.12
DEVICE_FLAGS ?=
OUT ?= build/device/results
GOLDEN ?= $(or $(SLMREC_GOLDEN),../shared/golden)
PACK := build/device
# Of the requirements, what a machine with JAX, Flax, Orbax, PyTorch and Matplotlib may lack, and what these need.
PACKED := jraph|tyro|docstring_parser|typeguard|tensorboardX

DOCS_READY := .venv/.docs-ready
UV := build/uv/bin
PYTEST := $(BIN)/pytest -q -n 2 --dist loadfile --durations 10

.PHONY: train lint test test-slow test-all soak bench device device-pack setup docs lock licences clean
.DELETE_ON_ERROR:

train: setup
	@$(BIN)/slmrec-jax compare --data demo --models popularity,lightgcn,slmrec --out runs/demo

lint: setup
	@echo "== ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "== mypy"
	@$(BIN)/mypy

test: lint
	@echo "== pytest"
	@$(PYTEST) -m "not slow"
	@echo "Slow tests are left out. Run them by make test-slow, or all by make test-all."

test-slow: setup
	@echo "== slow tests"
	@$(PYTEST) -m slow

test-all: lint
	@echo "== pytest, slow tests too"
	@$(PYTEST)

soak: setup
	@TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH=. $(BIN)/python tests/faults/soak.py --kills 200

bench: setup
	@$(BIN)/slmrec-jax bench --data $(DATA)

device-pack:
	@rm -rf $(PACK)/wheels $(PACK)/data $(PACK)/golden
	@mkdir -p $(PACK)/wheels
	@grep -E '^($(PACKED))==' requirements.txt > $(PACK)/requirements.txt
	@$(PYTHON) -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: \
		--python-version $(DEVICE_PYTHON_VERSION) --platform manylinux2014_x86_64 --dest $(PACK)/wheels \
		-r $(PACK)/requirements.txt
	@[ ! -d "$(DATA)" ] || { mkdir $(PACK)/data; cp -RL "$(DATA)" $(PACK)/data; chmod -R u+w $(PACK)/data; }
	@[ ! -d "$(GOLDEN)" ] || { mkdir $(PACK)/golden; cp -L "$(GOLDEN)"/slmrec_f*.npz $(PACK)/golden; }
	@du -sh $(PACK)

# Uses what the pack holds: its packages, its data unless DATA is given, its recorded values.
device:
	@rm -rf $(PACK)/site
	@$(DEVICE_PYTHON) -m pip --disable-pip-version-check install -q --no-index --no-deps --target $(PACK)/site \
		$(PACK)/wheels/*.whl
	@SLMREC_GOLDEN=$(abspath $(or $(wildcard $(PACK)/golden),$(GOLDEN))) PYTHONPATH=.:$(PACK)/site \
		$(DEVICE_PYTHON) benchmarks/device.py --out $(OUT) $(DEVICE_FLAGS) \
		--data $(if $(filter demo,$(DATA)),$(or $(wildcard $(PACK)/data/*),demo),$(DATA))

setup: $(READY)

# The stamp is made last, by renaming the mark of an unfinished install. An interrupted install, or a .venv of another
# Python than asked for, is cleared and installed again.
$(READY): requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
		echo "slmrec-jax needs Python 3.11, 3.12 or 3.13; $(PYTHON) is: $$($(PYTHON) -V 2>&1). Choose one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "== installing into .venv (once; takes some minutes)"
	@[ ! -e $(UNDER_WAY) ] && [ "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" ] \
		&& $(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@touch $(UNDER_WAY)
	@$(PIP) install -qq -r requirements.txt
	@$(PIP) install -qq --no-deps --editable .
	@mv $(UNDER_WAY) $@

# Into the same .venv, because the package makes the page of commands. --quiet would hide warnings from --strict.
docs: $(DOCS_READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

$(DOCS_READY): $(READY) requirements/docs.txt
	@echo "== installing what builds the documentation into .venv (once)"
	@$(PIP) install -qq -r requirements/docs.txt
	@touch $@

# Only from the public index, whatever pip is configured to use.
lock:
	@$(PYTHON) -m venv --clear build/uv
	@$(UV)/python -m pip --disable-pip-version-check install -qq uv==0.13.9
	@set -e; mkdir -p requirements; for version in 3.11 3.12 3.13; do \
		$(UV)/uv pip compile --quiet --no-config --generate-hashes --python-version $$version --no-annotate \
			--custom-compile-command "make lock" requirements.txt --output-file requirements/lock-$$version.txt; \
	done

licences: setup
	@mkdir -p build
	@$(BIN)/python requirements/licences.py > build/licences.md
	@mv build/licences.md docs/licences.md

clean:
	@rm -rf .venv build dist slmrec_jax.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
