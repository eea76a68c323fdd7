#!/bin/sh
# Build vLLM's environment at its final path from a hashed lock: wheels only, nothing is compiled.
set -eu
started=$(date +%s)
python3 -m venv installer
installer/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement "$SOURCES/uv.txt"
python3 -m venv --without-pip "$DEST"
# uv's cache lies on the same mount, so that the gigabytes are unpacked there and linked instead of copied.
# Byte code is compiled now: the service user cannot write any, and a start would take a minute longer.
installer/bin/uv pip sync --system-certs --python "$DEST/bin/python" --require-hashes --only-binary :all: \
  --compile-bytecode --link-mode hardlink --cache-dir "$DEST/.uv" "$SOURCES/lock.txt"
rm -rf "$DEST/.uv"
echo "installed in $(($(date +%s) - started)) s"
# The environment is whole, as far as that can be seen without a GPU.
VLLM_NO_USAGE_STATS=1 "$DEST/bin/python" -c 'import vllm.entrypoints.openai.api_server'
echo "built in $(($(date +%s) - started)) s"
