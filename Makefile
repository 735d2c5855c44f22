# Baltoro: `make help` lists what can be done here. Everything runs in ./.venv, made by `make setup`.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lock-installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## create .venv and install the locked dependencies (redone when the lock changes)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Baltoro needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make setup PYTHON=python3.12")'
	@test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION))
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

.PHONY: lock
lock: ## resolve pyproject.toml anew into requirements.lock (hashes, every supported platform)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras \
	  --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

RECIPE ?= demo
PAPERS ?=
NAME ?= $(if $(PAPERS),papers)
WORKSPACE ?= $(CURDIR)/workspace

.PHONY: run
run: setup ## papers to registered model: the demo, or PAPERS=FOLDER|s3://… (NAME=papers WORKSPACE=./workspace)
	$(BIN)/baltoro run "$(RECIPE)" storage.root="$(WORKSPACE)" $(if $(NAME),name="$(NAME)") $(if $(PAPERS),corpus.sources.0.uri="$(PAPERS)" corpus.sources.0.metadata=null)

.PHONY: mlflow
mlflow: setup ## open the tracking page of `make run` on http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri "sqlite:///$(WORKSPACE)/mlflow.db" --host 127.0.0.1 --port 5000

.PHONY: test
test: setup ## every test but the slow ones: unit, distributed, parity, jobs, architecture
# Processes of their own: a Ray or an MLflow that one suite started leaves logging and state behind.
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not jobs and not distributed"
	$(BIN)/pytest -m "not slow and distributed"
	$(BIN)/pytest -m "not slow and jobs" tests/unit
	$(BIN)/pytest -m "not slow" tests/jobs

.PHONY: test-slow
test-slow: setup ## the slow ones: kill and resume, S3 end to end, `ray job submit`, the wheel
	$(BIN)/pytest -m "slow and not jobs"
	$(BIN)/pytest -m "slow and jobs"

RUNS ?= 50
COMMANDS ?= 3

.PHONY: test-faults
test-faults: setup ## kill training with SIGKILL at random: RUNS=50 runs of its ranks, COMMANDS=3 of `baltoro pretrain`
	BALTORO_FAULT_RUNS=$(RUNS) BALTORO_FAULT_COMMANDS=$(COMMANDS) $(BIN)/pytest -rP tests/faults

.PHONY: parity
parity: setup ## one loss curve under ddp, fsdp2, hybrid, ZeRO 1 to 3, on one, two and four ranks, as a table
	$(BIN)/python bench/training/parity.py

.PHONY: test-unit
test-unit: setup ## only the tests without several processes or Ray
	$(BIN)/pytest -m "not distributed and not jobs and not slow"

.PHONY: check
check: setup ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: setup ## rewrite the source in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench-readers
bench-readers: setup ## documents/s and MB/s of each reader against the bare parser
	$(BIN)/python bench/readers/bench_readers.py

ONLY ?=
DATATROVE := build/datatrove

.PHONY: bench-corpus
bench-corpus: setup $(DATATROVE)/.lock-installed ## speed, memory and scaling of the corpus, beside datatrove (ONLY=chain,whole,scale,workers)
	$(BIN)/python bench/corpus/bench_corpus.py $(if $(ONLY),--only $(ONLY))

$(DATATROVE)/.lock-installed: bench/corpus/datatrove-requirements.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DATATROVE)
	VIRTUAL_ENV=$(DATATROVE) $(BIN)/uv pip install --quiet --require-hashes -r bench/corpus/datatrove-requirements.lock
	@touch $@

.PHONY: lock-datatrove
lock-datatrove: ## pin what bench-corpus compares with, on the versions of requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --constraints requirements.lock \
	  --custom-compile-command "make lock-datatrove" --output-file bench/corpus/datatrove-requirements.lock bench/corpus/datatrove-requirements.in

.PHONY: bench-training
bench-training: setup ## the step, data wait, checkpoints, restart and loss memory, beside Hugging Face Trainer (ONLY=overhead,trainer,data,checkpoint,restart,command,loss)
	$(BIN)/python bench/training/bench_training.py $(if $(ONLY),--only $(ONLY))

.PHONY: bench-longcontext
bench-longcontext: setup ## shifted sparse attention's cost, memory of a 7B by method, making examples (ONLY=attention,memory,check,instructions)
	$(BIN)/python bench/longcontext/bench_longcontext.py $(if $(ONLY),--only $(ONLY))

DEVICE ?= cuda

.PHONY: gpu-check
gpu-check: setup ## ten minutes on one GPU: kernels, NF4, optimizers, compile, resume, speed; a report for a bug (DEVICE=cpu ONLY=attention,nf4)
	$(BIN)/baltoro gpu-check --device $(DEVICE) $(if $(ONLY),--only $(ONLY))

.PHONY: clean
clean: ## remove the workspace of `make run` and every cache, not .venv
	rm -rf "$(WORKSPACE)" .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
