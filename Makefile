# One command for each thing. `make` alone lists them.
# The first that starts: a version manager's stand-in is on PATH and may not. The last is tried anyway: it says what lacks.
PYTHON3 ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; done; echo $$p)
HOME_DIR := $(or $(PLUMBLINE_HOME),.plumbline)
BIN := $(HOME_DIR)/venvs/pipeline/bin
UV := $(HOME_DIR)/tools/bin/uv
.DEFAULT_GOAL := help
.PHONY: help images compose secrets rotate backup-compose restore-compose up-compose down-compose logs setup binaries manifest-tools tofu-tools tofu cluster-binaries demo demo-canary demo-images demo-events replay test test-fast test-long test-cluster test-node test-compose kill drill faults bench study docs dashboards generate lint format up airflow down clean lock

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install everything under .plumbline/ (nothing when it is there already)
	@$(PYTHON3) -I toolchain/bootstrap.py

binaries: ## Prometheus and Alertmanager, without root where there is apt (nothing when they are there)
	@$(PYTHON3) -I toolchain/binaries.py

manifest-tools: setup ## kustomize, kubeconform and its schemas, kube-score, checkov: what manifests are held against (3 minutes, once)
	@$(BIN)/python -m toolchain.manifest_tools

tofu-tools: setup ## OpenTofu, the provider of kustomizations, the clouds' schemas (7 minutes on two busy cores, once)
	@$(BIN)/python -m toolchain.tofu_tools

cluster-binaries: setup ## A Kubernetes control plane, built with Go (nothing when it is there; 900 CPU-seconds, 400 MB)
	@$(BIN)/python -m toolchain.cluster_binaries

demo: setup ## Real orders in, live churn predictions out, through every component
	@$(BIN)/plumb demo

demo-canary: setup binaries ## After the demo: a good model rolled out step by step, a bad one stopped; PRODUCT=images
	@$(BIN)/plumb demo-canary $(if $(PRODUCT),--product $(PRODUCT)) $(if $(BAD),--bad $(BAD))

demo-images: setup ## Pictures in, live answers out: the image product through Airflow
	@$(BIN)/plumb demo-images $(if $(SOURCE),--source $(SOURCE))

demo-events: setup ## Orders as events through Kafka to Redis within seconds; then a kill, and the proof of equality
	@$(BIN)/plumb demo-events

replay: setup ## DAYS=n more days after the demo, each through Airflow
	@$(BIN)/plumb replay --days $(or $(DAYS),1)

test: setup binaries manifest-tools ## All tests but those of `make kill` and `make test-long`
	@$(BIN)/python -m pytest -q -m "not kill and not long and not cluster and not compose and not tofu and not node" -n 2 --dist loadfile --no-loadscope-reorder --durations=25

test-long: setup binaries ## Whole paths once more: the tutorials word for word, a lake in S3, a stream that froze (25 minutes)
	@$(BIN)/python -m pytest -q -m long -n 2 --dist loadfile --durations=10

test-fast: setup binaries manifest-tools ## The tests that take seconds
	@$(BIN)/python -m pytest -q -m "not slow and not servers and not kill and not long and not cluster and not compose and not tofu and not node" -n 2

test-cluster: setup binaries manifest-tools cluster-binaries tofu-tools ## Canaries on a real control plane: promoted, aborted, disturbed; by commits through Argo CD; the tables go to docs/cluster.md and docs/argo-cd.md
	@$(BIN)/python -m pytest -q -s -m cluster tests/cluster tests/terraform
	@mkdir -p docs && cp .plumbline/report/cluster.md .plumbline/report/argo-cd.md docs/

test-compose: setup ## The compose stack: a day, a canary, kills, a restart; the table goes to docs/compose-tried.md (45 minutes, LOCAL images)
	@$(BIN)/python -m pytest -q -s -m compose tests/compose
	@mkdir -p docs && cp .plumbline/report/compose.md docs/compose-tried.md

test-node: setup binaries manifest-tools cluster-binaries ## From Git to real pods on a real node: the platform, a day, canaries, what breaks; the table goes to docs/node.md (root, a container engine; 40 minutes)
	@$(BIN)/python -m toolchain.images predictor pipeline airflow postgres-server postgres redis s3 kafka pause coredns storage-initializer
	@$(BIN)/python -m pytest -q -s -m node tests/node
	@mkdir -p docs/images && cp .plumbline/report/node.md docs/node.md && cp .plumbline/report/from-push-to-champion.svg docs/images/

kill: setup ## Kill every stage in mid-work, run it again, compare; the table goes to docs/kill-and-resume.md
	@$(BIN)/python -m pytest -q -s tests/e2e/test_kill_and_resume.py tests/e2e/test_images_kill_and_resume.py tests/e2e/test_events_kill_and_resume.py
	@mkdir -p docs && cp .plumbline/report/kill-and-resume.md docs/kill-and-resume.md && cp .plumbline/report/kill-events.md docs/kill-events.md

drill: setup ## Put every fault into a real run and see who stops it; the tables go to docs/drills.md, docs/drills-images.md (50 minutes)
	@$(BIN)/plumb drill && $(BIN)/plumb drill --page

faults: setup ## The tests of every small fault that once went wrong; the list goes to docs/faults.md (10 minutes)
	@$(BIN)/python -m drills.cases

bench: setup ## Benchmarks against named peers, into docs/benchmarks.md (20 minutes)
	@$(BIN)/python -m bench $(ONLY)

study: setup ## How often the guardrails abort a good canary and how soon a bad one, into docs/guardrails.md (10 minutes)
	@$(BIN)/python -m bench.guardrails $(ONLY)

generate: setup ## Write alert rules, Alertmanager's configuration and dashboards anew from contracts and code
	@$(BIN)/python -m observability.grafana
	@$(BIN)/python -m observability
	@$(BIN)/python -m serving.rollout.stack_files

images: setup ## The container images; IMAGES="predictor pipeline", BASE=python:3.11-slim-bookworm@sha256:…, LOCAL=1, REGISTRY=registry.example.com/plumbline (10 minutes)
	@$(BIN)/python -m toolchain.images $(IMAGES) $(if $(BASE),--base $(BASE)) $(if $(LOCAL),--local) $(if $(REGISTRY),--push $(REGISTRY))

secrets: setup ## The compose stack's passwords into .env, once
	@$(BIN)/python -m toolchain.compose secrets

rotate: setup ## New passwords and a new signing key on the running stack, without a failed request (4 minutes)
	@$(BIN)/python -m toolchain.compose rotate $(if $(LOCAL),--local)

up-compose: setup secrets ## The platform in containers; PROFILES="watch events", LOCAL=1 where no image can be pulled
	@$(BIN)/python -m toolchain.compose up $(if $(LOCAL),--local) $(foreach profile,$(PROFILES),--profile $(profile))

backup-compose: setup ## What the stack keeps, into a folder: TO=backups/monday
	@$(BIN)/python -m toolchain.compose backup $(if $(LOCAL),--local) $(if $(TO),--folder "$(TO)")

restore-compose: setup secrets ## A backup into an empty stack, and everything up: FROM=backups/monday
	@$(BIN)/python -m toolchain.compose restore $(if $(LOCAL),--local) $(if $(FROM),--folder "$(FROM)")

down-compose: ## Stop it; what is in Postgres and in the S3 server stays. VOLUMES=1 removes that too
	@$(BIN)/python -m toolchain.compose down $(if $(LOCAL),--local) $(if $(VOLUMES),--volumes)

compose: ## Any command of Compose's on the stack: DO="exec rollout plumb rollout start challenger", LOCAL=1
	@$(BIN)/python -m toolchain.compose run $(if $(LOCAL),--local) -- $(DO)

logs: ## Follow the containers' logs; SERVICE=spark
	@$(BIN)/python -m toolchain.compose logs $(if $(LOCAL),--local) -- $(SERVICE)

lint: setup manifest-tools ## ruff, mypy, import rules between rooms, contracts, generated files, manifests, Dockerfiles, sqlfluff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PATH=$(BIN):$$PATH $(BIN)/lint-imports --no-logo --cache-dir $(HOME_DIR)/cache/import-linter
	@$(BIN)/plumb contract check
	@$(HOME_DIR)/venvs/contracts/bin/python -I toolchain/second_reader.py contracts/*.odcs.yaml
	@$(BIN)/python -m observability --check
	@$(BIN)/python -m observability.grafana --check
	@$(BIN)/python -m serving.rollout.stack_files --check
	@$(BIN)/python -m toolchain.manifests
	@cd dbt && $(abspath $(BIN))/sqlfluff lint --disable-progress-bar -q models

tofu: setup manifest-tools tofu-tools ## terraform/: format, validate and test each module and environment, checkov; then tests/terraform
	@$(BIN)/python -m toolchain.tofu $(ONLY)
	@$(if $(ONLY),,$(BIN)/python -m pytest -q -m "tofu and not cluster" tests/terraform)

docs: setup ## The README's flow and the screenshots, from this home's demo
	@$(BIN)/python docs/build.py

dashboards: setup binaries ## The boards before, during and after a broken day, into docs/images (10 minutes)
	@$(BIN)/python docs/dashboards.py

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .

up: setup ## Keep it running: Redis, the predictor, MLflow's pages, the exporter, Prometheus, Alertmanager
	@$(BIN)/plumb up

airflow: setup ## Airflow's pages and its scheduler, on loopback
	@$(BIN)/plumb airflow

down: ## Stop every process of this home
	@[ ! -x $(BIN)/plumb ] || $(BIN)/plumb down

clean: down ## Remove all state, but not the environments and downloads
	@cd $(HOME_DIR) 2>/dev/null && find . -mindepth 1 -maxdepth 1 ! -name cache ! -name venvs ! -name tools ! -name stamps -exec rm -rf {} + || true

LOCK := $(UV) --cache-dir $(HOME_DIR)/cache/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate
lock: setup ## Write requirements/ pipeline.txt, serving.txt, orchestration.txt, contracts.txt, dvc.txt, peers.txt, checkov.txt and dev.txt anew from pyproject.toml's groups
	$(LOCK) --group pipeline -o requirements/pipeline.txt pyproject.toml
	$(LOCK) -c requirements/pipeline.txt --excludes requirements/stages-excludes.txt --group stages -o requirements/stages.txt pyproject.toml
	$(LOCK) -c requirements/pipeline.txt --excludes requirements/serving-excludes.txt --group serving -o requirements/serving.txt pyproject.toml
	$(LOCK) --group orchestration -o requirements/orchestration.txt pyproject.toml
	$(LOCK) --group contracts -o requirements/contracts.txt pyproject.toml
	$(LOCK) --group dvc -o requirements/dvc.txt pyproject.toml
	$(LOCK) --group peers -o requirements/peers.txt pyproject.toml
	$(LOCK) --group checkov -o requirements/checkov.txt pyproject.toml
	$(LOCK) -c requirements/pipeline.txt --group dev -o requirements/dev.txt pyproject.toml
