#!/usr/bin/env bash
# Puts OpenVPN 2.7, which Debian 12 does not have, into build/openvpn27/tree: a Debian unstable of its own, never booted.
# As root. Nothing is fetched again once the tree is there; `make clean` removes it.
set -euo pipefail
cd "$(dirname "$0")/.."

TREE=build/openvpn27/tree
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

[[ -e $TREE ]] && exit
if ((EUID != 0)); then
    echo "only root can make $TREE, a Debian tree with OpenVPN 2.7" >&2
    exit 1
fi

if ! command -v debootstrap >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap
fi

# The archive that this machine's own Debian packages come from.
mirror=$(apt-get indextargets --format "\$(REPO_URI)" "Label: Debian" "Component: main" | sed -n 1p)
if [[ -z $mirror ]]; then
    echo "this machine's apt knows no Debian archive (or \`apt-get update\` was never run)" >&2
    exit 1
fi

# What was cut short begins anew. debootstrap mounts into the tree; in a mount namespace of its own that ends with it.
# It checks the archive's signature, and has no service started.
rm -rf "$TREE.part"
mkdir -p "$TREE.part"
unshare --mount debootstrap --variant=minbase --keyring="$KEYRING" --include=openvpn unstable "$TREE.part" "$mirror"

version=$(chroot "$TREE.part" openvpn --version | sed -n '1s/^OpenVPN \([^ ]*\) .*/\1/p')
if [[ $version != 2.7.* ]]; then
    echo "Debian unstable has OpenVPN ${version:-without a version}, and the tests are for 2.7" >&2
    exit 1
fi
mv "$TREE.part" "$TREE"
echo "OpenVPN $version is in $TREE"
