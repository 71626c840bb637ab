# make quickstart   from nothing to a ranked Valid FLOPS
# make test         everything that can be tested here
# make check        lint, types, import rules, voice
# make horovod      Horovod, built for the installed torch; the wheel is kept
# make testbed-up   a real Slurm on this machine, as root; make testbed-down ends it

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# The stamp changes with what is to be installed, so that nothing is installed twice.
STAMP = $(VENV)/.installed-$(shell sha256sum pyproject.toml | cut -c1-16)
PRECISION ?= auto
JOBS ?= 2
RESULTS ?= results
PUBLISHED = $(wildcard workloads/*/published/*.csv)

.PHONY: install quickstart rank check test horovod bench testbed-up testbed-down clean

install: $(STAMP)

$(STAMP):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	rm -f $(VENV)/.installed-*
	touch $@

quickstart: $(STAMP)
	$(BIN)/hpcai500 data prepare image_classification --problem mini
	$(BIN)/hpcai500 data synthesize extreme_weather --problem mini
	$(BIN)/hpcai500 run image_classification --problem mini --seeds 0-2 --procs-per-node 2 --precision $(PRECISION) --output $(RESULTS)
	$(BIN)/hpcai500 run extreme_weather --problem mini --seeds 0-1 --procs-per-node 2 --output $(RESULTS)
	$(BIN)/hpcai500 rank $(RESULTS)
	$(BIN)/hpcai500 repeatability $(RESULTS)

rank: $(STAMP)
	$(BIN)/hpcai500 rank $(wildcard $(RESULTS)) $(PUBLISHED)
	$(BIN)/hpcai500 rank --output $(RESULTS)/ranking.html $(wildcard $(RESULTS)) $(PUBLISHED)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/voice.py hpcai500 workloads tools slurm benchmarks examples tests/integration tests/slurm

# Tests of one process run two at once; what starts ranks, or jobs, runs alone.
test: $(STAMP)
	$(BIN)/python -m pytest --durations=10 -n $(JOBS) -m "not busy" $(PYTEST_ARGS) || test $$? = 5
	$(BIN)/python -m pytest --durations=10 -m busy $(PYTEST_ARGS) || test $$? = 5 # none of them was asked for

horovod: $(STAMP)
	$(BIN)/python tools/build_horovod.py $(HOROVOD_ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/bench.py

testbed-up:
	slurm/testbed/install.sh
	$(PYTHON) slurm/testbed/testbed.py up

testbed-down:
	$(PYTHON) slurm/testbed/testbed.py down

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
