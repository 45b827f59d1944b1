"""Entry of the supervisor process; exec'd by the front."""

from __future__ import annotations

import sys

from controlplane_shim import app

if __name__ == "__main__":
    sys.exit(app.main(sys.argv[1:]))
