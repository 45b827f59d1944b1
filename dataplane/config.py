"""The daemon's settings: flags over environment over defaults.

Knows names, ranges and formats of the settings. Must not know what they do, and touches no file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

from dataplane.datapath import DatapathChoice
from dataplane.observability.log import LogFormat, LogLevel

DEFAULT_RUN_DIR: Final = "/run/ovpn-dataplane"
MAX_SOCKET_PATH_BYTES: Final = 107
"""sun_path of sockaddr_un has 108 bytes, of which one ends it (unix(7))."""

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


@dataclass(frozen=True, slots=True)
class Config:
    """Checked settings."""

    run_dir: Path
    control_path: Path
    handoff_path: Path
    log_level: LogLevel
    log_format: LogFormat
    datapath: DatapathChoice


def program_version() -> str:
    """Version of the installed package, such as "0.1.0"."""
    return version("ovpn-dataplane")


def read_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Reads all settings. Ends the program (SystemExit) with code 2 and a message if one is wrong, 0 after --help."""
    parser = _parser()
    flags = vars(parser.parse_args(arguments))

    def setting(name: str, default: str, parse: Callable[[str], T]) -> T:
        flag, variable = f"--{name}", _variable(name)
        source, value = f"{flag} (default {default})", default
        # An empty variable counts as none, as unset ones are written in unit files and manifests.
        if environment.get(variable):
            source, value = variable, environment[variable]
        if (given := flags[name.replace("-", "_")]) is not None:
            source, value = flag, given
        try:
            return parse(value)
        except ValueError as error:
            parser.error(f"{source}: {error}")

    run_dir = setting("run-dir", DEFAULT_RUN_DIR, _directory)
    config = Config(
        run_dir=run_dir,
        control_path=setting("listen", f"unix:{run_dir}/control.sock", _listen_path),
        handoff_path=setting("handoff", f"{run_dir}/handoff.sock", _socket_path),
        log_level=setting("log-level", LogLevel.INFO.value, lambda value: _choice(LogLevel, value)),
        log_format=setting("log-format", LogFormat.AUTO.value, lambda value: _choice(LogFormat, value)),
        datapath=setting("datapath", DatapathChoice.AUTO.value, lambda value: _choice(DatapathChoice, value)),
    )
    if config.control_path == config.handoff_path:
        parser.error(f"--handoff: must differ from --listen; both are {config.handoff_path}")
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovpn-dataplane",
        description="OpenVPN data plane, controlled by gRPC. A flag wins over its environment variable.",
        allow_abbrev=False,
    )

    def add(name: str, metavar: str, text: str) -> None:
        parser.add_argument(f"--{name}", metavar=metavar, help=f"{text} [{_variable(name)}]")

    add("run-dir", "DIR", f"directory of the sockets, made if missing (default {DEFAULT_RUN_DIR})")
    add("listen", "unix:PATH", "where gRPC is served (default unix:RUN_DIR/control.sock)")
    add("handoff", "PATH", "socket that takes descriptors (default RUN_DIR/handoff.sock)")
    add("log-level", "LEVEL", "debug, info, warning or error (default info)")
    add("log-format", "FORMAT", "json, console, or auto: console on a terminal (default auto)")
    add("datapath", "KIND", "compiled, python, or auto: compiled if it was built (default auto)")
    parser.add_argument("--version", action="version", version=f"%(prog)s {program_version()}")
    return parser


def _variable(name: str) -> str:
    return f"OVPN_DATAPLANE_{name.upper().replace('-', '_')}"


def _directory(value: str) -> Path:
    if not value:
        raise ValueError("must be a path; is empty")
    return Path(value).absolute()


def _listen_path(value: str) -> Path:
    scheme, _, path = value.partition(":")
    if path.startswith("//") and not path.startswith("///"):
        scheme = ""  # what follows would be a host
    if scheme != "unix" or not path:
        raise ValueError(f"must be unix:PATH or unix:///PATH, for TCP is not served; is {value!r}")
    return _socket_path(path.removeprefix("//"))


def _socket_path(value: str) -> Path:
    path = _directory(value)
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"must be a path of 1..{MAX_SOCKET_PATH_BYTES} bytes, the limit of Unix sockets; "
            f"is {length} bytes long: choose a shorter one or a shorter --run-dir"
        )
    return path


def _choice(choices: type[E], value: str) -> E:
    try:
        return choices(value)
    except ValueError:
        names = ", ".join(str(choice.value) for choice in choices)
        raise ValueError(f"must be one of {names}; is {value!r}") from None
