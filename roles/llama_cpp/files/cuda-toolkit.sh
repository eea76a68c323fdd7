#!/bin/sh
# usage: cuda-toolkit.sh LOCK DIRECTORY
# Make a complete CUDA toolkit below DIRECTORY from NVIDIA's packages in the package index; prints its path. Nothing else
# on the host is touched, and what is built with it needs of it only the libraries that it is linked with.
set -eu
python3 -m venv "$2"
"$2/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-compile --no-deps --only-binary :all: \
  --require-hashes --requirement "$1" >&2
toolkit=$(echo "$2"/lib/python3*/site-packages/nvidia/cu[0-9]*)
# The packages hold what programs load. Compilers and linkers look for these names.
ln -s lib "$toolkit/lib64"
for library in cudart cublas cublasLt; do
  (cd "$toolkit/lib" && ln -s "lib$library.so".* "lib$library.so")
done
"$toolkit/bin/nvcc" --version >&2
echo "$toolkit"
