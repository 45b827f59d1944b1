"""Build hook: makes gen/ from proto/ before a wheel or an editable install is made. Knows nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateProto(BuildHookInterface):  # type: ignore[type-arg]
    """Runs scripts/generate_proto.py."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        sys.path.insert(0, str(Path(self.root) / "scripts"))
        from generate_proto import generate

        generate(Path(self.root))
