# Needs only make and Python 3.11 or newer. `make run ARGS="--port 8010"` passes options on.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt
PINS := pyproject.toml constraints.txt

.PHONY: help run test torture torture-proof fuzz bench check
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

run: .venv/.run ## everything in this terminal, for development: tailrace dev $(ARGS)
	@exec $(BIN)/tailrace dev $(ARGS)

# Two files at a time: most of a test's time is spent waiting for processes. The slow files come first.
test: .venv/.dev .venv/.mongosh ## the whole test-suite: pytest $(ARGS)
	@exec $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

torture: .venv/.dev ## faults against three mongod: MINUTES=2 SEED=1
	@exec $(BIN)/python -m tests.faults.torture --minutes $(or $(MINUTES),2) --seed $(or $(SEED),1) $(ARGS)

torture-proof: .venv/.dev ## each planted bug turns a torture run red: ARGS="w1 no-fence" for some
	@exec $(BIN)/python -m tests.faults.proof --seed $(or $(SEED),1) $(ARGS)

fuzz: .venv/.dev ## bad and random input while others read: MINUTES=2 SEED=1
	@exec $(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),2) --seed $(or $(SEED),1) $(ARGS)

bench: .venv/.dev ## measure beside what people would use instead: ARGS="--only a,e --quick"
	@exec $(BIN)/python -m ops.bench $(ARGS)

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
	@$(INSTALL) -e '.[api,worker,embedded,dashboard]'
	@touch $@

.venv/.dev: .venv/.uv $(PINS)
	@echo "Installing …"
	@$(INSTALL) -e '.[api,worker,embedded,archive,motor,dashboard,bench,dev]'
	@touch $@ .venv/.run

# For the tests of README's queries, of ops/mongosh and of the compose file, which skip without them.
.venv/.mongosh: .venv/.uv Makefile
	@echo "Installing mongosh …"
	@command -v npm >/dev/null && npm install --prefix .venv/mongosh --silent --no-audit --no-fund mongosh@2 dclint@3 || \
	  echo "mongosh and dclint were not installed (they need npm): their tests will be skipped." >&2
	@touch $@
