# Training on a GPU, with vLLM beside it in an environment of its own, since it pins packages. From a checkout:
#   docker build -f docker/gpu.Dockerfile -t vold-gpu .
#   docker run --rm --gpus all --ipc host -v vold-runs:/vold/runs -v vold-hub:/vold/.cache vold-gpu check qwen2_5_vl-3b
# A recipe's servers are started from the second environment, which is on the path. HF_TOKEN, for gated models, and a
# judge's key are given when it is run: docker run -e HF_TOKEN ...
FROM python:3.11.14-slim-bookworm

# Tokenizers are no tokens.
# hadolint ignore=DL3064
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_NUM_THREADS=1 \
    TOKENIZERS_PARALLELISM=false

# Triton compiles its kernels where they are used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --home-dir /vold --uid 10001 vold \
    && install -d -o vold /vold/runs /vold/.cache

WORKDIR /build
RUN python -m venv /engines && /engines/bin/pip install torch==2.13.0 vllm==0.32.0
COPY requirements.txt ./
RUN pip install --no-deps --require-hashes -r requirements.txt && pip install torch==2.13.0
COPY pyproject.toml README.md LICENSE hatch_build.py ./
COPY recipes ./recipes
COPY src ./src
RUN pip install --no-deps --no-build-isolation .

USER 10001
WORKDIR /vold
ENV PATH="${PATH}:/engines/bin"
ENTRYPOINT ["vold"]
CMD ["--help"]
