# Two commands do everything on a fresh machine with Python 3.11+ and make: `make run` and `make test`.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test check check-lint check-format check-imports check-migrations check-deploy check-types clean requirements

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is Python 3.11 or newer.
PYTHON ?= $(firstword $(foreach one,python3 python3.13 python3.12 python3.11 python3.14,$(shell \
	$(one) -c 'import sys; sys.version_info >= (3, 11) and print("$(one)")' 2>/dev/null)))

help:
	@echo "make run    starts agentops on http://127.0.0.1:8000 (PORT=9000 make run for another port)"
	@echo "make test   runs the whole suite (make test ARGS='-k inbox' for a part of it, '-n 0' in one process)"
	@echo "make check  lint, format, types, import contracts, migrations, production settings"
	@echo "make clean  removes the virtual environment and caches; the data in .local stays"

run: $(VENV)/.ready
	@$(BIN)/python manage.py up

# Four processes for two processors: much of the suite waits for processes to start, die and be replaced.
test: $(VENV)/.ready
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

# A production environment as far as settings and checks can see; `check` opens no connection.
PRODUCTION_LIKE = AGENTOPS_ENV=production ALLOWED_HOSTS=agentops.example CSRF_TRUSTED_ORIGINS=https://agentops.example \
	DATABASE_URL=postgresql://agentops:unused@database.example/agentops REDIS_URL=redis://redis.example:6379/0 \
	CARD_PROCESSOR_URL=https://cards.example BANK_DATABASE_URL=postgresql://desk:unused@bank.example/bank \
	SECRET_KEY="$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(60))')"

# `make -k check` goes on after the first judge that objects.
check: check-lint check-format check-imports check-migrations check-deploy check-types

check-lint: $(VENV)/.ready
	$(BIN)/python -m ruff check .

check-format: $(VENV)/.ready
	$(BIN)/python -m ruff format --check .

check-imports: $(VENV)/.ready
	PYTHONPATH=. $(BIN)/lint-imports

check-migrations: $(VENV)/.ready
	$(BIN)/python manage.py makemigrations --check --dry-run

check-deploy: $(VENV)/.ready
	@echo "manage.py check --deploy, with production settings"
	@$(PRODUCTION_LIKE) $(BIN)/python manage.py check --deploy --fail-level WARNING

check-types: $(VENV)/.ready
	@echo "mypy ."
	@$(PRODUCTION_LIKE) $(BIN)/python -m mypy .

clean:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m agentops.services stop; fi
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@echo "The data in .local stays; 'rm -r .local' removes it, with everything that was done here."

# For maintainers, with uv installed: pins of everything with hashes, for Python 3.11 and newer on Linux and macOS.
COMPILE = uv pip compile --universal --python-version 3.11 --generate-hashes --only-binary :all: --no-emit-index-url \
	--no-annotate --custom-compile-command "make requirements" --quiet
requirements:
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt

# uv where it is there (seconds), else pip (half a minute). The stamp is written only when all is installed.
# The pins are complete, so nothing is resolved (--no-deps); Python compiles what it imports when it does (--no-compile).
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes
$(VENV)/.ready: requirements-dev.txt
	@if [ -z "$(PYTHON)" ]; then echo "agentops needs Python 3.11 or newer; python3 is older or missing. Install it and" \
		"run make again, or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@echo "Installing what agentops needs into $(VENV) (once; half a minute) ..."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@{ command -v uv >/dev/null && uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt; } || \
		$(PIP_INSTALL) -r requirements-dev.txt || \
		{ echo "The download or installation failed; the lines above say why. Check the network and run make again:" \
		"what was done is kept." >&2; exit 1; }
	@touch $@
