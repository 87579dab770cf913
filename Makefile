# `make run` and `make test` set up what they need by themselves: Python 3.11 or newer is all they ask for.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3.14 python3))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.DEFAULT_GOAL := help
.PHONY: help setup run demo test faults check types others bench lock format openapi messages

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## the virtual environment, with every package as locked

$(STAMP): requirements-dev.txt
	@sh .ci/make-venv "$(PYTHON)" "$(VENV)"
	@touch $@

run: $(STAMP) ## everything in one go, with a demo that scrolls by (make run ARGS="--port 9000")
	@exec $(BIN)/python manage.py serve --demo $(ARGS)

demo: $(STAMP) ## a story that shows what webhooks do (make demo ARGS=order; ARGS=--help)
	@exec $(BIN)/python manage.py demo $(or $(ARGS),appointment)

test: $(STAMP) ## all tests, against real servers (make test ARGS="-k retry")
	@exec $(BIN)/python -m pytest -n auto $(ARGS)

faults: $(STAMP) ## every fault in its full size, which takes over an hour (make faults | grep '^|')
	@FAULT_FULL=1 exec $(BIN)/python -m pytest -s -n0 tests/faults $(ARGS)

check types others: export SECRET_KEY = checks-need-no-secret
check types others: export WEBHOOKS_ENCRYPTION_KEYS = c1:Y2hlY2tzIG5lZWQgbm8gc2VjcmV0IGFuZCBrZWVwIG4=
check: $(STAMP) ## what CI checks before the tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types others

types: # half of all that time, so beside the others
	$(BIN)/mypy .

others:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/djlint --check --lint --quiet templates
	@sh .ci/compare-openapi "$(BIN)/python"

openapi: export SECRET_KEY = checks-need-no-secret
openapi: export WEBHOOKS_ENCRYPTION_KEYS = c1:Y2hlY2tzIG5lZWQgbm8gc2VjcmV0IGFuZCBrZWVwIG4=
openapi: $(STAMP) ## the API as it is now, to docs/openapi.json
	$(BIN)/python manage.py spectacular --format openapi-json --validate --file docs/openapi.json

messages: $(STAMP) ## texts that people read, to locale/; says which are to be translated
	$(BIN)/python -m tests.support.messages

format: $(STAMP) ## settle the layout
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/djlint --reformat --quiet templates

bench: $(STAMP) ## how fast it is here (make bench ARGS="--endpoints 5000 --json")
	@exec $(BIN)/python manage.py bench $(ARGS)

lock: $(STAMP) ## newest allowed versions of all packages, with hashes
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate requirements-dev.in -o requirements-dev.txt
