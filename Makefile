# Every target does the set-up that it needs and costs nothing the second time. Root or sudo; Debian 12 or newer.
#   make demo        replay the incident for real, and see it caught        make bench   the figures
#   make test        everything that can be tested here                     make proof   the long runs behind the promises
#   make eval        real attacks and real work under the shipped policies: what is caught, what is harmed
#   make run         the daemon in the foreground, with the shipped policies
#   make check       lint and types          make test-vm    the kernel and e2e tests on Debian's 5.10, 6.1 and 6.12
#                                            make clean-host   remove what a crashed test left

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTHON := .venv/bin/python
RUN = $(SUDO) env PATH="$(CURDIR)/.venv/bin:$$PATH" $(WITH) $(PYTHON)
STAMPS := build/stamps

help:
	@sed -n 's/^#   //p' Makefile

# --- set-up ---------------------------------------------------------------------------------------------------------

apt:
	@.ci/apt core

$(STAMPS)/venv: setup.cfg pyproject.toml | apt
	@test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check "setuptools>=77" wheel
	@# The build makes the BPF object and the protobuf code with the tools of the extra "dev", so those come first.
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check "grpcio-tools>=1.85,<2"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	@mkdir -p $(@D) && touch $@

$(STAMPS)/bpf: $(wildcard bpf/*) | apt $(STAMPS)/venv
	@$(PYTHON) -m killswitch._build bpf
	@mkdir -p $(@D) && touch $@

$(STAMPS)/protos: $(shell find protos -name '*.proto' 2>/dev/null) | $(STAMPS)/venv
	@$(PYTHON) -m killswitch._build protos
	@mkdir -p $(@D) && touch $@

bpf: $(STAMPS)/bpf
protos: $(STAMPS)/protos
setup: $(STAMPS)/venv $(STAMPS)/bpf $(STAMPS)/protos bpffs

bpffs:
	@mountpoint -q /sys/fs/bpf || $(SUDO) mount -t bpf bpf /sys/fs/bpf

lab:
	@.ci/apt lab

# --- daily work -----------------------------------------------------------------------------------------------------

demo: setup lab
	@$(RUN) -m tests.demo

run: setup
	@$(RUN) -m killswitch daemon

check: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy

# All is set up: what is missing all the same is a failure, no skip.
test: WITH := KS_TEST_COMPLETE=1
test: setup lab check
	@$(RUN) -m pytest $(PYTEST_ARGS)

# Each kernel takes minutes: a file or VM_ARGS="--kernel 6.1 --quick" chooses.
test-vm: setup lab
	@.ci/apt vm
	@$(RUN) -m tests.vm $(VM_ARGS)

bench: setup lab
	@.ci/apt bench
	@$(RUN) -m benchmarks $(BENCH_ARGS)

# What the cases need is said by the cases: Debian packages, and PyPI packages in an environment of their own.
eval: setup lab
	@.ci/apt packages $$($(PYTHON) -m benchmarks.eval --packages debian $(EVAL_ARGS))
	@test -x build/eval/venv/bin/python || /usr/bin/python3 -m venv build/eval/venv
	@needed=$$($(PYTHON) -m benchmarks.eval --packages pypi $(EVAL_ARGS)); test -z "$$needed" || \
	  build/eval/venv/bin/python -m pip install --quiet --disable-pip-version-check $$needed
	@$(RUN) -m benchmarks.eval $(EVAL_ARGS)

proof: setup lab
	@$(RUN) -m benchmarks.proof $(PROOF_ARGS)

clean-host:
	@$(SUDO) /usr/bin/python3 tests/rig/clean_host.py

clean:
	rm -rf build dist .venv killswitch/v1 killswitch/bpf *.egg-info

.PHONY: help apt setup bpf protos bpffs lab demo run check test test-vm bench eval proof clean-host clean
