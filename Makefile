# pip installs everything into .venv. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tools for dependencies have many of their own, so they are kept apart.
AUDIT_VENV := .venv-audit
AUDIT_TOOLS := cyclonedx-bom==7.5.0 pip-audit==2.10.1 uv==0.13.9
PIN = $(AUDIT_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.12 --no-python-downloads \
	--generate-hashes --no-emit-package dgx-music --no-emit-package dgx-music-client \
	--custom-compile-command 'make requirements'
PACKAGES := service_runtime storage_service export_service generation_service gateway dgx_music
WRITTEN := $(PACKAGES) migrations tests benchmarks docs
PROTOS := $(shell find protos -name '*.proto')
# Without compiling: Python compiles what is imported, which is little of what is installed.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
# The commit that `buf breaking` compares the contracts with.
BASE ?= HEAD
# Processes that tests run in; each starts a Postgres of its own. Two leave a quarter of two cores idle.
JOBS ?= 3
PYTEST := python -m pytest --numprocesses $(JOBS) --dist loadfile
# What takes the longest: whole deployments.
DEPLOYMENT_TESTS := $(wildcard tests/faults/test_69_* tests/faults/test_7[5-8]_*) tests/soak/test_hosts.py
# What `make test-soak` and `make test-hosts` draw their faults from, and how many jobs and faults they have.
SEED ?= 1
SOAK_JOBS ?= 500
SOAK_FAULTS ?= 100
SOAK_DATABASE ?= sqlite
HOST_JOBS ?= 1000
HOST_FAULTS ?= 150
# The data directory of `make demo` and `make run`.
DATA_DIR ?= $(CURDIR)/data
PROMPT ?= lo-fi hip hop with a warm piano at 84 BPM in A minor

export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help

##@ Use

.PHONY: demo
demo: install ## Set everything up and generate a finished WAV from a prompt
	@dgx-music --data-dir "$(DATA_DIR)" generate "$(PROMPT)" --duration 16 --seed 7

.PHONY: studio
studio: $(VENV)/.studio ## Open the Studio, with the music of `demo`, in the browser: 127.0.0.1:8090, until Ctrl-C
	@dgx-music --data-dir "$(DATA_DIR)" studio

.PHONY: run
run: install ## Serve: the gateway on 127.0.0.1:50050, until Ctrl-C
	@dgx-music --data-dir "$(DATA_DIR)" serve

.PHONY: install
install: $(VENV)/.installed ## Install DGX Music into .venv

.PHONY: setup-musicgen
setup-musicgen: install ## Install what MusicGen needs into .venv: 1 GB with a torch for the CPU, more with CUDA
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[musicgen]'

.PHONY: setup-audiocraft
setup-audiocraft: setup-musicgen ## Install audiocraft, the reference for MusicGen, into .venv: another 600 MB
	@$(PIP) --requirement deploy/audiocraft/requirements.txt
	@$(PIP) --no-deps audiocraft==1.3.0 torchaudio==2.11.0 ./deploy/audiocraft/xformers
# It is linked to CUDA's libraries, which a torch for the CPU lacks. Without this file torchaudio can be imported.
	@rm -f $(VENV)/lib/python*/site-packages/torchaudio/lib/_torchaudio.abi3.so

.PHONY: db-init db-migrate db-reset
db-init db-migrate db-reset: install
db-init: ## Create the database
	@dgx-music --data-dir "$(DATA_DIR)" db init
db-migrate: ## Bring the database to the current schema
	@dgx-music --data-dir "$(DATA_DIR)" db migrate
db-reset: ## Delete all rows (asks first)
	@dgx-music --data-dir "$(DATA_DIR)" db reset

##@ Test

.PHONY: test test-unit test-integration test-browser test-slow test-faults test-deploy test-soak test-hosts test-coverage
test test-unit test-integration test-browser test-slow test-faults test-deploy test-soak test-hosts test-coverage: develop
test: ## Set everything up and run the tests
	@$(PYTEST)
test-unit: ## Run the tests that start no server
	@$(PYTEST) tests/unit
test-integration: ## Run the tests that start servers and commands
	@$(PYTEST) tests/integration
test-browser: ## Run the tests of the Studio's page in Chromium, which must be installed
	@DGX_MUSIC_TEST_BROWSER_REQUIRED=1 $(PYTEST) -m '' tests/browser
test-slow: ## Run the tests marked slow, which `test` leaves out, but not those of test-faults
	@$(PYTEST) -m slow tests/unit tests/integration tests/conformance
test-faults: ## Run all tests of faults, also the slow ones, which `test` leaves out, but not those of test-deploy: 8 minutes
	@$(PYTEST) -m '' $(addprefix --ignore=,$(DEPLOYMENT_TESTS)) tests/faults tests/stateful tests/fuzz tests/soak tests/releases
test-deploy: ## Run the ways to deploy as plain processes: Ray, Kubernetes, Slurm, Compose, images
	@$(PYTEST) -m '' $(DEPLOYMENT_TESTS)
test-hosts: ## Run 1,000 jobs on many servers, Postgres and S3, of which any may be killed: SEED=1 HOST_JOBS=1000 HOST_FAULTS=150
	@python -m tests.soak --hosts --seed $(SEED) --jobs $(HOST_JOBS) --faults $(HOST_FAULTS)
test-soak: ## Run jobs through random faults, 10 minutes: SEED=1 SOAK_JOBS=500 SOAK_FAULTS=100 SOAK_DATABASE=sqlite
	@python -m tests.soak --seed $(SEED) --jobs $(SOAK_JOBS) --faults $(SOAK_FAULTS) --database $(SOAK_DATABASE)
test-coverage: ## Run the tests and show the lines of the packages that they do not cover
	@rm -f .coverage .coverage.*
	@$(PYTEST) --cov --cov-report=term-missing

##@ Dependencies

.PHONY: requirements audit sbom
requirements audit sbom: $(AUDIT_VENV)/.installed
requirements: ## Pin what the images contain, with hashes, in deploy/requirements
	@$(PIN) --extra otel --extra postgres --extra s3 --extra tls pyproject.toml --output-file deploy/requirements/services.txt
	@$(PIN) --extra diffusion --extra midi --extra musicgen --extra otel --extra tls pyproject.toml --output-file deploy/requirements/generation.txt
	@$(PIN) deploy/requirements/build.in --output-file deploy/requirements/build.txt
audit: ## Look for known vulnerabilities in what the images contain (asks PyPI)
	@for name in build services generation; do \
		$(AUDIT_VENV)/bin/pip-audit --strict --disable-pip --require-hashes --requirement deploy/requirements/$$name.txt || exit 1; done
sbom: ## Write the bills of materials of the images, build/sbom-*.json (CycloneDX)
	@mkdir -p build
	@for name in services generation; do $(AUDIT_VENV)/bin/python -W ignore -m cyclonedx_py requirements \
		--pyproject pyproject.toml --output-file build/sbom-$$name.json deploy/requirements/$$name.txt || exit 1; done

##@ Develop

.PHONY: develop
develop: $(VENV)/.developed ## Install what tests and checks need into .venv

.PHONY: proto
proto: develop ## Build the gRPC stubs from protos/
	@python dgx_music/hatch_build.py

.PHONY: docs
docs: develop ## Write docs/configuration.md and docs/files.md from the code
	@PYTHONPATH=. python docs/configuration.py
	@PYTHONPATH=. python docs/files.py

.PHONY: sketch-renders
sketch-renders: develop ## Write the renders and pictures of docs/sketch again
	@PYTHONPATH=. python docs/sketch_renders.py

.PHONY: screenshots
screenshots: develop ## Take the pictures of the Studio in docs/images, in Chromium
	@DGX_MUSIC_TEST_BROWSER_REQUIRED=1 DGX_MUSIC_SCREENSHOTS=docs/images python -m pytest -q -m '' tests/browser/test_screenshots.py

.PHONY: format lint types quality verify
format lint types quality verify: develop
format: ## Format code and contracts, and fix what can be fixed automatically
	@ruff check --quiet --fix $(wildcard $(WRITTEN))
	@ruff format --quiet $(wildcard $(WRITTEN))
	@buf format --write protos
lint: ## Check format and style of code, contracts, Dockerfile and compose files
	@ruff format --check $(wildcard $(WRITTEN))
	@ruff check $(wildcard $(WRITTEN))
	@buf format --diff --exit-code protos
	@buf lint
	@check-jsonschema --builtin-schema vendor.compose-spec compose.yaml $(wildcard deploy/compose*.yaml)
	@hadolint deploy/Dockerfile
types: ## Check types
	@mypy
quality: lint types ## Check style and types
verify: quality ## Check everything: style, types, contracts against BASE, tests and their coverage
	@buf breaking --against '.git#ref=$(BASE)'
	@$(MAKE) --no-print-directory test-coverage

# The version that `make release-fixture` writes for.
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: release-fixture
release-fixture: develop ## Write what a user of this version has, for tests of later ones: VERSION=0.2.0
	@python -m tests.releases.write_release $(VERSION)

.PHONY: bench
bench: install ## Measure the main job as a user sees it
	@python benchmarks/main_job.py

.PHONY: bench-engine
bench-engine: setup-musicgen ## Measure the native engine, against audiocraft where it is installed: up to 10 minutes
	@python -m benchmarks.engine

.PHONY: bench-gpu
bench-gpu: develop ## Measure the engine on this machine's GPU: 5 minutes
	@PYTHON=python benchmarks/gpu.sh

.PHONY: bench-storage
bench-storage: develop ## Measure storage at 1,000 to 1,000,000 generations, on SQLite and Postgres: up to 10 minutes
	@python -m benchmarks.storage

.PHONY: bench-search
bench-search: develop ## Measure the search in 1,000,000 prompts, on SQLite and Postgres: 5 minutes
	@python -m benchmarks.search

.PHONY: bench-gateway
bench-gateway: develop ## Measure the gateway: calls, streams, an overload minute, 200 listeners: 6 minutes
	@python -m benchmarks.gateway

.PHONY: bench-fleet
bench-fleet: develop ## Measure what operations cost on Postgres and S3, and simulate a thousand GPUs with that: 15 minutes
	@python -m benchmarks.fleet_costs --json build/fleet-costs.json
	@python -m benchmarks.fleet_small_run
	@python -m benchmarks.fleet --costs build/fleet-costs.json

.PHONY: bench-endurance
bench-endurance: develop ## Measure whether a long life costs memory, threads or files: an hour of music, 7 minutes
	@python -m benchmarks.endurance

.PHONY: bench-export
bench-export: develop ## Measure export against pyloudnorm, libebur128 and ffmpeg, and analysis against librosa: 5 minutes
	@python -m benchmarks.export
	@python -m benchmarks.analysis

.PHONY: clean
clean: ## Remove .venv, the stubs and caches (not the data)
	@rm -rf $(VENV) $(AUDIT_VENV) $(patsubst protos/%,%,$(wildcard protos/dgx_music/*)) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'DGX Music needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(AUDIT_VENV)/.installed: Makefile
	@$(PYTHON) -m venv $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(AUDIT_TOOLS)
	@touch $@

$(VENV)/.installed: pyproject.toml dgx_music/pyproject.toml dgx_music/hatch_build.py $(PROTOS) | $(VENV)/bin/python
	@echo 'Installing into $(VENV) ...' >&2
	@$(PIP) --editable ./dgx_music --editable .
	@touch $@

$(VENV)/.studio: $(VENV)/.installed
	@$(PIP) --editable ./dgx_music --editable '.[studio,midi]'
	@touch $@

$(VENV)/.developed: pyproject.toml dgx_music/pyproject.toml dgx_music/hatch_build.py $(PROTOS) | $(VENV)/bin/python
	@echo 'Installing into $(VENV) ...' >&2
	@$(PIP) --editable ./dgx_music --editable '.[dev]'
	@touch $(VENV)/.installed $@
