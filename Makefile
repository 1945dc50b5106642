# make music: install what playing needs, then write music with the models in the box. make test: install all, run all tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: music test check clean

music: $(INSTALLED)
	for model in melody-2 drums-2 melody-16 drums-16 trio-16; do \
		$(BIN)/musicvae sample $$model -n 8 --seed 1 --out music/$$model --overwrite || exit 1; done
	@echo "Listen to the files in the folders of music/."

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The constraint keeps pip from taking a CUDA build of several gigabytes where a CPU build is offered.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[pictures]'
	touch $@

$(VENV)/.installed-test: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.installed-check: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,check]'
	touch $@

# magenta.js itself, for the tests that load what we export; they skip without it. Needs Node 18 or newer.
node_modules/@magenta/music:
	npm install --no-save --no-package-lock --ignore-scripts --prefix . @magenta/music@1.23.1

clean:
	rm -rf $(VENV) music node_modules
