# Each target sets up what it needs by itself: a virtual environment in .venv, and system packages when run as root.
#   make demo    the node, a PACS, synthetic studies, and a table of what came back
#   make test    the tests
#   make check   ruff, mypy, the import rules
#   make viewer  the demo with OHIF beside it (needs npm to fetch it)
#   make bench   the figures in benchmarks/ that need no data; it names the others
# PYTHON and PIP_FLAGS may be set, as: make demo PYTHON=/usr/bin/python3.12

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
BIN := .venv/bin
OHIF_VERSION := 3.13.2
OHIF_FOLDER := .cache/ohif-$(OHIF_VERSION)
OHIF := $(OHIF_FOLDER)/package/dist
OIDC_VERSION := 9.13.3
OIDC := .cache/oidc-provider-$(OIDC_VERSION)
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.PHONY: demo viewer test check bench train setup setup-dev system clean
.DEFAULT_GOAL := demo

demo: .venv/ready system
	@$(BIN)/wetread demo

viewer: .venv/ready system $(OHIF)/index.html
	@$(BIN)/wetread demo --ohif $(OHIF)

$(OHIF)/index.html:
	@deploy/setup/ohif.sh $(OHIF_VERSION) $(OHIF_FOLDER)

test: .venv/ready-dev
	@deploy/setup/system.sh tests
	@[ -e $(OHIF)/index.html ] || deploy/setup/ohif.sh $(OHIF_VERSION) $(OHIF_FOLDER) || echo "Without OHIF its tests are skipped."
	@[ -e $(OIDC)/node_modules/oidc-provider ] || deploy/setup/oidc-provider.sh $(OIDC_VERSION) $(OIDC) || echo "Without an identity provider its tests are skipped."
	@# Threads that wait by spinning cost a test a factor of 20 on a busy machine.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

check: .venv/ready-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/ready-dev system
	@$(BIN)/python -m benchmarks

setup: .venv/ready system
setup-dev: .venv/ready-dev system

.venv/bin/python:
	@deploy/setup/python.sh "$(PYTHON)"

.venv/ready: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing wetread and what it runs on into .venv (a few minutes the first time) ..."
	@$(PIP) -e ".[worker]"
	@touch $@

.venv/ready-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing wetread and what its tests need into .venv (a few minutes the first time) ..."
	@$(PIP) -e ".[dev]"
	@touch $@ .venv/ready

system:
	@deploy/setup/system.sh

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
