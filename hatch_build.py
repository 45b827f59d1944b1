"""Build hook: makes gen/ from proto/, and compiles dataplane/fastpath/ before a wheel or an editable install is made.

Knows what a wheel with compiled modules is called. Must not know how either is made: that is in scripts/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateAndCompile(BuildHookInterface):  # type: ignore[type-arg]
    """Runs scripts/generate_proto.py and scripts/build_fastpath.py."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "scripts"))
        from generate_proto import generate

        generate(root)
        if self.target_name == "wheel":
            self._compile(root, build_data)

    def _compile(self, root: Path, build_data: dict[str, Any]) -> None:
        """Without compiled modules the wheel is pure: it runs everywhere, on the readable Python."""
        from build_fastpath import ToolsMissing, build, module_pattern

        try:
            build(root)
        except ToolsMissing as error:
            self.app.display_warning(f"{error} not found: ovpn-dataplane will run its readable Python, which is slow")
            return
        build_data["artifacts"].append(module_pattern())
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
