# Everything runs from the root of the clone. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help env up engines down test test-full faults cuda vllm-cuda grafana-check lint docs validate plan smoke status loadtest bench bench-fleet clean

# The inventory of up, validate, plan and smoke. The lab's hosts are made by `make up`; others exist already.
INVENTORY ?= inventories/lab
LAB_HOSTS ?= lab1
# What `make test` and `make test-full` run: lint, unit, gateway, lab, or names of molecule scenarios. Empty: everything.
ONLY ?=
# What `make loadtest` sends: so many clients at once, for so long.
USERS ?= 4
SECONDS ?= 60
# Compute capabilities of the GPUs that `make cuda` builds for.
CAPABILITIES ?= 8.9

export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

env: .venv/.stamp ## make the controller's environment in .venv

.venv/.stamp: requirements/dev.txt requirements/uv.txt pyproject.toml scripts/env.sh
	@scripts/env.sh
	@touch $@

up: env ## start the lab, apply site.yml, ask a question (INVENTORY=inventories/workstation: this machine instead)
	@set -e; started=$$(date +%s); \
	if [ "$(INVENTORY)" = inventories/lab ]; then \
		scripts/lab-packages.sh; \
		lab/tiny_gguf.py; \
		lab/lab up $(LAB_HOSTS); \
	fi; \
	ansible-playbook site.yml -i $(INVENTORY); \
	ansible-playbook playbooks/chat.yml -i $(INVENTORY); \
	echo "make up took $$(($$(date +%s) - started)) s"

engines: env ## every engine on three lab hosts, and an answer of each model (the first time: half an hour)
	@set -e; started=$$(date +%s); \
	scripts/lab-packages.sh; \
	lab/tiny_gguf.py; python lab/tiny_llama.py; python lab/ollama.py; \
	lab/lab up lab1 lab2 lab3; \
	ansible-playbook site.yml -i inventories/lab-engines; \
	ansible-playbook playbooks/chat.yml -i inventories/lab-engines -e model=local; \
	echo "make engines took $$(($$(date +%s) - started)) s"

down: ## take the lab away, with everything it made
	@lab/lab down

test: env ## run the tests, from lint to the whole site on two hosts (ONLY="lint unit redis": a part)
	@scripts/lab-packages.sh g++:g++ cmake:cmake ninja:ninja-build ccache:ccache redis-check-rdb:redis-tools "chromedriver:chromium-driver fonts-dejavu-core"
	@scripts/test.py $(FULL) $(ONLY)

test-full: env ## the same and all tests marked full, before an issue is closed (ONLY= as above)
	@$(MAKE) --no-print-directory test FULL=--full

faults: env ## break a lab host, and providers, on purpose, and print what a client saw (half an hour)
	@scripts/lab-packages.sh g++:g++ redis-check-rdb:redis-tools
	@scripts/test.py --full change
	@python tests/benchmarks/bench_faults.py

cuda: env ## build llama.cpp for CUDA as a whole on a lab host (20 minutes; CAPABILITIES="8.6 8.9")
	@scripts/lab-packages.sh
	@scripts/cuda.sh $(CAPABILITIES)

vllm-cuda: env ## install vLLM's build for CUDA on a lab host and import it (20 GB of disk)
	@scripts/lab-packages.sh
	@set -e; export MODELYARD_LAB=vllm-cuda; trap 'lab/lab down' EXIT; lab/lab up vllm; \
	ansible-playbook molecule/vllm/cuda.yml -i molecule/_shared/running.sh

grafana-check: env ## test the role with a real Grafana on a lab host (ARCHIVE=/path/to/grafana-11.6.0.linux-amd64.tar.gz)
	@[ -f "$(ARCHIVE)" ] || { echo "ARCHIVE has to name Grafana's archive for Linux, with its version in its name" >&2; exit 2; }
	@scripts/lab-packages.sh
	@GRAFANA_ARCHIVE="$(abspath $(ARCHIVE))" scripts/test.py grafana

lint: env ## ansible-lint, yamllint, ruff, mypy
	@scripts/test.py lint

docs: env ## write the catalogue's reference, the editors' schema and docs/mistakes.md anew
	@scripts/docs.py
	@python tests/plugins/mistakes.py

validate: env ## check the catalogue; contacts no host
	@ansible-playbook playbooks/validate.yml -i $(INVENTORY)

plan: env ## show what would run where, and what that would change
	@ansible-playbook playbooks/plan.yml -i $(INVENTORY)

smoke: env ## check everything that should run
	@ansible-playbook playbooks/smoke.yml -i $(INVENTORY)

status: env ## show how everything is, on one screen
	@ansible-playbook playbooks/status.yml -i $(INVENTORY)

loadtest: env ## load the lab's gateway and judge what it did (USERS=4 clients at once for SECONDS=60)
	@tests/load/loadtest.py --check --inventory "$(INVENTORY)" --users "$(USERS)" --seconds "$(SECONDS)"
	@$(MAKE) --no-print-directory $(if $(findstring lab-engines,$(INVENTORY)),engines,up INVENTORY=inventories/lab)
	@tests/load/loadtest.py --inventory "$(INVENTORY)" --users "$(USERS)" --seconds "$(SECONDS)"

bench: env ## measure the compiler, the gateway, its faults and a site with every role (20 minutes)
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends wrk >/dev/null; } || \
		{ echo "make bench needs wrk: apt-get install wrk" >&2; exit 1; }
	@scripts/lab-packages.sh redis-check-rdb:redis-tools
	@python tests/benchmarks/bench_compile.py
	@echo
	@python tests/benchmarks/bench_gateway.py
	@echo
	@python tests/benchmarks/bench_faults.py
	@echo
	@scripts/lab-packages.sh
	@lab/tiny_gguf.py; python lab/tiny_llama.py; python lab/ollama.py
	@set -e; export MODELYARD_LAB=bench; trap 'lab/lab down' EXIT; lab/lab up one two; python tests/benchmarks/bench_site.py

bench-fleet: env ## measure site.yml with up to 200 hosts, two of them real (half an hour; SIZES="2 100": these alone)
	@scripts/lab-packages.sh
	@lab/tiny_gguf.py
	@set -e; export MODELYARD_LAB=fleet; trap 'lab/lab down' EXIT; lab/lab up door first second; python tests/benchmarks/bench_fleet.py

clean: ## remove what make put into the clone (the cache in ~/.cache/modelyard stays)
	@rm -rf .venv .ansible .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
