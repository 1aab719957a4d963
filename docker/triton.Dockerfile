# Triton with what builds its repository: checkpoint -> ONNX -> TensorRT engines (target "gpu"),
# or the OpenVINO backend for machines without a GPU (target "cpu"). Build from the root:
#   docker build -f docker/triton.Dockerfile --target gpu -t musetalk-triton:0.1.0 .
#   docker build -f docker/triton.Dockerfile --target cpu -t musetalk-triton-cpu:0.1.0 .
# 26.08 is the oldest that may be used: before it a queue time-out slowed the batcher for good.
ARG TRITON=26.11
FROM nvcr.io/nvidia/tritonserver:${TRITON}-py3 AS base
# Each target below ends as 10001.
# hadolint ignore=DL3002
USER 0:0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE constraints.txt ./
COPY orchestrator orchestrator
COPY export export
COPY docker/build-repository.sh docker/serve-triton.sh /usr/local/bin/
RUN chmod 0755 /usr/local/bin/build-repository.sh /usr/local/bin/serve-triton.sh \
    && install -d -o 10001 -g 10001 /models /checkpoint /var/lib/musetalk
ENV PYTHONDONTWRITEBYTECODE=1 \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    HOME=/var/lib/musetalk \
    MUSETALK_CACHE_DIR=/var/lib/musetalk
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT []
CMD ["serve-triton.sh", "/models"]

FROM base AS gpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The TensorRT that builds must be the one that serves: its version is read from the image.
RUN version="$(dpkg-query --show --showformat='${Version}\n' 'libnvinfer[0-9]*' | head -n 1 | sed 's/-.*//')" \
    && test -n "$version" \
    && grep -v '^tensorrt' constraints.txt > /tmp/constraints.txt \
    && pip install --no-cache-dir -c /tmp/constraints.txt \
         --extra-index-url https://download.pytorch.org/whl/cpu \
         ".[export,gpu]" "tensorrt-cu13==${version%.*}.*" \
    && rm /tmp/constraints.txt
USER 10001:10001

FROM base AS cpu
# The demo checkpoint is inside: nothing is exported here, so there is no torch.
RUN pip install --no-cache-dir -c constraints.txt openvino numpy \
    && install -d /opt/tritonserver/backends/musetalk_openvino \
    && cp orchestrator/inference/backends/musetalk_openvino/*.py \
         /opt/tritonserver/backends/musetalk_openvino/
COPY model_repository/cpu /models/demo
USER 10001:10001
CMD ["serve-triton.sh", "/models/demo"]
