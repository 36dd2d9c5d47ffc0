# Every target makes what it needs; `make run` and `make test` are all a newcomer has to know.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SERVICES := stt,nlu,generator,tts,gateway,cpu

.DEFAULT_GOAL := help
.PHONY: help setup trainer dev run models check test test-all test-compose bench quality docs dashboards-preview alert-test up clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.setup ## the environment with all services, without torch
trainer: $(VENV)/.trainer ## torch and what the recipes need, on top of it
dev: $(VENV)/.dev ## what check and test need, on top of both

$(VENV)/.setup: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[$(SERVICES)]"
	@touch $@

# torch first: its CPU build where an index of pip's has it, since PyPI's brings gigabytes of CUDA.
$(VENV)/.trainer: $(VENV)/.setup
	$(PIP) torch==2.13.0+cpu || $(PIP) torch==2.13.0
	$(PIP) --editable ".[$(SERVICES),trainer]"
	@touch $@

$(VENV)/.dev: $(VENV)/.trainer
	$(PIP) --editable ".[$(SERVICES),trainer,dev]"
	@touch $@

run: setup ## everything in one process on http://127.0.0.1:8080
	@exec $(BIN)/python -m services

models: trainer ## make the bundled model versions again (an hour; reads the data sets)
	$(BIN)/python -m trainer.recipes

check: dev ## format, lint, types, fast tests of the shared library
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m govor.domains check domains/*/
	$(BIN)/pytest -q tests/test_imports.py tests/core -m "not slow"

test: dev ## all tests but the slow ones (chaos: make test-all; containers: make test-compose)
	$(BIN)/pytest -m "not slow and not docker and not gpu"

test-all: dev ## the slow ones too
	$(BIN)/pytest -m "not docker and not gpu"

test-compose: dev ## the real stack: up from nothing, used, broken part by part, down and up
	$(BIN)/pytest tests/deploy tests/monitoring -m "docker"

bench: dev ## speed: ratios against the bare engines, in one run
	$(BIN)/python -m bench speed

quality: dev ## accuracy against the bars
	$(BIN)/python -m bench quality

docs: dev ## write what is generated: the settings page, the OpenAPI document, rules, dashboards
	$(BIN)/python -m services.docs
	$(BIN)/python -m monitoring

dashboards-preview: dev ## the panels of the running stack, plotted into docs/dashboards
	GOVOR_KEY=$$(docker compose exec -T gateway cat /run/secrets/admin.key) \
	$(BIN)/python -m monitoring preview http://127.0.0.1:$${GOVOR_PORT:-8080}/prometheus docs/dashboards

alert-test: ## a test alert, by way of the running stack, to those who are told of alerts
	docker compose exec -T alertmanager amtool --alertmanager.url=http://127.0.0.1:9093 alert add \
	  alertname=AlertTest severity=page --annotation='summary="a test, nothing is wrong"' \
	  --annotation=runbook=docs/runbooks/README.md --annotation='command="make alert-test"'

up: ## the stack of containers, on http://127.0.0.1:8080
	docker compose up --detach --wait


clean: ## forget the environment; var/ stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
