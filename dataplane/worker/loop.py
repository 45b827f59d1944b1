"""The worker's loop: moves packets until there is something else to do, and does that.

Knows the order of a round. Must not know packets (datapath.py) nor commands (commands.py).

A round: packets, until commands wait or a deadline has come; timers; messages to the daemon; commands. Each of them is
bounded: what is left over has its turn in the next round.
"""

from __future__ import annotations

from select import EPOLLIN, EPOLLOUT, epoll
from typing import Final

from dataplane.worker.command_channel import CommandChannel, close_all
from dataplane.worker.commands import Commands
from dataplane.worker.datapath import Datapath, PacketPath

_COMMANDS_A_ROUND: Final = 64


class Loop:
    """Serves one command channel, and the device that it configures."""

    def __init__(self, channel: CommandChannel, datapath: Datapath) -> None:
        self._channel = channel
        # An epoll descriptor is itself readable when it has something to report; that wakes the packet path.
        self._poller = epoll()
        self._poller.register(channel.fd, EPOLLIN)
        self._commands = Commands(datapath, wake_fd=self._poller.fileno())

    def run(self) -> None:
        """Returns after Stop, when its reply is out. Raises DaemonGone."""
        while not self._commands.stopped or self._channel.has_unsent:
            self._round()

    def _round(self) -> None:
        path = self._commands.path
        if path is None:
            self._poller.poll()
            self._serve_commands()
        else:
            self._serve(path)
        self._poller.modify(self._channel.fd, EPOLLIN | EPOLLOUT if self._channel.has_unsent else EPOLLIN)

    def _serve(self, path: PacketPath) -> None:
        commands_wait = path.serve()
        path.run_timers()
        self._tell(path)
        # Last: what came before a command was dealt with when its reply comes.
        if commands_wait:
            self._serve_commands()
            self._tell(path)

    def _tell(self, path: PacketPath) -> None:
        for message in path.take_messages():
            self._channel.send(message)

    def _serve_commands(self) -> None:
        self._channel.flush()
        for _ in range(_COMMANDS_A_ROUND):
            received = self._channel.receive()
            if received is None:
                return
            request, descriptors = received
            reply = self._commands.answer(request, descriptors)
            # Before the reply, after which the daemon may count on them being closed.
            close_all(descriptors)
            self._channel.send(reply)
