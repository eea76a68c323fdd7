#!/bin/sh
# Build the gateway's environment at its final path from a hashed lock: wheels only, nothing is compiled.
set -eu
python3 -m venv installer
installer/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement "$SOURCES/uv.txt"
python3 -m venv --without-pip "$DEST"
# Byte code is compiled now: the service user cannot write any, and importing without it costs seconds at every start.
installer/bin/uv pip sync --system-certs --python "$DEST/bin/python" --require-hashes --only-binary :all: \
  --compile-bytecode --link-mode copy --no-cache "$SOURCES/lock.txt"
LITELLM_LOCAL_MODEL_COST_MAP=True "$DEST/bin/python" -c 'import litellm.proxy.proxy_server, prisma, prometheus_client'
