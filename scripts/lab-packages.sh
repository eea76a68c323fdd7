#!/bin/sh
# usage: lab-packages.sh [PROGRAM:PACKAGE...]
# Install what the lab needs from the distribution, and further programs; does nothing if it is all there.
set -eu
missing=""
for pair in systemd-nspawn:systemd-container mmdebstrap:mmdebstrap ip:iproute2 nft:nftables ssh:openssh-client "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "The lab needs root and these packages: apt-get install$missing" >&2; exit 1; }
echo "Installing the lab's packages:$missing"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends ca-certificates $missing >/dev/null
