"""OpenVPN 2.7 out of the Debian tree that `scripts/setup_openvpn27.sh` makes. Knows the tree; must not know OpenVPN.

It runs natively, by the tree's own dynamic loader: configuration, sockets and devices are those of this machine, only
program and libraries come from the tree. What /proc/PID/exe then names is the loader, for this OpenVPN and for
nothing else, which is all that the shim asks of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

TREE: Final = Path(__file__).resolve().parent.parent / "build/openvpn27/tree"


def program(tree: Path = TREE) -> tuple[str, ...]:
    """The words that start it. Raises FileNotFoundError with what to do if the tree is not there."""
    loaders = sorted(tree.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        raise FileNotFoundError(f"{tree} has no OpenVPN 2.7: run `make test-openvpn27`, or scripts/setup_openvpn27.sh")
    return (str(loaders[0]), "--library-path", str(loaders[0].parent), str(tree / "usr/sbin/openvpn"))
