"""Composition of the supervisor process: log, session, program, loop.

Knows how the parts are joined, and in which order they come and go. Must not know what they do.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from controlplane_shim import log as logs
from controlplane_shim.supervisor import architecture, libc, loop, processes, signals, syscalls
from controlplane_shim.supervisor.handler import NetlinkHandler
from controlplane_shim.supervisor.lifeline import Ended, Lifeline, Started
from controlplane_shim.supervisor.listener import Listener
from controlplane_shim.supervisor.notices import Notices
from controlplane_shim.supervisor.program import LauncherDied, Program, Supervision
from controlplane_shim.supervisor.unicast import Unicaster

EXIT_FAULT = 70  # EX_SOFTWARE
EXIT_CONFIGURATION = 78  # EX_CONFIG

OpenSession = Callable[[str, str | None, FilteringBoundLogger], NetlinkHandler]
"""Takes target, hand-off socket (None: ask the target) and log. Raises ValueError or OSError for what cannot work."""

# Beside what the front blocked already: a stop or a read from the terminal is for the program alone.
_BLOCKED = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, *loop.SIGNALS)


def main(arguments: Sequence[str], open_session: OpenSession | None = None) -> int:
    """Runs the supervisor until the program has ended; its exit code tells nobody anything.

    Args:
        arguments: as the front gives them, "--" and the program last.
        open_session: in place of the session with the data plane.
    """
    split = list(arguments).index("--")
    options = _parser().parse_args(arguments[:split])
    command = list(arguments[split + 1 :])
    signals.block(_BLOCKED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the exit codes with it
    lifeline = Lifeline.inherited(options.fd)
    libc.set_child_subreaper()
    program = Program.launch(command, signals.decode_mask(options.signal_mask))
    try:
        # while the launcher gets ready
        log = logs.open_log(options.log_level, options.log_file)
        supervisor = _Supervisor(program, lifeline, log)
        supervisor.run(lambda: (open_session or _session())(options.target, options.handoff, log))
    except LauncherDied:
        lifeline.send(Ended(EXIT_FAULT, text="the program could not be launched"))
    except (OSError, ValueError) as error:
        lifeline.send(Ended(EXIT_CONFIGURATION, text=str(error)))
    return 0
XXX
