"""A pair of stream sockets in the place of a TCP socket of OpenVPN's.

The data plane has the TCP socket and one end of the pair, OpenVPN the other end under the descriptor that it knows:
there it goes on writing and reading its control packets, framed as before. Knows sockets. Must not know peers or the
data plane. See docs/adr/0011-tcp-in-the-shim.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from errno import ENOTSOCK
from typing import Final

from controlplane_shim.link_socket import UnsuitableSocketError

_ESTABLISHED: Final = 1  # tcpi_state; TCP_ESTABLISHED in <netinet/tcp.h>


class ControlStream:
    """The pair. `openvpn` is the end for OpenVPN, `outlet` the data plane's; give them away, then begin() or close().

    A copy of the outlet is kept, so that OpenVPN reads the end of its stream when it is told to and not before, be
    it that the data plane's worker dies; and so that it is noticed when OpenVPN closes its end.
    """

    def __init__(self, tcp: socket.socket) -> None:
        """For this socket, which has whole frames to read. Raises UnsuitableSocketError unless it is connected."""
        state = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state != _ESTABLISHED:
            raise UnsuitableSocketError(ENOTSOCK, f"the TCP socket is in state {state}, not established")
        # A read that found a part of a frame has set it; whoever reads next looks at every byte.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self.outlet, self.openvpn = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.openvpn.setblocking(os.get_blocking(tcp.fileno()))
        self.inode = os.fstat(self.openvpn.fileno()).st_ino

    def begin(self) -> None:
        """OpenVPN has its end: nobody else may have it, so that its closing is seen."""
        self.openvpn.close()

    def hang_up(self) -> None:
        """OpenVPN reads what still waits for it, then the end, as of a connection that was closed."""
        with contextlib.suppress(OSError):
            self.outlet.shutdown(socket.SHUT_WR)

    def is_abandoned(self) -> bool:
        """Whether OpenVPN has closed its end."""
        poll = select.poll()
        poll.register(self.outlet.fileno(), 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Closes what is still here. Repeatable."""
        self.openvpn.close()
        self.outlet.close()
