# make music: install what playing needs, then write music with the models in the box. make test: install all, run all tests.
VENV ?= .venv
PYTHON ?= python3
# On Windows (make from Git Bash or MSYS2) a virtual environment keeps its programs in another folder.
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/.installed

.PHONY: music test check browser clean

music: $(INSTALLED)
	for model in melody-2 drums-2 melody-16 drums-16 trio-16; do \
		$(BIN)/musicvae sample $$model -n 8 --seed 1 --out music/$$model --overwrite || exit 1; done
	$(BIN)/musicvae page music --out music/index.html --title "Music by MusicVAE" --overwrite
	@echo "Open music/index.html in a browser to hear and see it all."

test: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The constraint keeps pip from taking a CUDA build of several gigabytes where a CPU build is offered.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12"'
	test -e $(BIN)/activate || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[pictures]'
	touch $@

$(VENV)/.installed-test: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.installed-check: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,check]'
	touch $@

# A browser for the tests of pages; they skip where there is none and it cannot be installed.
browser:
	@command -v chromium >/dev/null || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "No chromium: tests of pages skip."

# magenta.js itself, for the tests that load what we export; they skip without it. Needs Node 18 or newer.
node_modules/@magenta/music:
	npm install --no-save --no-package-lock --ignore-scripts --prefix . @magenta/music@1.23.1

clean:
	rm -rf $(VENV) music node_modules
