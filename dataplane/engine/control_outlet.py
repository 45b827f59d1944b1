"""Checks a control outlet or stream that was handed over: the second descriptor of an adopted socket.

Knows what AdoptSocketRequest.control_token in socket.proto promises of it. Must not know what is sent there.
"""

from __future__ import annotations

import socket
from typing import Final

from dataplane.engine import errors
from dataplane.transport.tcp_socket import NotAControlStream, inspect_control_stream

_KEEPS_DATAGRAMS_APART: Final = frozenset({socket.SOCK_SEQPACKET, socket.SOCK_DGRAM})


def check_outlet(fd: int) -> None:
    """Inspects a descriptor, which stays the caller's. Raises EngineError NOT_A_CONTROL_OUTLET."""
    try:
        outlet = socket.socket(fileno=fd)
    except OSError as error:
        raise errors.not_a_control_outlet(f"not a socket: {error.strerror}") from error
    try:
        if outlet.family != socket.AF_UNIX or outlet.type not in _KEEPS_DATAGRAMS_APART:
            raise errors.not_a_control_outlet("a socket, but not AF_UNIX with SOCK_SEQPACKET or SOCK_DGRAM")
        outlet.getpeername()
    except OSError as error:
        raise errors.not_a_control_outlet(f"not connected: {error.strerror}") from error
    finally:
        outlet.detach()


def check_stream(fd: int | None) -> None:
    """The same for the control stream of a TCP socket, which must be there."""
    if fd is None:
        raise errors.not_a_control_outlet("a TCP socket needs a control stream: give control_token")
    try:
        inspect_control_stream(fd)
    except NotAControlStream as error:
        raise errors.not_a_control_outlet(str(error)) from error
