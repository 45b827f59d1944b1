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
from controlplane_shim.supervisor import architecture, libc, processes, signals
from controlplane_shim.supervisor.handler import NetlinkHandler
from controlplane_shim.supervisor.lifeline import Ended, Lifeline, Started
from controlplane_shim.supervisor.listener import Listener
from controlplane_shim.supervisor.loop import SIGNALS, Loop, answer_leftovers
from controlplane_shim.supervisor.notices import Notices
from controlplane_shim.supervisor.program import LauncherDied, Program, Supervision
from controlplane_shim.supervisor.syscalls import PROTOCOLS, SyscallServer
from controlplane_shim.supervisor.unicast import Unicaster
from controlplane_shim.tuning import Tuning

EXIT_FAULT = 70  # EX_SOFTWARE of sysexits.h
EXIT_CONFIGURATION = 78  # EX_CONFIG

OpenSession = Callable[[str, str | None, FilteringBoundLogger, Tuning], NetlinkHandler]
"""Takes target, hand-off socket (None: ask the target), log and tuning.

Raises ValueError or OSError for what cannot work.
"""

# Beside what the front has blocked already: the terminal's stops are meant for the program alone.
_BLOCKED = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, *SIGNALS)


def main(arguments: Sequence[str], open_session: OpenSession | None = None) -> int:
    """Runs the supervisor until the program has ended; the front learns the outcome by the lifeline.

    Args:
        arguments: as the front gives them: options, "--", the program.
        open_session: in place of the session with the data plane.
    """
    split = list(arguments).index("--")
    options = _parser().parse_args(arguments[:split])
    signals.block(_BLOCKED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the exit codes with it
    libc.set_child_subreaper()
    lifeline = Lifeline.inherited(options.fd)
    program = Program.launch(list(arguments[split + 1 :]), signals.decode_mask(options.signal_mask))
    try:
        log = logs.open_log(options.log_level, options.log_file)
        opener = open_session or _data_plane_session()  # imports much, while the launcher gets ready
        supervision = program.receive_supervision()
        tuning = Tuning(options.mss, bool(options.copy_dscp))
        handler = None if supervision.listener is None else opener(options.target, options.handoff, log, tuning)
    except LauncherDied:
        lifeline.send(Ended(EXIT_FAULT, text="the program could not be launched"))
        return EXIT_FAULT
    except (OSError, ValueError) as error:
        lifeline.send(Ended(EXIT_CONFIGURATION, text=str(error)))
        return EXIT_CONFIGURATION

    try:
        _supervise(program, supervision, lifeline, handler, log)
    except Exception:  # the root of the process; the front, which gets no farewell, ends the program
        log.exception("supervisor failed")
        return EXIT_FAULT
    return 0


def _supervise(
    program: Program,
    supervision: Supervision,
    lifeline: Lifeline,
    handler: NetlinkHandler | None,
    log: FilteringBoundLogger,
) -> None:
    reader = signals.SignalReader(SIGNALS)
    loop = Loop(program, lifeline, reader, log)
    if handler is None or supervision.listener is None:
        log.warning("program runs unsupervised, with its own data channel", reason=supervision.reason)
        _run(loop, program, lifeline, None)
        return

    listener = Listener(supervision.listener)
    unicaster = Unicaster(PROTOCOLS)
    server = SyscallServer(
        listener, supervision.injected, program.executable, handler, unicaster, architecture.current(), log
    )
    loop.serve(listener, server.serve, Notices(handler, unicaster, log))
    _run(loop, program, lifeline, supervision.listener)
    _close(handler, log)
    unicaster.close()
    # The lifeline stays open: the front ends when this process has, so that nothing is left behind it.
    if listener.has_users():
        lifeline.close()
        log.info("processes that the program started remain, their calls go to the kernel")
        processes.detach_from_terminal()
        answer_leftovers(listener, reader, program)


def _run(loop: Loop, program: Program, lifeline: Lifeline, listener: int | None) -> None:
    # the guardian must be able to end the program before its first system call
    lifeline.send(Started(program.pid, program.pidfd, listener))
    program.go()
    lifeline.send(loop.run())


def _close(handler: NetlinkHandler, log: FilteringBoundLogger) -> None:
    try:
        handler.close()
    except Exception:  # what follows does not depend on it
        log.exception("session could not be closed in order")


def _data_plane_session() -> OpenSession:
    from controlplane_shim.session import open_session

    return open_session


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("controlplane_shim.supervisor", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="its end of the lifeline")
    parser.add_argument("--signal-mask", required=True, help="the program's, numbers with commas between")
    parser.add_argument("--target", required=True)
    parser.add_argument("--handoff")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--mss", type=int, default=0)
    parser.add_argument("--copy-dscp", type=int, default=0)
    return parser
