# The door to everything; `make help` lists the targets. Knows commands, holds no logic: that is in scripts/.

BIN := .venv/bin
FUZZ_SECONDS ?= 60
SET_UP := .venv/.set-up
SHELL_SCRIPTS := .ci/run $(wildcard scripts/*.sh)

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint fuzz proto clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(SET_UP)  ## install what is missing (as root: Debian packages too) and make .venv

$(SET_UP): pyproject.toml constraints.txt hatch_build.py scripts/setup.sh scripts/generate_proto.py $(shell find proto -name '*.proto')
	scripts/setup.sh
	@touch $@

demo: $(SET_UP)  ## run three tunnels side by side and show who carries the packets (as root)
	$(BIN)/python -m demo.run

test: $(SET_UP)  ## run all tests (as root)
	$(BIN)/pytest

lint: $(SET_UP)  ## check style, types, layers, the contract, spelling and shell scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/codespell --skip gen,dist,bench/out --ignore-words-list fro
	$(BIN)/shellcheck $(SHELL_SCRIPTS)

fuzz: $(SET_UP)  ## run every fuzz target for FUZZ_SECONDS (60)
	@for target in tests/fuzz/fuzz_*.py; do \
		echo "== $$target"; \
		$(BIN)/python $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

proto: $(SET_UP)  ## generate gen/ from proto/ again
	$(BIN)/python scripts/generate_proto.py

clean:  ## remove all that was made here
	rm -rf .venv gen dist bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
