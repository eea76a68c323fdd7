#!/bin/sh
# Build the gateway's environment at its final path from a hashed lock: wheels only, nothing is compiled.
set -eu
python3 -m venv installer
installer/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement "$SOURCES/uv.txt"
python3 -m venv --without-pip "$DEST"
# Byte code is compiled now: the service user cannot write any, and importing without it costs seconds at every start.
installer/bin/uv pip sync --system-certs --python "$DEST/bin/python" --require-hashes --only-binary :all: \
  --compile-bytecode --link-mode copy --no-cache "$SOURCES/lock.txt"

# Until Python 3.12 the garbage collector can run inside ContextVar.set, and a finalizer that sets a variable then frees
# what is being copied (CPython issue 148891): the gateway died with SIGSEGV under streams. This finalizer does so and
# only tidies up for `request_correlation_in_logs`, which we do not use. See docs/architecture.md.
streaming=$("$DEST/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/litellm/litellm_core_utils/streaming_handler.py
sed -i 's/^    def __del__(self) -> None:$/    def _no_finalizer(self) -> None:/' "$streaming"
"$DEST/bin/python" -m compileall -q "$streaming"

# The environment is whole, and no stream sets a variable when it is collected, whatever the version calls it.
LITELLM_LOCAL_MODEL_COST_MAP=True "$DEST/bin/python" - <<'CHECK'
import gc

import litellm.proxy.proxy_server
import prisma
import prometheus_client
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper


class Logging:
    restored = 0

    def _restore_correlation_context_if_unclaimed(self):
        Logging.restored += 1


stream = CustomStreamWrapper.__new__(CustomStreamWrapper)
stream.logging_obj, stream.cycle = Logging(), stream
assert stream._restore_consumer_correlation_context, "the gateway was changed here: read build.sh again"
del stream
gc.collect()
assert Logging.restored == 0, "a stream's finalizer still sets context variables: see build.sh"
CHECK
