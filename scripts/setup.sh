#!/usr/bin/env bash
# Makes everything that the other make targets need: Debian packages and .venv.
# Meant for Debian 12 or later; needs root only if a package is missing. May be run again at any time.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
VENV=.venv
# Debian's package, and a file that shows it is there.
PACKAGES=(
    ca-certificates:/etc/ssl/certs/ca-certificates.crt
    python3-venv:/usr/share/doc/python3-venv
    python3-dev:/usr/share/doc/python3-dev
    gcc:/usr/bin/gcc
    libc6-dev:/usr/include/stdio.h
    libssl-dev:/usr/include/openssl/evp.h
    openvpn:/usr/sbin/openvpn
    iproute2:/usr/sbin/ip
    iperf3:/usr/bin/iperf3
    iputils-ping:/usr/bin/ping
)

missing_packages() {
    local entry
    for entry in "${PACKAGES[@]}"; do
        # Merged-/usr or not, Debian has had these programs in either place.
        [[ -e ${entry#*:} || -e ${entry#*:/usr} ]] || echo "${entry%%:*}"
    done
}

# A machine that is set up for development shall not start an OpenVPN or iperf3 service because of it.
install_without_starting_services() {
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        # shellcheck disable=SC2064 # the path is meant as it is now
        trap "rm -f $policy" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
}

mapfile -t missing < <(missing_packages)
if ((${#missing[@]})); then
    if ((EUID != 0)); then
        echo "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
        exit 1
    fi
    install_without_starting_services "${missing[@]}"
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$PYTHON is older than Python 3.11" >&2
    exit 1
}
[[ -x $VENV/bin/pip ]] || "$PYTHON" -m venv "$VENV"

# The constraints hold for the build's own requirements too, so that every machine gets the same generated code.
# The groups come first: the build of the project finds protoc's plugin in .venv.
"$VENV/bin/pip" install -q "$(grep '^pip==' constraints.txt)"
"$VENV/bin/pip" install -q --constraint constraints.txt \
    --group build --group lint --group test --group fuzz --group bench
"$VENV/bin/pip" install -q --constraint constraints.txt --build-constraint constraints.txt --editable .
