# The demo, and whatever else a CPU can run. From a checkout:
#   docker build -f docker/cpu.Dockerfile -t vold .
#   docker run --rm -v vold-runs:/vold/runs vold                      # the demo
#   docker run --rm -v vold-runs:/vold/runs vold run sod-mini         # any verb
# PyTorch's own index of CPU builds saves several GB: --build-arg PIP_TORCH_ARGS='--index-url ...'
FROM python:3.11.14-slim-bookworm

ARG PIP_TORCH_ARGS=""
# Tokenizers are no tokens.
# hadolint ignore=DL3064
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_NUM_THREADS=1 \
    OMP_WAIT_POLICY=passive \
    TOKENIZERS_PARALLELISM=false

RUN useradd --create-home --home-dir /vold --uid 10001 vold && install -d -o vold /vold/runs

WORKDIR /build
COPY requirements.txt ./
# Arguments are several words, and no package.
# hadolint ignore=SC2086,DL3013
RUN pip install --no-deps --require-hashes -r requirements.txt && pip install ${PIP_TORCH_ARGS} torch==2.13.0
COPY pyproject.toml README.md LICENSE hatch_build.py ./
COPY recipes ./recipes
COPY src ./src
RUN pip install --no-deps --no-build-isolation .

USER 10001
WORKDIR /vold
ENV HF_HUB_OFFLINE=1
ENTRYPOINT ["vold"]
CMD ["demo"]
