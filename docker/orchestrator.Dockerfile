# The orchestrator: no torch, no tritonserver, no root, nothing written outside /var/lib/musetalk
# and /tmp. Build from the root of the repository:
#   docker build -f docker/orchestrator.Dockerfile -t musetalk-orchestrator:0.1.0 .
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
# "piper" is GPL-3.0 and runs as a process of its own; leave it out with EXTRAS=telemetry when
# speech comes from an OpenAI-compatible server.
ARG EXTRAS=piper,telemetry
RUN python -m venv /opt/musetalk
ENV PATH=/opt/musetalk/bin:$PATH
# The packages first: they change less often than our own code.
COPY pyproject.toml README.md LICENSE NOTICE constraints.txt ./
RUN mkdir orchestrator export && touch orchestrator/__init__.py export/__init__.py \
    && pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && pip uninstall --yes musetalk-serving
COPY orchestrator orchestrator
COPY export export
RUN pip install --no-cache-dir --no-deps . \
    && python -m compileall -q /opt/musetalk/lib

FROM python:3.12.12-slim-bookworm
LABEL org.opencontainers.image.title="musetalk-orchestrator" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 musetalk \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin musetalk \
    && install -d -o 10001 -g 10001 /var/lib/musetalk
COPY --from=build /opt/musetalk /opt/musetalk
ENV PATH=/opt/musetalk/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/musetalk \
    MUSETALK_CACHE_DIR=/var/lib/musetalk \
    MUSETALK_HOST=0.0.0.0 \
    MUSETALK_LOG_FORMAT=json
WORKDIR /var/lib/musetalk
USER 10001:10001
EXPOSE 8080 8081
VOLUME /var/lib/musetalk
# SIGTERM drains: no new work, running turns end.
STOPSIGNAL SIGTERM
ENTRYPOINT ["musetalk"]
CMD ["serve"]
