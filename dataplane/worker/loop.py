"""The worker's loop: waits for descriptors and deadlines, and says whose turn it is.

Knows epoll and the order of a round. Must not know packets (packet_path.py) nor commands (commands.py).

A round: packets of every descriptor that is ready; timers; events to the daemon; commands. All is level-triggered and
bounded: what is left over is reported again in the next round.
"""

from __future__ import annotations

import time
from select import EPOLLIN, EPOLLOUT, epoll
from typing import Final

from dataplane.worker.command_channel import CommandChannel, close_all
from dataplane.worker.commands import Commands

_COMMANDS_A_ROUND: Final = 64
_NS_PER_S: Final = 1_000_000_000
_FOR_EVER: Final = -1


class Loop:
    """Serves one command channel, and the device that it configures."""

    def __init__(self, channel: CommandChannel) -> None:
        self._poller = epoll()
        self._channel = channel
        self._commands = Commands(self._poller)
        self._poller.register(channel.fd, EPOLLIN)

    def run(self) -> None:
        """Returns after Stop, when its reply is out. Raises DaemonGone."""
        while not self._commands.stopped or self._channel.has_unsent:
            self._round()

    def _round(self) -> None:
        path = self._commands.path
        channel_is_ready = False
        for fd, mask in self._poller.poll(self._timeout_s()):
            if fd == self._channel.fd:
                channel_is_ready = True
            elif path is not None:
                path.serve(fd, mask)
        if path is not None:
            path.run_timers()
            for message in path.take_messages():
                self._channel.send(message)
        # Last: a command may close a descriptor that this round has still to serve.
        if channel_is_ready:
            self._channel.flush()
            self._serve_commands()
        self._poller.modify(self._channel.fd, EPOLLIN | EPOLLOUT if self._channel.has_unsent else EPOLLIN)

    def _serve_commands(self) -> None:
        for _ in range(_COMMANDS_A_ROUND):
            received = self._channel.receive()
            if received is None:
                return
            request, descriptors = received
            reply = self._commands.answer(request, descriptors)
            # Before the reply, after which the daemon may count on them being closed.
            close_all(descriptors)
            self._channel.send(reply)

    def _timeout_s(self) -> float:
        path = self._commands.path
        deadline_ns = None if path is None else path.next_deadline_ns()
        if deadline_ns is None:
            return _FOR_EVER
        # epoll counts in ms and Python rounds up, so a deadline has always come when it wakes us.
        return max(0, deadline_ns - time.monotonic_ns()) / _NS_PER_S
