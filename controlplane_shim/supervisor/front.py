"""The front: the process that the user sees, stands for the program, and guards it.

Knows signals, exit codes and the lifeline. Must not know netlink or sessions. Standard library only, and small: it
stays for as long as the program runs. It holds a copy of the listener, so that the program's calls wait rather than
fail when the supervisor dies, and then kills the program: OpenVPN whose netlink fails runs wild and heeds no signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Sequence

from controlplane_shim.supervisor import libc, processes, signals
from controlplane_shim.supervisor.lifeline import Backgrounded, Ended, Lifeline, Started

EXIT_SUPERVISOR_DIED = 70  # EX_SOFTWARE of sysexits.h

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_READ = (*_FORWARDED, signal.SIGCHLD)
_STANDARD_ERROR = 2
_CLEANUP_SECONDS = 10.0
_KILLING_SECONDS = 5.0


class Front:
    """Starts the supervisor, then runs until the program has ended."""

    def __init__(self, supervisor: Sequence[str], program: Sequence[str]) -> None:
        """Starts the supervisor.

        Args:
            supervisor: its command line; what the front has to tell it is added.
            program: the user's command line.
        """
        mask = signals.block(_READ)
        libc.set_child_subreaper()
        self._signals = signals.SignalReader(_READ)
        self._lifeline, theirs = Lifeline.pair()
        own = ["--fd", str(theirs.pass_on()), "--signal-mask", signals.encode_mask(mask)]
        processes.spawn([*supervisor, *own, "--", *program])
        theirs.close()
        self._program: Started | Backgrounded | None = None
        self._held_back: set[int] = set()
        self._in_background = False

    def run(self) -> Ended:
        """Waits for the end of the program; how this process is to end."""
        poll = select.poll()
        poll.register(self._lifeline.fileno(), select.POLLIN)
        poll.register(self._signals.fileno(), select.POLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd == self._signals.fileno():
                    self._on_signals()
                    continue
                message = self._lifeline.receive()
                if message is None:
                    return self._supervisor_died()
                if isinstance(message, Ended):
                    self._await_cleanup()
                    return message
                self._adopt(message)

    def _on_signals(self) -> None:
        for received in self._signals.read():
            if received.number == signal.SIGCHLD:
                _reap()
            elif self._program is None:
                self._held_back.add(received.number)
            elif not (received.from_kernel and received.number in _FROM_TERMINAL):
                # the terminal tells its whole foreground group: the program has heard it
                self._signal(received.number)

    def _adopt(self, program: Started | Backgrounded) -> None:
        if self._program is not None:
            os.close(self._program.pidfd)
        self._program = program
        for number in self._held_back:
            self._signal(number)
        self._held_back.clear()
        if isinstance(program, Backgrounded) and not self._in_background:
            self._in_background = True
            if os.fork():
                os._exit(0)
            processes.detach_from_terminal()

    def _signal(self, number: int) -> None:
        if self._program is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._program.pidfd, number)

    def _await_cleanup(self) -> None:
        """Devices shall be gone when the user's shell goes on; but the user waits for no hanging supervisor."""
        poll = select.poll()
        poll.register(self._lifeline.fileno(), select.POLLIN)
        poll.poll(_CLEANUP_SECONDS * 1000)

    def _supervisor_died(self) -> Ended:
        if self._program is None:
            text = "the supervisor died before it could start the program"
        else:
            self._signal(signal.SIGKILL)
            text = "the supervisor died, so the program was killed"
        _kill_children()
        return Ended(EXIT_SUPERVISOR_DIED, text=text)


def run(supervisor: Sequence[str], program: Sequence[str]) -> int:
    """Runs the program; its exit code, unless this process dies of the same signal as the program did."""
    processes.open_standard_descriptors()
    ended = Front(supervisor, program).run()
    if ended.text:
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, f"ovpn-shim: {ended.text}\n".encode())
    if ended.signal:
        return _die_of(ended.signal)
    return ended.code


def _die_of(number: int) -> int:
    libc.forbid_core_dump()  # the program's own tells more
    with contextlib.suppress(OSError):  # SIGKILL has no disposition
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # the first process of a container does not die of signals


def _reap() -> bool:
    """Takes the ends of dead children; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_children() -> None:
    """Kills what the dead supervisor has left: its orphans, and theirs, are children of this process now."""
    deadline = time.monotonic() + _KILLING_SECONDS
    while _reap() and time.monotonic() < deadline:
        for child in processes.children_of(os.getpid()):
            os.kill(child.pid, signal.SIGKILL)
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
