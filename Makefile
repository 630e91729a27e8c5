# make demo   set up .venv and train FLAVA on two CPU cores in minutes
# make test   set up the same .venv and run the tests
# make check  ruff (format and lint), mypy, tests: what a change must pass
# make chaos  every fault at full length, a line of JSON for each proof: kills of saves and of whole runs at random and at
#             exact places, SIGTERMs in every situation, flipped bits, memory; about half an hour, exit 1 if one fails
# make bench  a full-size training step beside its peers, the trainer's overhead, memory of the contrastive loss and of fsdp:
#             about 25 minutes on two idle cores
#
# PYTHON=python3.12 chooses the interpreter (3.11 to 3.13); without it an existing .venv is kept as it is.
# MMF=/path/to/mmf    runs any of them on that checkout of MMF's main branch, in the same .venv, instead of 1.0.0rc10

VENV := .venv
BIN := $(VENV)/bin
RC10 := mmf==1.0.0rc10

ifeq ($(origin PYTHON), undefined)
PYTHON := python3
INSTALLED := $(firstword $(wildcard $(VENV)/installed-*) $(VENV)/installed-$(PYTHON))
else
INSTALLED := $(VENV)/installed-$(subst /,_,$(PYTHON))
endif

READY := $(INSTALLED)

ifneq ($(strip $(MMF)),)
# zsh and dash hand ~ over as it is
CHECKOUT := $(shell cd '$(patsubst ~%,$(HOME)%,$(MMF))' 2>/dev/null && test -f mmf/__init__.py && pwd)
ifeq ($(CHECKOUT),)
$(error there is no checkout of MMF in $(MMF): MMF= names the folder in which mmf/__init__.py lies)
endif
# this folder first: MMF's checkout has tests, tools and projects too
RUN := PYTHONPATH="$(CURDIR):$(CHECKOUT)$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)
READY := $(VENV)/extra-mmf-main
else
RUN := $(BIN)
endif

.PHONY: demo test check chaos bench help clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(READY)
	$(RUN)/mmf_run config=projects/flava/configs/demo.yaml

test: $(READY)
	$(RUN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(RUN)/python -m pytest

chaos: $(READY)
	$(RUN)/python -m tests.faults

bench: $(READY)
	$(RUN)/python benchmarks/step.py
	$(RUN)/python benchmarks/scaling.py

clean:
	rm -rf $(VENV) build *.egg-info save

# MMF's sdist on the package index lacks every YAML file; its cp38 wheel has them and, but for one extension that is
# never imported here, is pure Python: it is retagged as such. MMF's pins (torch 1.5, ...) are left out by --no-deps.
$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("mmf_flava needs Python 3.11 to 3.13; say which with PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing torch, MMF and the rest: about 6 GB, some minutes"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mmf,data,eval,dev]'
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version 3.8 --implementation cp --abi cp38 --platform manylinux1_x86_64 --dest $(VENV)/wheels $(RC10)
	cd $(VENV)/wheels && ../bin/wheel tags --remove --python-tag py3 --abi-tag none --platform-tag any mmf-*.whl
	$(BIN)/pip install --quiet --no-deps $(VENV)/wheels/mmf-*.whl fairseq==0.12.2 fairscale==0.4.13
	touch $@

$(VENV)/extra-mmf-main: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mmf-main]'
	touch $@
