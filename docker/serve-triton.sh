#!/bin/sh
# Start Triton over a repository: serve-triton.sh REPOSITORY [more options]
set -eu
repository=$1
shift
# Clients ping every 30 s, idle ones too. They reconnect every few minutes, so that new replicas
# get their share; --exit-timeout-secs is what the pod's grace period is computed from.
exec tritonserver \
  --model-repository="$repository" \
  --model-control-mode=none \
  --exit-on-error=true \
  --strict-readiness=true \
  --disable-auto-complete-config \
  --exit-timeout-secs="${MUSETALK_TRITON_EXIT_TIMEOUT:-30}" \
  --grpc-keepalive-time=30000 \
  --grpc-http2-min-recv-ping-interval-without-data=10000 \
  --grpc-keepalive-permit-without-calls=true \
  --grpc-max-connection-age=300000 \
  --grpc-max-connection-age-grace=60000 \
  --cuda-memory-pool-byte-size=0:268435456 \
  "$@"
