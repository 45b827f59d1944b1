"""The tests with OpenVPN 2.7 run only where they are asked for: `make test-openvpn27`, which gets OpenVPN 2.7 first."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out all of this directory unless it, or something in it, is named on the command line."""
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if collection_path.is_relative_to(HERE) and not any(path.is_relative_to(HERE) for path in named):
        return True
    return None
