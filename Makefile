# `make run` and `make test` do their own set-up on a fresh Debian 12 with a Rust toolchain and root.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Suites of gantry-bench.
SUITES := start idle image agent mesos

.PHONY: help run stop test lint bench deny packages

help:
	@echo 'make run    build, start a node, deploy two services, leave the node up'
	@echo 'make stop   stop that node and its tasks'
	@echo 'make test   everything CI runs (installs the Debian packages that tests use)'
	@echo 'make lint   formatting and clippy'
	@echo 'make bench  every benchmark, at full size'
	@echo 'make deny   licences, bans and sources of the dependencies'

run:
	@cli/demo/run

stop:
	@cli/demo/stop

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets
	@if command -v cargo-deny >/dev/null; then $(MAKE) --no-print-directory deny; fi

packages:
	@tests/support/packages

test: packages lint
	cargo build --locked --workspace
	cargo test --locked --workspace
	for suite in $(SUITES); do cargo run --locked -p gantry-bench -- $$suite --quick || exit 1; done

bench: packages
	cargo build --locked --release --bin gantry
	for suite in $(SUITES); do cargo run --locked --release -p gantry-bench -- $$suite || exit 1; done

deny:
	cargo deny --offline check licenses bans sources
