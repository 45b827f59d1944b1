# The door to everything; `make help` lists the targets. Knows commands, holds no logic: that is in scripts/.

BIN := .venv/bin
FUZZ_SECONDS ?= 60
# Most tests wait most of the time; each makes its own namespaces, so they run side by side.
PYTEST_OPTIONS ?= -n 3 --dist worksteal
SET_UP := .venv/.set-up
COMPILED := .venv/.compiled
READY := $(SET_UP) $(COMPILED)
OPENVPN27 := build/openvpn27/tree
SHELL_SCRIPTS := .ci/run $(wildcard scripts/*.sh)

.DEFAULT_GOAL := help
.PHONY: help venv demo bench test test-openvpn27 lint sanitize fuzz proto clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(READY)  ## install what is missing (as root: Debian packages too) and make .venv

$(SET_UP): pyproject.toml constraints.txt hatch_build.py scripts/setup.sh scripts/generate_proto.py $(shell find proto -name '*.proto')
	scripts/setup.sh
	@touch $@

$(COMPILED): $(SET_UP) scripts/build_fastpath.py $(wildcard dataplane/fastpath/*.pyx dataplane/fastpath/*.pxd)
	$(BIN)/python scripts/build_fastpath.py
	@touch $@

demo: $(READY)  ## run three tunnels side by side and show who carries the packets (as root)
	$(BIN)/python -m demo.run

bench: $(READY)  ## measure every contender in turn: tables, bench/results.md, plot in bench/out (as root)
	$(BIN)/python -m bench.run

test: $(READY)  ## run all tests (as root)
	$(BIN)/pytest $(PYTEST_OPTIONS)

$(OPENVPN27):
	scripts/setup_openvpn27.sh

test-openvpn27: $(READY) $(OPENVPN27)  ## run the tests with OpenVPN 2.7, from a Debian unstable in build/ (as root)
	$(BIN)/pytest $(PYTEST_OPTIONS) tests/e2e/openvpn27

lint: $(READY)  ## check style, types, layers, the contract, spelling and shell scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(BIN):$$PATH" cython-lint dataplane/fastpath bench
	$(BIN)/buf lint
	$(BIN)/codespell --skip gen,dist,build,bench/out --ignore-words-list fro
	$(BIN)/shellcheck $(SHELL_SCRIPTS)

sanitize: $(READY)  ## run all tests on a build with AddressSanitizer and UBSan, in build/sanitize (as root)
	$(BIN)/python scripts/sanitize.py -m pytest $(PYTEST_OPTIONS)

fuzz: $(READY)  ## run every fuzz target for FUZZ_SECONDS (60) on the same build; crashing input goes to build/
	@for target in tests/fuzz/fuzz_*.py; do \
		echo "== $$target"; \
		$(BIN)/python scripts/sanitize.py $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(CURDIR)/build/ || exit 1; \
	done

proto: $(SET_UP)  ## generate gen/ from proto/ again
	$(BIN)/python scripts/generate_proto.py

clean:  ## remove all that was made here
	rm -rf .venv gen dist build bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f dataplane/fastpath/*.so
