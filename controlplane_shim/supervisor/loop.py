"""The supervisor's one thread: waits for whatever happens next and has it dealt with.

Knows the sources of events and how the end comes about. Must not know system calls (syscalls.py) or netlink messages.
"""

from __future__ import annotations

import contextlib
import math
import select
import signal
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from controlplane_shim.supervisor import processes
from controlplane_shim.supervisor.lifeline import Backgrounded, Ended, Lifeline
from controlplane_shim.supervisor.listener import Listener, Notification, NotificationGone
from controlplane_shim.supervisor.notices import Notices
from controlplane_shim.supervisor.program import MovedToBackground, Program, ProgramEnded
from controlplane_shim.supervisor.signals import SignalReader

Answer = Callable[[Notification], None]
"""Answers one notification. Raises nothing but NotificationGone."""

SIGNALS = (signal.SIGTERM, signal.SIGCHLD)
"""What the signal reader of the supervisor reads."""

EXIT_DATA_PLANE_GONE = 75  # EX_TEMPFAIL of sysexits.h

GRACE_SECONDS = 10.0
GRACE_WITHOUT_FRONT_SECONDS = 5.0


class Loop:
    """Runs until the program has ended, and after serve() answers it meanwhile."""

    def __init__(self, program: Program, lifeline: Lifeline, signals: SignalReader, log: FilteringBoundLogger) -> None:
        self._program = program
        self._lifeline = lifeline
        self._signals = signals
        self._notices: Notices | None = None
        self._log = log
        self._ended: Ended | None = None
        self._fatal = ""
        self._poll = select.poll()
        self._sources: dict[int, Callable[[int], None]] = {}
        self._watch(lifeline.fileno(), self._on_lifeline)
        self._watch(signals.fileno(), self._on_signals)

    def serve(self, listener: Listener, answer: Answer, notices: Notices) -> None:
        """Has notifications answered and notices forwarded from now on."""

        def on_listener(events: int) -> None:
            if events & select.POLLIN:
                _answer_next(listener, answer)
            else:  # POLLHUP: no process is left under the filter
                self._forget(listener.fileno())

        def on_notices(_events: int) -> None:
            self._forward(notices)

        self._notices = notices
        self._watch(listener.fileno(), on_listener)
        self._watch(notices.fileno(), on_notices)

    def run(self) -> Ended:
        """Returns how the program ended, for the front."""
        while self._ended is None:
            for fd, events in self._poll.poll(self._timeout_ms()):
                if fd in self._sources:
                    self._sources[fd](events)
            self._program.kill_if_overdue()
            if self._notices is not None:
                self._notices.retry()
        return self._ended

    def _watch(self, fd: int, callback: Callable[[int], None]) -> None:
        self._sources[fd] = callback
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._sources[fd]

    def _timeout_ms(self) -> int | None:
        waits = [self._program.kill_after_seconds()]
        if self._notices is not None:
            waits.append(self._notices.retry_after_seconds())
        return min((math.ceil(seconds * 1000) for seconds in waits if seconds is not None), default=None)

    def _on_lifeline(self, _events: int) -> None:
        # the front never sends: readable means that it has died
        self._forget(self._lifeline.fileno())
        self._log.warning("front process has died, ending the program", pid=self._program.pid)
        self._program.end(GRACE_WITHOUT_FRONT_SECONDS)

    def _on_signals(self, _events: int) -> None:
        if any(received.number == signal.SIGTERM for received in self._signals.read()):
            self._log.info("asked to end, ending the program", pid=self._program.pid)
            self._program.end(GRACE_SECONDS)
        match self._program.reap():
            case MovedToBackground(pid, pidfd):
                self._log.info("program went to the background", pid=pid)
                self._lifeline.send(Backgrounded(pid, pidfd))
                processes.detach_from_terminal()
            case ProgramEnded(code, number):
                self._log.debug("program ended", code=code, signal=number)
                self._ended = Ended(EXIT_DATA_PLANE_GONE, text=self._fatal) if self._fatal else Ended(code, number)

    def _forward(self, notices: Notices) -> None:
        try:
            reason = notices.forward()
        except Exception:  # noqa: BLE001 - a fault of the session must not leave the program unserved
            self._log.exception("notices could not be taken")
            self._forget(notices.fileno())
            reason = "internal error of ovpn-shim"
        if reason and not self._fatal:
            self._log.error("program cannot be served any more, ending it", pid=self._program.pid, reason=reason)
            self._fatal = reason
            self._program.end(GRACE_SECONDS)


def answer_leftovers(listener: Listener, signals: SignalReader, program: Program) -> None:
    """Leaves every call to the kernel until no process is left under the filter, or SIGTERM.

    A script may have started a daemon of its own, which outlives the program under the same filter; without a
    listener its netlink sockets would fail with ENOSYS.
    """
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    poll.register(signals.fileno(), select.POLLIN)
    while True:
        for fd, events in poll.poll():
            if fd == signals.fileno():
                if any(received.number == signal.SIGTERM for received in signals.read()):
                    return
                program.reap()
            elif events & select.POLLIN:
                _answer_next(listener, listener.let_through)
            else:
                return


def _answer_next(listener: Listener, answer: Answer) -> None:
    with contextlib.suppress(NotificationGone):  # killed in the middle
        answer(listener.receive())
