"""The program `ovpn-dataplane`. Knows argv and the environment only."""

from __future__ import annotations

import os
import sys

from dataplane.config import read_config


def main() -> int:
    """Reads the settings and runs the daemon; returns its exit code."""
    config = read_config(sys.argv[1:], os.environ)
    # Late, so that --help and a wrong flag do not wait for gRPC.
    from dataplane.daemon import run

    return run(config)


if __name__ == "__main__":
    sys.exit(main())
