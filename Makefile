# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
DASHBOARD ?= 1
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
SOURCES = $(shell git ls-files 'trafficcast/*.py' 'pipelines/*.py' 'dashboard/*.py')
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: demo test coverage live fuzz torture lint docs clean

demo: $(VENV)/installed
	$(BIN)/trafficcast demo --port $(PORT) $(if $(filter 0,$(DASHBOARD)),--no-dashboard)

test: $(VENV)/installed-test
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

coverage: $(VENV)/installed-test
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report=term:skip-covered

live: $(VENV)/installed-test
	LIVE_HOUR=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest tests/dashboard/whole/test_live_hour.py

fuzz: $(VENV)/installed-test
	FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -s tests/whole/test_fuzz.py -k neither

torture: $(VENV)/installed-test
	TORTURE=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -s tests/whole/test_torture.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/numpydoc lint $(SOURCES)
	$(BIN)/pydoclint --quiet trafficcast pipelines dashboard

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y python3-venv && $(PYTHON) -m venv $(VENV); \
		else echo "python3-venv is missing: apt-get install python3-venv"; exit 1; fi; }

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV); this takes some minutes the first time."
	$(INSTALL) torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) --editable '.[test]'
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; \
	fi || true
	@command -v chromium >/dev/null || echo "chromium is not installed: the browser tests will be skipped"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
