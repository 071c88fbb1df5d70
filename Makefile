# Everything a person runs in this repository; `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := $(VENV)/.demo-installed
# Two at once: tests on clusters wait more than they compute. Each file is in one of them.
WORKERS ?= 2
UV := $(shell command -v uv)
export CUDA_VISIBLE_DEVICES ?=

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/\1\t\2/' | expand -t 18

setup: $(STAMP)  ## Make .venv with the locked versions and this checkout

$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef UV
	VIRTUAL_ENV=$(VENV) uv pip install --no-config --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --editable .
else
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
endif
	@touch $(STAMP) $(DEMO)

# No TensorFlow; `make setup` adds the rest. Bytecode is made of what is imported only.
$(DEMO): requirements/demo.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef UV
	VIRTUAL_ENV=$(VENV) uv pip install --no-config --quiet --require-hashes -r requirements/demo.txt
	VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --editable .
else
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
endif
	@touch $(DEMO)

demo: $(DEMO)  ## Retrain on handwritten digits, twice, here: no cluster, no download (2 minutes)
	$(BIN)/python tools/demo.py

demo-flowers: $(DEMO)  ## The same on your own images: IMAGES=folder WEIGHTS=file-or-folder
	$(BIN)/python tools/demo.py --images "$(IMAGES)" --weights "$(WEIGHTS)"

demo-cluster: $(STAMP)  ## A cluster on this machine, the chart, a RetrainJob to its end (Linux, root)
	$(BIN)/python tools/demo_cluster.py

check: $(STAMP) check-generated  ## Format, lint, types, import contracts, generated files up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

GENERATORS := crd dashboards reference chart templates

check-generated: $(STAMP)  ## Whether the generated files are what their generators write
	for each in $(GENERATORS); do $(BIN)/python tools/$$each.py --check || exit; done

format: $(STAMP)  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(STAMP)  ## Write the generated files anew
	for each in $(GENERATORS); do $(BIN)/python tools/$$each.py || exit; done

docs: $(STAMP)  ## Build the documentation into site/, links checked
	$(BIN)/mkdocs build --strict --quiet

tools: $(STAMP)  ## Install and build what tests need beyond Python (first: 20 minutes on 2 cores)
	$(BIN)/python -m tests.cluster.devcluster tools

test: tools  ## Every test, a real cluster included (Linux and root)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

test-fast: $(STAMP)  ## The tests that take seconds; they need Python alone
	$(BIN)/pytest -m "not slow and not cluster"

test-fresh:  ## make demo and test-fast in a fresh Debian with Python alone (Linux, root; SHARE=folder)
	$(PYTHON) tools/fresh_machine.py $(if $(SHARE),--share $(SHARE))

bench: $(STAMP)  ## Ratios against retrain.py's way, Keras and the bare loop
	for bench in tests/bench/*.py; do case $$bench in */operator_rates.py|*/apply_to_complete.py|*/start.py) ;; *) $(BIN)/python $$bench || exit;; esac; done

faults: $(STAMP)  ## Each fault with its time to recover, each crash point of each life (Linux, root, Go; 40 minutes)
	$(BIN)/python -m tests.faults

fuzz: $(STAMP)  ## Changed files against each parser of what comes from outside (EXAMPLES=20000 of each)
	RETRAINER_FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/pytest tests/fuzz

bench-start: $(STAMP)  ## Where the time of a run goes, cold and warm (BEFORE=checkout compares)
	$(BIN)/python tests/bench/start.py $(if $(BEFORE),--before $(BEFORE))

bench-operator: $(STAMP)  ## The operator against a real API server
	$(BIN)/python tests/bench/operator_rates.py
	$(BIN)/python tests/bench/apply_to_complete.py

cluster-up: $(STAMP)  ## Start the development cluster (Linux, root)
	$(BIN)/python -m tests.cluster.devcluster up --size node

cluster-down: $(STAMP)  ## End it and leave nothing behind
	$(BIN)/python -m tests.cluster.devcluster down

cluster-status: $(STAMP)  ## What of it runs
	$(BIN)/python -m tests.cluster.devcluster status

sbom: $(STAMP)  ## Lists of parts (CycloneDX) of the container images, from the locks, into dist/
	mkdir -p dist
	for lock in $(wildcard requirements/operator.txt requirements/trainer*.txt); do \
	  $(BIN)/cyclonedx-py requirements $$lock --output-reproducible \
	    --output-file dist/$$(basename $$lock .txt).cdx.json || exit; done

release: sbom  ## The wheel, the packed chart and the lists of parts, into dist/ (RELEASING.md)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	helm=$$($(BIN)/python -m tests.cluster.devcluster binaries helm | cut -f2) && \
	  $$helm package charts/retrainer --destination dist

lock:  ## Lock the versions anew (needs uv)
	@compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" "$$@"; }; \
	compile pyproject.toml --all-extras -o requirements/dev.txt && \
	compile requirements/trainer.in -c requirements/dev.txt -o requirements/trainer.txt && \
	compile requirements/trainer-tensorflow.in -c requirements/dev.txt -o requirements/trainer-tensorflow.txt && \
	compile requirements/mediapipe.in -c requirements/dev.txt -o requirements/mediapipe.txt && \
	compile requirements/trainer-gpu.in -c requirements/dev.txt -o requirements/trainer-gpu.txt && \
	compile pyproject.toml requirements/demo.in --extra trainer -c requirements/dev.txt -o requirements/demo.txt && \
	compile requirements/operator.in -c requirements/dev.txt -o requirements/operator.txt

clean:  ## Remove what the demo, the benchmarks and the tools wrote
	rm -rf demo bench-results site dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.PHONY: help setup demo demo-flowers demo-cluster docs check check-generated format generate sbom release tools test test-fast \
        test-fresh bench bench-start faults fuzz bench-operator cluster-up cluster-down cluster-status lock clean
