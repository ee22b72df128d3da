.DEFAULT_GOAL := help
SHELL := /bin/bash
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PY := .venv/bin/python
# The locks hold no addresses: uv takes what the machine's own configuration names.
export UV_NO_PROGRESS := 1
export UV_LINK_MODE := copy

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(UV):
	python3 -m venv .tools && .tools/bin/pip install --quiet "uv>=0.9"

.venv/.installed: requirements/dev.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python 3.12 .venv
	$(UV) pip sync --quiet --require-hashes --python $(PY) requirements/dev.txt
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	touch $@

install: .venv/.installed ## Install everything into .venv

COMPILE := --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
SERVICES := trades candles ta features
lock: | $(UV) ## Compile the hash-pinned requirement files anew
	$(UV) pip compile $(COMPILE) --python-version 3.12 --group dev --all-extras pyproject.toml -o requirements/dev.txt
	for s in $(SERVICES) demo; do $(UV) pip compile $(COMPILE) --python-version 3.12 --extra $$s --constraint requirements/dev.txt pyproject.toml -o requirements/$$s.txt || exit 1; done
.PHONY: help install lock
