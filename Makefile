# Everything runs in .venv, made once and again when pyproject.toml or constraints.txt change.
# Paths are relative to this folder, because make cannot handle a name with a space in it.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/installed
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo recipes test check format train measure bench pins clean help
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/'

demo: $(STAMP)  ## monitor the embedded rendered sample and compare with what was rendered
	$(BIN)/overwatt demo

recipes: $(STAMP)  ## run the recipes of the README, on what `make demo` left
	$(BIN)/python tests/readme_recipes.py

test: $(STAMP)  ## run the whole test suite
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

check: $(STAMP)  ## lint, formatting, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

train: $(STAMP)  ## train the detector and the lettering reader from scratch
	$(BIN)/overwatt train
	$(BIN)/overwatt train-reader

# All that is known of the weights in use, kept beside them: broken off, it goes on with the scenes that it has.
# For example: make measure BACKGROUNDS=../images/empty LABELLED=../images/labelled LEAVE_OUT=roof03,roof17
MEASURING ?= measuring
measure: $(STAMP)  ## measure the weights in use against their targets; writes measured.json, reliability.png, MODEL_CARD.md
	$(BIN)/overwatt evaluate --workdir "$(MEASURING)" --keep models/weights/measured.json \
	  $(if $(BACKGROUNDS),--backgrounds "$(BACKGROUNDS)") $(if $(LEAVE_OUT),--leave-out "$(LEAVE_OUT)") \
	  $(if $(LABELLED),--labelled "$(LABELLED)") $(if $(SCENES),--scenes $(SCENES))
	$(BIN)/python -m models.training.model_card

# The peers have an environment of their own: their pins are not ours. Half an hour, and 12 GB of disk for the largest
# scene; BENCH="--only speed" for a part of it.
bench: $(STAMP)  ## measure against SAHI, DeepForest and TorchGeo on this machine: speed, memory, counts at seams
	@test -x .bench/peers/bin/python || $(PYTHON) -m venv .bench/peers
	$(BIN)/python -m uv pip install --quiet --python .bench/peers/bin/python --requirement tests/benchmark/requirements.txt
	$(BIN)/python tests/benchmark/run.py --peers "$(CURDIR)/.bench/peers/bin/python" $(BENCH)

# One list for every Python from 3.11 on and every system: what a machine does not need, a constraint does not install.
pins: $(STAMP)  ## resolve constraints.txt anew; run the tests before believing it
	$(BIN)/uv pip compile pyproject.toml --extra dev --upgrade --universal --fork-strategy fewest \
	  --no-annotate --no-header --quiet --output-file .venv/pins.txt
	sed 's/ *;.*//' .venv/pins.txt > constraints.txt

clean:  ## remove the environment and the tools' caches; the archive and fetched scenes stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Overwatt needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip; ensurepip.version()' 2>/dev/null || \
	  { echo 'This Python cannot make environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)
