#!/bin/sh
# Make the model repository that serve-triton.sh serves, once: build-repository.sh CHECKPOINT REPOSITORY TARGET
# Replicas share the folder. One builds, under a lock; the others wait and find it finished.
set -eu
checkpoint=$1
repository=$2
target=$3
mkdir -p "$repository"
exec 9>"$repository.lock"
echo "waiting for the lock on $repository" >&2
flock --timeout "${MUSETALK_BUILD_TIMEOUT:-3600}" 9
if [ ! -f "$checkpoint/musetalkV15/unet.pth" ]; then
  # The weights have use restrictions: who runs this has to have read them (see NOTICE).
  if [ "${MUSETALK_ACCEPT_LICENCES:-no}" != yes ]; then
    echo "no weights in $checkpoint: read their licences in NOTICE and set" \
      "MUSETALK_ACCEPT_LICENCES=yes, or put a checkpoint there" >&2
    exit 1
  fi
  musetalk export fetch "$checkpoint" --accept-licences
fi
exec musetalk export build --if-needed --checkpoint "$checkpoint" --repository "$repository" \
  --target "$target" --decoder "${MUSETALK_DECODER:-full}"
