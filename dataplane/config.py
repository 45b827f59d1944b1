"""The daemon's settings: flags over environment over defaults.

Knows names, ranges and formats of the settings. Must not know what they do, and touches no file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

from dataplane.observability.log import LogFormat, LogLevel

DEFAULT_RUN_DIR: Final = "/run/ovpn-dataplane"
MAX_SOCKET_PATH_BYTES: Final = 107
"""sun_path of sockaddr_un has 108 bytes, of which one ends it (unix(7))."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Config:
    """Checked settings."""

    run_dir: Path
    control_path: Path
    handoff_path: Path
    log_level: LogLevel
    log_format: LogFormat


def program_version() -> str:
    """Version of the installed package, such as "0.1.0"."""
    return version("ovpn-dataplane")


def read_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Reads all settings. Ends the program (SystemExit) with code 2 and a message if one is wrong, 0 after --help."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))

    def setting(name: str, default: str, parse: Callable[[str], T]) -> T:
        flag, variable = f"--{name}", f"OVPN_DATAPLANE_{name.upper().replace('-', '_')}"
        given = flags[name.replace("-", "_")]
        # An empty variable counts as none, as unset ones do in unit files and manifests.
        source, value = (flag, given) if given is not None else (variable, environment.get(variable) or default)
        try:
            return parse(value)
        except ValueError as error:
            parser.error(f"{source}: {error}")

    run_dir = setting("run-dir", DEFAULT_RUN_DIR, _directory)
    return Config(
        run_dir=run_dir,
        control_path=setting("listen", f"unix:{run_dir}/control.sock", _listen_path),
        handoff_path=setting("handoff", f"{run_dir}/handoff.sock", _socket_path),
        log_level=setting("log-level", LogLevel.INFO.value, _choice(LogLevel)),
        log_format=setting("log-format", LogFormat.AUTO.value, _choice(LogFormat)),
    )
