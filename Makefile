# semroute: `make` lists the commands. Everything sets itself up on first use.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTO_VENV := .venv-proto
PROTO_READY := $(PROTO_VENV)/.ready
PROTO := $(wildcard proto/semroute/v1/*.proto)
STUBS := clients/python

# The generator is old enough that other teams can install the client beside what they have, and
# has an environment of its own, because the server runs on newer libraries.
PROTO_TOOLS := grpcio-tools==1.74.0 grpcio==1.74.0 protobuf==6.31.1 mypy-protobuf==3.7.0 \
	types-protobuf==6.32.1.20251210 setuptools==80.9.0

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-servers check format proto reference wheel bench clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## install everything into .venv

demo: $(READY) ## start a server, route a few queries, stream one answer, stop
	@$(BIN)/semroute demo

serve: $(READY) ## serve on 127.0.0.1:50051 (PROFILE=name for another profile)
	@$(BIN)/semroute serve $(if $(PROFILE),--profile $(PROFILE))

test: $(READY) ## run the whole suite
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-servers: $(READY) ## test against servers that are not ours, each in an environment of its own
	@$(BIN)/pytest tests/servers --timeout 2000

check: $(READY) $(PROTO_READY) ## format, lint, types, import rules, contract, stubs up to date
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests benchmarks
	@$(BIN)/lint-imports
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/semroute check --profiles profiles --utterances utterances
	@$(MAKE) --no-print-directory proto
	@git diff --exit-code --stat -- $(STUBS) || \
		{ echo "the stubs are not those of proto/: commit what make proto made"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- $(STUBS))" || \
		{ echo "make proto made files that are not committed"; exit 1; }

format: $(READY) ## format the code and the contract
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/buf format --write

proto: $(PROTO_READY) ## regenerate the stubs from proto/
	@PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" PYTHONWARNINGS=ignore \
		$(PROTO_VENV)/bin/python -m grpc_tools.protoc -I proto \
		--python_out=$(STUBS) --pyi_out=$(STUBS) \
		--grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(PROTO)
	@rm -f $(STUBS)/semroute/v1/error_reason_pb2_grpc.py*

reference: $(READY) ## regenerate the reference of profiles and the schema for editors
	@for what in markdown:docs/profile-reference.md json-schema:profiles/profile.schema.json; do \
		$(BIN)/semroute profile reference --format $${what%%:*} > $(VENV)/reference; \
		mv $(VENV)/reference $${what#*:}; \
	done

wheel: $(READY) ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . | tail -1

BENCHMARKS := accuracy engines decide stream faults index robustness others

bench: $(READY) ## print what this machine measures, write JSON to benchmarks/results/
	@for name in $(BENCHMARKS); do \
		echo "== benchmarks/$$name.py =="; $(BIN)/python benchmarks/$$name.py; echo; \
	done

clean: ## remove the environments and everything built
	@rm -rf $(VENV) $(PROTO_VENV) .venv-others .venv-servers-* dist build benchmarks/results clients/node/node_modules

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (some minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt \
		--editable '.[server,dev]' > $(VENV)/setup.log 2>&1 & pid=$$!; \
	while kill -0 $$pid 2> /dev/null; do \
		[ -t 1 ] && printf '\r  %s packages found ' \
			"$$(grep -c '^Collecting' $(VENV)/setup.log || true)"; sleep 1; \
	done; wait $$pid || { tail -20 $(VENV)/setup.log; exit 1; }
	@[ -t 1 ] && echo || true
	@touch $@
	@echo "ready"

$(PROTO_READY): Makefile
	@test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/pip install --quiet --disable-pip-version-check $(PROTO_TOOLS) 2>&1 | \
		grep -v WARNING || true
	@touch $@
