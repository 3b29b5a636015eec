# The command `lm` on a CPU: docs/platforms.md says how to build and run it.
FROM python:3.12-slim

# The address of PyTorch's index of CPU builds. Without it, pip installs the build for GPUs, which is much larger.
ARG TORCH_INDEX=""

WORKDIR /src
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml setup.py README.md LICENSE ./
COPY lm lm
COPY app app
RUN pip install --no-cache-dir ".[all]"

# Runs, the cache of tokenized text and downloaded models are in /data, owned by a user without rights.
RUN useradd --create-home --uid 1000 lm && install --directory --owner=lm --group=lm /data
USER lm
WORKDIR /data
ENV LM_CACHE=/data/cache HF_HOME=/data/huggingface PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860 8000

ENTRYPOINT ["lm"]
CMD ["app", "--host", "0.0.0.0", "--port", "7860"]
