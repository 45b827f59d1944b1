"""The command `ovpn-shim`: options, then the front.

Knows the command line. Must not import what only the supervisor needs: this process stays small.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from controlplane_shim.supervisor import front

DEFAULT_TARGET = "unix:///run/ovpn-dataplane/control.sock"

_DESCRIPTION = """\
Runs an unmodified OpenVPN 2.6 or 2.7 whose data channel is carried by ovpn-dataplane: the program finds data channel
offload, as if the kernel had it. If the data plane cannot be used, OpenVPN carries its data itself.
"""
_EPILOG = """\
The exit code is the program's, and a signal that kills the program kills ovpn-shim. Other exit codes: 64 wrong usage,
70 the supervisor died, 75 the data plane was lost, 78 a wrong option, 126 and 127 the program could not be executed.
"""
_EXIT_USAGE = 64  # EX_USAGE of sysexits.h
_MSS_MIN, _MSS_MAX = 108, 65495  # what is left of it over IPv6 must be as the data plane takes it, too
_LOG_LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code."""
    own, program = _split(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(own)
    if not program:
        parser.error("the program must follow after --")
    return front.run(supervisor_command(options), program)


def supervisor_command(options: argparse.Namespace) -> list[str]:
    """The supervisor's command line, with the options of `run` handed on."""
    # -P: nothing is imported from the directory the user happens to be in
    command = [sys.executable, "-P", "-m", "controlplane_shim.supervisor"]
    given = {
        "target": options.target,
        "handoff": options.handoff,
        "log-level": options.log_level,
        "log-file": options.log_file,
        "mss": options.mss or None,
        "copy-dscp": options.copy_dscp or None,
    }
    return command + [f"--{name}={value}" for name, value in given.items() if value is not None]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the first "--", and what stands after it."""
    given = list(arguments)
    position = given.index("--") if "--" in given else len(given)
    return given[:position], given[position + 1 :]


class _Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE: argparse's own 2 could be the program's."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_EXIT_USAGE, f"ovpn-shim: {message}\n")


class _Version(argparse.Action):
    """Looks the version up only when asked: the front shall start fast."""

    def __call__(self, parser: argparse.ArgumentParser, *_unused: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"ovpn-shim {version('ovpn-dataplane')}\n")
        parser.exit()


def _mss(text: str) -> int:
    value = int(text)
    if value and not _MSS_MIN <= value <= _MSS_MAX:
        raise argparse.ArgumentTypeError(f"must be 0 or {_MSS_MIN}..{_MSS_MAX}; is {value}")
    return value


def _switch(text: str) -> int:
    if text not in {"0", "1"}:
        raise argparse.ArgumentTypeError(f"must be 0 (off) or 1 (on); is {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("ovpn-shim", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="run", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        usage="ovpn-shim run [options] -- PROGRAM [ARGUMENTS]",
        help="run a program, usually: ovpn-shim run -- openvpn --config FILE",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    run.add_argument(
        "--target",
        default=os.environ.get("OVPN_SHIM_TARGET", DEFAULT_TARGET),
        help="gRPC address of ovpn-dataplane (environment: OVPN_SHIM_TARGET; default: %(default)s)",
    )
    run.add_argument(
        "--handoff",
        default=os.environ.get("OVPN_SHIM_HANDOFF"),
        metavar="PATH",
        help="its hand-off socket (environment: OVPN_SHIM_HANDOFF; default: the one that the target names)",
    )
    run.add_argument(
        "--mss",
        type=_mss,
        default=os.environ.get("OVPN_SHIM_MSS") or "0",
        metavar="BYTES",
        help="lower the MSS of TCP inside the tunnel to BYTES over IPv4, BYTES - 20 over IPv6, as mssfix does without"
        " offload (environment: OVPN_SHIM_MSS; default: 0, left alone)",
    )
    run.add_argument(
        "--copy-dscp",
        type=_switch,
        nargs="?",
        const="1",
        default=os.environ.get("OVPN_SHIM_COPY_DSCP") or "0",
        metavar="0|1",
        help="copy the DSCP of each packet inside the tunnel to the UDP packet that carries it, as OpenVPN's --passtos"
        " does without offload; with it, that has no effect (environment: OVPN_SHIM_COPY_DSCP; default: 0, off)",
    )
    run.add_argument("--log-level", choices=_LOG_LEVELS, default="info", help="default: %(default)s")
    run.add_argument(
        "--log-file",
        metavar="PATH",
        help="append the log of ovpn-shim there (default: standard error, as long as the program is in the foreground)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
