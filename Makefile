.DEFAULT_GOAL := help

# help: this list
help:
	@echo todo

.venv/.stamp: requirements/dev.txt requirements/uv.txt pyproject.toml scripts/env.sh
	@scripts/env.sh
	@touch $@

env: .venv/.stamp
.PHONY: help env
