"""Entry of the worker process: `python -m dataplane.worker --fd N [--datapath KIND]`.

N is its end of the command channel, KIND a DatapathKind (by default the readable one).

Knows the order of coming up: signals, descriptors, privileges, loop. Must not know what the loop does.

The exit status is 0 after Stop or when the daemon is gone, 1 after a fault, which one line on stderr tells.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from dataplane.vocabulary import DatapathKind
from dataplane.worker.command_channel import CommandChannel, DaemonGone
from dataplane.worker.datapath import load_datapath
from dataplane.worker.loop import Loop
from dataplane.worker.privileges import close_stray_descriptors, die_with, give_up_privileges


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker to its end and gives the exit status."""
    # Ctrl-C reaches every process of the terminal, but it is the daemon that stops its workers, in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="dataplane.worker", description="Packet path of one device.")
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the command channel")
    parser.add_argument(
        "--datapath",
        type=DatapathKind,
        choices=list(DatapathKind),
        default=DatapathKind.PYTHON,
        help="which implementation carries the packets",
    )
    options = parser.parse_args(arguments)
    fd: int = options.fd
    try:
        # First: without capabilities the files may be out of reach.
        datapath = load_datapath(options.datapath)
        close_stray_descriptors(keep=fd)
        channel = CommandChannel(fd)
        give_up_privileges()
        die_with(channel.daemon_pid())
        Loop(channel, datapath).run()
    except DaemonGone:
        return 0
    except Exception as error:  # noqa: BLE001 - the root of the process
        print(f"dataplane.worker: {_describe(error)}", file=sys.stderr)  # noqa: T201 - it has no log
        return 1
    return 0


def _describe(error: Exception) -> str:
    # The place instead of a traceback: one line, and nothing of the values at hand.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = "" if traceback is None else f" ({traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


if __name__ == "__main__":
    sys.exit(main())
