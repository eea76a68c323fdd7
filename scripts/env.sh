#!/bin/sh
# Make the controller's environment in .venv: exact versions, every file checked by hash.
# Needs Python >= 3.11; installs python3-venv by apt where Debian left ensurepip out.
# Package indexes are the user's own: UV_* and PIP_* variables are passed through untouched.
set -eu
cd "$(dirname "$0")/.."

cache="${MODELYARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/modelyard}"

fail() { printf 'env: %s\n' "$*" >&2; exit 1; }

python=""
for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
[ -n "$python" ] || fail "no Python >= 3.11 found. Install it (Debian: apt-get install python3) or set PYTHON=/path/to/python3."

# uv's environment and the gateway's in the tests are made with venv.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "env: $python has no ensurepip; installing python3-venv with apt"
    command -v apt-get >/dev/null || fail "$python has no ensurepip and there is no apt-get: install your system's venv package."
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null
fi

# uv lives outside the clone: one copy for all clones, replaced when its lock changes.
uv_home="$cache/uv/$(sha256sum requirements/uv.txt | cut -c1-16)"
uv="$uv_home/bin/uv"
if ! [ -x "$uv" ]; then
    mkdir -p "$cache/uv"
    work=$(mktemp -d "$cache/uv/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work"
    "$work/bin/python" -m pip install --quiet --require-hashes -r requirements/uv.txt
    # Another clone may have been faster; both copies are equal.
    mv -T "$work" "$uv_home" 2>/dev/null || [ -x "$uv" ] || fail "cannot create $uv_home"
fi

export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
# uv brings its own certificate authorities; the system's know those of the network, too.
bundle=/etc/ssl/certs/ca-certificates.crt
[ -n "${SSL_CERT_FILE:-}" ] || ! [ -e "$bundle" ] || export SSL_CERT_FILE="$bundle"
# Commands start in half the time when nothing has to be compiled at every start.
export UV_COMPILE_BYTECODE=1
[ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || "$uv" venv --quiet --clear --python "$python" .venv
export VIRTUAL_ENV="$PWD/.venv"
"$uv" pip sync --quiet --require-hashes requirements/dev.txt
"$uv" pip install --quiet --no-deps --no-build-isolation --editable .
# Roles ask uv for the address of sources in the package index.
ln -sf "$uv" .venv/bin/uv
echo "env: .venv is ready ($(.venv/bin/python --version), $(.venv/bin/ansible --version | sed -n 1p))"
