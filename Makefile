# make demo   set up .venv, then train and evaluate a small FLAVA on two CPU cores (about five minutes). A stopped demo starts
#             anew and says where the old run is; OPTIONS=checkpoint.resume=true continues it. OPTIONS are key=value words
# make demo-photos  set up .venv, then train and evaluate a small FLAVA on CIFAR-10's photographs (about 13 minutes); the
#             first call downloads them (170 MB). SRC=FOLDER: local photographs, TEXT=FILE: other text, see
#             `python -m mmf_flava.data.prepare photos --help`. OPTIONS as for the demo
# make test   set up .venv and run the tests in two processes; JOBS=1: one after another
# make check  run ruff (format and lint), mypy and the tests, as required for every change
# make chaos  run the complete fault tests, one line of JSON per test: SIGKILL during saves and runs, at random and at
#             specific points, also of finetunings and DINO; SIGTERM in every situation; corrupt bytes; memory; 3,000
#             mutated recipes; 1,500 damaged files of each format; fsdp with every subset of the losses; finetuning on 1 to 3
#             processes; an update on each format of own data. Several hours; exit code 1 on failure
# make bench  benchmark a full-size training step against other implementations, the trainer's overhead, and the memory
#             of the contrastive loss and of fsdp; about 25 minutes on two idle cores
# make device check correctness and speed on one GPU, in eight minutes; the table is printed and in save/device. Exit code 1
#             on failure. DEVICE=cpu TINY=1: try all of it on a CPU. PARTS=a,b: some parts. BUDGET=SECONDS, OUT=FOLDER
# make clean  remove .venv and build files; the runs in save stay
#
# PYTHON=python3.12 selects the interpreter (3.11 to 3.13). Without it, an existing .venv is reused.
# MMF=/path/to/mmf  uses a checkout of MMF's main branch instead of 1.0.0rc10, in the same .venv.

VENV := .venv
BIN := $(VENV)/bin
# processes that run tests; each needs 3 GB of memory
JOBS := 2

ifeq ($(origin PYTHON), undefined)
PYTHON := python3
INSTALLED := $(firstword $(wildcard $(VENV)/installed-*) $(VENV)/installed-$(PYTHON))
else
INSTALLED := $(VENV)/installed-$(subst /,_,$(PYTHON))
endif

READY := $(INSTALLED)

ifneq ($(strip $(MMF)),)
# zsh and dash do not expand ~ in MMF=~/mmf
CHECKOUT := $(shell cd '$(patsubst ~%,$(HOME)%,$(MMF))' 2>/dev/null && test -f mmf/__init__.py && pwd)
ifeq ($(CHECKOUT),)
$(error MMF=$(MMF): mmf/__init__.py was not found. Set MMF to the root folder of an MMF checkout)
endif
# this folder comes first, because MMF's checkout also has tests, tools and projects
RUN := PYTHONPATH="$(CURDIR):$(CHECKOUT)$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)
READY := $(VENV)/extra-mmf-main
else
RUN := $(BIN)
endif

.PHONY: demo demo-photos test check chaos bench device help clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(READY)
	$(RUN)/mmf_run config=projects/flava/configs/demo.yaml$(if $(OPTIONS), $(OPTIONS))

demo-photos: $(READY)
	$(if $(SRC)$(TEXT),$(RUN)/python -m mmf_flava.data.prepare photos$(if $(SRC), --src '$(SRC)')$(if $(TEXT), --text '$(TEXT)'))
	$(RUN)/mmf_run config=projects/flava/configs/demo_photos.yaml$(if $(OPTIONS), $(OPTIONS))

test: $(READY)
	$(RUN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(RUN)/python -m pytest -n $(JOBS) --dist loadfile

chaos: $(READY)
	$(RUN)/python -m tests.faults

bench: $(READY)
	$(RUN)/python benchmarks/step.py
	$(RUN)/python benchmarks/scaling.py

device: $(READY)
	$(RUN)/python benchmarks/device$(if $(DEVICE), --device $(DEVICE))$(if $(TINY), --tiny)$(if $(PARTS), --parts $(PARTS))$(if $(BUDGET), --budget $(BUDGET))$(if $(OUT), --out '$(OUT)')

clean:
	rm -rf $(VENV) build dist *.egg-info

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("mmf_flava requires Python 3.11 to 3.13. Select one with PYTHON=python3.12")'
	@$(PYTHON) -m mmf_flava.install_mmf --check
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	@echo "Installing torch and other dependencies (about 6 GB, a few minutes)"
	$(BIN)/pip install --constraint constraints.txt --editable '.[data,eval,dev]'
	$(BIN)/python -m mmf_flava.install_mmf --constraint constraints.txt
	touch $@

$(VENV)/extra-mmf-main: $(INSTALLED)
	$(BIN)/python -m mmf_flava.install_mmf main='$(CHECKOUT)' --dependencies-only --constraint constraints.txt
	touch $@
