# Every target installs what it needs, once. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON := .venv/bin/python
export PYTHONUNBUFFERED := 1
# Compiled test modules are kept: rewriting their assertions anew takes a third of the time that collecting takes.
unexport PYTHONDONTWRITEBYTECODE
# One OpenMP thread: with other load on the machine, two of them collapse on the engine's CPU kernels.
export OMP_NUM_THREADS ?= 1

# The parts of make check that failed, a line each.
FAILED := .venv/failed-parts

# Targets beside one another.
BESIDE = $(MAKE) --no-print-directory --jobs

.DEFAULT_GOAL := help
.PHONY: help install run test test-engine test-processes test-e2e check lint format types unit serve cluster-up cluster-down images sbom docs proto crd chart reference dashboard flags hardware lock bench picture release clean

help: ## What there is
	@grep -hE '^[a-z0-9%-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

install:
	@tests/tools/bootstrap.sh

run: install ## From nothing to a streamed answer through the ingress: cluster, images, operator, two replicas
	@$(PYTHON) -m tests.tools.run

# What starts engines is beside what starts other processes: each keeps about one core busy. The node has both cores for itself.
test: check ## All tests: the fast tier, the real engine, a real API server, and the whole node end to end
	@$(PYTHON) -m tests.cluster packages
	@failed=0; $(BESIDE) --keep-going test-engine test-processes || failed=1; $(BESIDE) test-e2e || failed=1; exit $$failed

test-engine: install ## The tests that start the real engine
	@$(PYTHON) -m pytest tests --durations=10 -m "engine" | sed -u "s/^/[engine] /"

test-processes: install ## The tests that start a real API server, a database or other processes
	@$(PYTHON) -m pytest tests --durations=10 -m "controlplane or database or process or node" | sed -u "s/^/[processes] /"

test-e2e: install ## The tests of the whole node, end to end
	@$(PYTHON) -m pytest tests --durations=15 -m "e2e"

check: install ## Lint, types, import contracts, unit and contract tests, in about a minute
	@rm -f $(FAILED); $(BESIDE) --keep-going lint types unit || { printf '\nmake check failed in: %s. The lines above that begin with [lint] or [types], or the tests after "short test summary", say why;\nmake lint, make types and make unit run one part alone.\n' "$$(paste -sd ' ' $(FAILED) 2>/dev/null)"; exit 1; }

lint: install ## Style, formatting and import contracts alone
	@{ $(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && .venv/bin/lint-imports; } | sed -u "s/^/[lint] /" || { echo lint >> $(FAILED); exit 1; }

format: install ## Formats the code and mends what the linter can mend
	@$(PYTHON) -m ruff check --fix-only . && $(PYTHON) -m ruff format .

types: install ## Type checks alone
	@$(PYTHON) -m mypy operator scheduler_sidecar engine_image tests | sed -u "s/^/[types] /" || { echo types >> $(FAILED); exit 1; }

unit: install ## The fast tests alone; TESTS=tests/operator/test_spec.py: those of a file or folder
	@$(PYTHON) -m pytest $(or $(TESTS),tests) -q -m "not engine and not controlplane and not e2e and not database and not process and not node" || { [ $$? -ne 5 ] || echo "there is no fast test in $(TESTS); .venv/bin/python -m pytest $(TESTS) runs all of them"; echo unit >> $(FAILED); exit 1; }

serve: install ## Engine and sidecar on this machine without Kubernetes; OpenAI API on localhost (PORT=8000 MODEL=..., or DEVICE=h100-qwen3-32b: emulated)
	@$(PYTHON) -m tests.tools.serve

cluster-up: install ## A real Kubernetes cluster on this machine (built once, then cached)
	@$(PYTHON) -m tests.cluster up

cluster-down: install ## Stops it and leaves nothing behind
	@$(PYTHON) -m tests.cluster down

images: install ## Builds the images; IMAGE_REGISTRY=host/name tags and pushes them
	@$(PYTHON) -m tests.cluster.image_build

sbom: install ## Writes what each image is made of to dist/sbom/ (CycloneDX); builds the images first
	@$(PYTHON) -m tests.tools.sbom

docs: install ## Builds the documentation site into dist/docs; a broken link, a missing anchor or a page without a place in the navigation fails
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict
	@echo "the site is in dist/docs: open dist/docs/index.html, or serve it: python3 -m http.server --directory dist/docs 8080"

proto: install ## Generates the contract's code from its .proto files
	@$(PYTHON) -m tests.tools.proto

crd: install ## Generates the CRD and its reference page from the operator's Spec
	@$(PYTHON) -m alise_operator.crd
	@$(PYTHON) -m tests.tools.reference

chart: install ## Generates the Helm chart from the manifests
	@$(PYTHON) -m tests.tools.chart

release: install ## Makes a release in dist/release: VERSION=0.1.0 IMAGE_REGISTRY=host/name RELEASE_URL=https://… (IMAGES=0: without the images' bills; PUSH=1: pushes the images)
	@$(PYTHON) -m tests.tools.release

reference: install ## Generates the reference pages of docs/ from the code
	@$(PYTHON) -m tests.tools.reference

dashboard: install ## Writes Grafana's dashboard (manifests/monitoring/dashboard.json) from tests/tools/dashboard.py
	@$(PYTHON) -m tests.tools.dashboard

flags: install ## Generates the operator's table of the flags of vllm serve from the installed vLLM
	@$(PYTHON) -m tests.tools.flags

hardware: install ## Fits the simulator's hardware profiles to NVIDIA's measured tables
	@$(PYTHON) -m tests.tools.hardware

lock: install ## Writes the locks of every role and the base images' digests; UPGRADE=1 takes newer versions
	@$(PYTHON) -m tests.tools.lock

bench: install ## Every benchmark (DATASET= SEEDS= QUICK=1); results in bench-results/
	@$(PYTHON) -m tests.bench

bench-%: install ## One benchmark: bench-autoscale (the autoscaler beside a HorizontalPodAutoscaler, simulated), bench-clients (load generators of other projects), bench-engine, bench-hostile (one client against the others), bench-house (how the repository is kept), bench-operator, bench-picker (the endpoint picker beside Envoy's own balancing), bench-policies, bench-predictor, bench-replay (the simulator against published runs), bench-serving (DEVICE= emulates a GPU), bench-soak (ten minutes of random plans), bench-fuzz (ten minutes per target, 10,000 specs), bench-proof (the report of the gain)
	@$(PYTHON) -m tests.bench $*

picture: install ## Draws README's picture from the rows of make bench-gain or bench-proof
	@$(PYTHON) -m tests.bench.proof_picture

# Not with .venv, whose torch and vLLM are built for CPUs.
bench-gpu: ## What only a GPU can show, with the Python that sees it (GPU_PYTHON=python3): first without vLLM, then with it where it is installed
	@$${GPU_PYTHON:-python3} -m tests.bench gpu

clean: ## Removes what the tools left in this folder; $ALISE_CACHE stays
	@rm -rf bench-results dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
