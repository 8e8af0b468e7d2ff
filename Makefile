# make build   .venv with dspm, its library and its tools        make test   all tests        make lint   all checks
# make demo    YCSB, a killed writer, nothing lost               make sim    the simulator (SEEDS=n | SEED=k)
# make torture faults on real processes (FAULTS=n, SEED=k)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
CARGO := cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)/release
NATIVE := dspm/_native
SOURCES := dspm tests setup.py
PYTEST_WORKERS ?= 2
SEEDS ?= 200
FAULTS ?= 60
INPUTS ?= 10000000

say = @printf '\n== %s\n' $(1)

.PHONY: build demo test test-rust test-python sqlite-tests fuzz lint sim sim-mutants torture wheel lock clean tools native wiredtiger

build: $(VENV)/.installed native
	@$(VENV)/bin/dspm --version >/dev/null
	@echo "ready: $(VENV)/bin/dspm, $(PY)"

# What a fresh machine needs, in one sentence each.
tools:
	@command -v cargo >/dev/null || { echo "make: Rust is missing (cargo); install it from https://rustup.rs" >&2; exit 1; }
	@need=; command -v cc >/dev/null || need="$$need gcc libc6-dev"; \
	command -v python3 >/dev/null && { python3 -c 'import ensurepip, venv' 2>/dev/null || need="$$need python3-venv"; }; \
	if [ -n "$$need" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "== installing$$need with apt-get"; apt-get update -qq; apt-get install -y -qq $$need; \
	  else echo "make: missing:$$need; install it (Debian: sudo apt-get install$$need)" >&2; exit 1; fi; fi
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or newer is missing; python3 is $$(python3 --version 2>&1 || true)" >&2; exit 1; }

$(VENV)/.packages: requirements.lock | tools
	$(call say,"Python packages into $(VENV)")
	@[ -x $(PY) ] || python3 -m venv $(VENV)
	@$(PY) -m pip install --disable-pip-version-check -r requirements.lock
	@touch $@

# Editable: the sources are used where they lie. The library is built first, where cargo can show its progress.
$(VENV)/.installed: $(VENV)/.packages pyproject.toml setup.py | native
	$(call say,"dspm into $(VENV)")
	@$(PY) -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

native: | tools
	$(call say,"libdspm.so and dspm-node")
	@$(CARGO) build --release --locked --lib --bins -p dspm-dspm -p dspm-node -p dspm-bench
	@mkdir -p $(NATIVE)
	@for f in libdspm.so dspm-node dspm-bench; do cmp -s $(TARGET)/$$f $(NATIVE)/$$f || { \
	  cp $(TARGET)/$$f $(NATIVE)/.$$f.new && mv $(NATIVE)/.$$f.new $(NATIVE)/$$f; }; done

test: test-rust test-python

test-rust: | tools
	$(call say,"Rust tests")
	@$(CARGO) test --release --workspace --locked

test-python: build
	$(call say,"Python tests")
	@$(PY) -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

# SQLite's own test programs, from Debian's source package: network and libsqlite3-dev are needed.
sqlite-tests: build
	@$(PY) -m tests.sqlite_programs $(SQLITE_TESTS_ARGS)

# WiredTiger libraries for the tests, from Debian and PyPI; kept in the user's cache directory.
wiredtiger: $(VENV)/.packages
	@$(PY) -m tests.wiredtiger

# Hostile bytes for every decoder of the wire and of the disk.
fuzz: | tools
	@$(CARGO) run --release --locked -p dspm-fuzz -- --inputs $(INPUTS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.packages
	$(call say,"rustfmt")
	@$(CARGO) fmt --all --check
	$(call say,"clippy")
	@$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
	$(call say,"ruff")
	@$(VENV)/bin/ruff check $(SOURCES)
	@$(VENV)/bin/ruff format --check $(SOURCES)
	$(call say,"mypy")
	@$(VENV)/bin/mypy --strict dspm

demo: build
	@mkdir -p build
	@$(PY) -m dspm.bench.demo

sim: | tools
	@$(CARGO) run --release --locked -p dspm-sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

sim-mutants: | tools
	@$(CARGO) run --release --locked -p dspm-sim -- --mutants

# Processes, links and disks that fail under load (docs/torture.md); as root with links and full disks.
torture: build
	@$(PY) -m dspm.bench.torture --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

wheel: $(VENV)/.packages
	@$(PY) -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation -w build .

# Writes requirements.lock anew: the newest versions that pyproject.toml allows.
lock: | tools
	@rm -rf build/lock && mkdir -p build && python3 -m venv build/lock
	@build/lock/bin/python -m pip install --disable-pip-version-check -q $$(build/lock/bin/python -c \
	  "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); x = p['project']; \
	  print(*p['build-system']['requires'], *x['dependencies'], *sum(x['optional-dependencies'].values(), []))")
	@{ echo "# Exact versions of everything that make build installs; written by make lock."; \
	  build/lock/bin/python -m pip freeze --all --exclude pip; } > requirements.lock
	@rm -rf build/lock

clean:
	rm -rf build $(NATIVE) $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	$(CARGO) clean
