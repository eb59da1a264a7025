# `make help` lists the commands. Each does its own set-up in .venv (tools/venv.sh), so that none needs another first.
PYTHON ?= python3
VENV = .venv
BIN = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/
.PHONY: help serve site book test lab outputs readme practice bench walk setup clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s  %s\n", $$1, $$2}' Makefile

serve: setup  ## build the site, serve it on a local port, and show in the browser what you save
	@$(BIN)python tools/site.py serve --build

site: setup  ## build the site into _docs/
	@$(BIN)python tools/site.py build

book:  ## write the chapters as a book into _book/, an EPUB and a PDF
	@sh tools/venv.sh '$(PYTHON)' '$(VENV)' book
	@$(BIN)python tools/site.py book

test: setup  ## check everything that CI checks
	@$(BIN)python tools/check.py

lab:  ## open the notebooks in JupyterLab, which then saves them clean
	@sh tools/venv.sh '$(PYTHON)' '$(VENV)' jupyterlab
	@TQDM_DISABLE=1 $(BIN)jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --config=tools/jupyter_server_config.py

outputs: setup  ## run notebooks on the real data, store what changed, make README and practice notebooks; NB=nbs/NAME.ipynb runs one, ALL=1 stores all
	@$(BIN)nbdev_export
	@$(BIN)python tools/notebooks.py run $(if $(ALL),--all) $(NB)
	@$(BIN)nbdev_clean
	@$(BIN)python tools/readme.py
	@$(BIN)python tools/practice.py

readme: setup  ## make README.md from nbs/index.ipynb
	@$(BIN)python tools/readme.py

practice: setup  ## make the notebooks in nbs/practice from the chapters and the exercises
	@$(BIN)nbdev_export
	@$(BIN)python tools/practice.py

bench:  ## compare ways to train on this machine, store the result (minutes; keep it idle); DEVICE=cuda measures a GPU
	@sh tools/venv.sh '$(PYTHON)' '$(VENV)' bench
	@$(BIN)backprop13-bench --device $(or $(DEVICE),cpu) --out backprop13/static/benchmarks$(if $(DEVICE),-$(DEVICE)).json

walk:  ## measure chapter 7's steps on this machine, store the record that its charts show (minutes; keep it idle); OUT=FILE writes elsewhere
	@sh tools/venv.sh '$(PYTHON)' '$(VENV)' bench
	@$(BIN)python -c 'from backprop13.support.benchmarks import _walk; _walk("nbs/07_speed.ipynb", "$(or $(OUT),backprop13/static/walk.json)")'

setup:  ## make .venv with everything installed, or bring it up to date; PYTHON=python3.12 names another Python
	@sh tools/venv.sh '$(PYTHON)' '$(VENV)' dev

clean:  ## remove what the other commands made, apart from .venv
	rm -rf _docs _book _proc build dist .pytest_cache node_modules nbs/nbdev.yml nbs/assets/katex nbs/assets/fonts nbs/assets/labs nbs/assets/codemirror nbs/assets/python/pyodide nbs/assets/python/parts.json
