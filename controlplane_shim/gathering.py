"""UDP_GRO on a port that OpenVPN shares: the data plane's socket gathers all, its control packets come back to OpenVPN.

The data plane sends each control packet that it meets to a control outlet, a socket pair; a thread reads the other
end and injects it into OpenVPN's socket. Knows what this takes, how it is tried beforehand, and the order in which it
comes and goes. Must not know devices or peers. See docs/adr/0009-udp-gro-on-a-shared-port.md.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from structlog.typing import FilteringBoundLogger

from controlplane_shim.control_injection import LONGEST_DATAGRAM, ControlPacket, Injector, decode
from controlplane_shim.link_socket import UnsuitableSocketError
from controlplane_shim.udp_split import gather, scatter, split

OUTLET_BYTES: Final = 1 << 20
"""What may wait for the thread. It is bounded so that a flood of control packets costs the worker no more."""

JOIN_SECONDS: Final = 1.0
"""Longest wait for the thread to inject what is left."""

TRIAL_SECONDS: Final = 0.5

_SO_SNDBUFFORCE: Final = 32
_IP_PKTINFO: Final = 8
_TRIAL_PAYLOAD: Final = bytes([4 << 3, *b"trial"])  # any opcode but that of a data packet
_TRIAL_PORT: Final = 1194
# Documentation addresses (RFC 5737, RFC 3849), which nobody has.
_TRIAL_SOURCE: Final = {4: IPv4Address("192.0.2.1").packed, 6: IPv6Address("2001:db8::1").packed}
_LOOPBACK: Final = {4: IPv4Address("127.0.0.1").packed, 6: IPv6Address("::1").packed}


class CannotGatherError(Exception):
    """Control packets could not be handed back. The text says why."""


def prepare_gathering(openvpn: socket.socket, log: FilteringBoundLogger) -> Gathering | None:
    """Makes what it takes for the port of `openvpn`; None, and a line in the log, if something is missing."""
    try:
        return Gathering(openvpn, log)
    except CannotGatherError as error:
        _log_refusal(log, openvpn, error)
        return None


class Gathering:
    """One port. `outlet` is the data plane's end; hand it over, then begin() or close().

    Holds a copy of OpenVPN's socket, and so its port, until close().
    """

    def __init__(self, openvpn: socket.socket, log: FilteringBoundLogger) -> None:
        """Tries everything it takes on scratch sockets. Raises CannotGatherError."""
        if _asks_for_packet_info(openvpn):
            # It would be told the interface that has the address, which need not be the one where the packet came in.
            raise CannotGatherError("OpenVPN asks on which interface a packet came in (--multihome)")
        with ExitStack() as stack:
            try:
                self._injector = Injector(_versions(openvpn))
                stack.callback(self._injector.close)
                _try_out(openvpn, self._injector)
                self.outlet, self._inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            except (OSError, UnsuitableSocketError) as error:
                raise CannotGatherError(str(error)) from error
            stack.pop_all()
        self.outlet.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, OUTLET_BYTES)
        self._openvpn = openvpn.dup()
        self._port: int = openvpn.getsockname()[1]
        self._log = log
        self._thread = threading.Thread(target=self._hand_back, name=f"control packets {self._port}", daemon=True)

    def begin(self, ours: socket.socket, *, has_outlet: bool) -> bool:
        """Gives all to `ours`, the other socket of the port, which the data plane serves.

        has_outlet: whether the data plane took the outlet. Returns whether it worked; if not, the log has a line and
        the port is as it was.
        """
        if not has_outlet:
            _log_refusal(self._log, self._openvpn, "the data plane knows no control outlet, it is too old")
            return False
        # Nobody but the data plane may have the outlet, so that the inlet ends when that has closed it.
        self.outlet.close()
        self._thread.start()
        try:
            gather(self._openvpn, ours)
        except OSError as error:
            _log_refusal(self._log, self._openvpn, error)
            return False
        return True

    def end(self) -> None:
        """Has OpenVPN get its packets by itself again; to be called before the data plane's socket is closed."""
        if self._openvpn.fileno() >= 0:
            with contextlib.suppress(OSError):
                scatter(self._openvpn)

    def close(self) -> None:
        """Hands back what still waits and closes everything; the data plane's socket is closed already. Repeatable."""
        self.end()
        self.outlet.close()
        if self._thread.is_alive():
            # What waits is still read.
            with contextlib.suppress(OSError):
                self._inlet.shutdown(socket.SHUT_RD)
            self._thread.join(JOIN_SECONDS)
        else:
            self._inlet.close()
            self._injector.close()
        self._openvpn.close()

    def _hand_back(self) -> None:
        has_complained = False
        with self._inlet, contextlib.closing(self._injector):
            # Empty: neither daemon nor worker has the outlet any more.
            while datagram := self._inlet.recv(LONGEST_DATAGRAM):
                try:
                    self._injector.inject(decode(datagram), self._port)
                except (OSError, ValueError) as error:
                    if not has_complained:
                        self._log.warning("control packet not handed back", port=self._port, reason=str(error))
                    has_complained = True


def _log_refusal(log: FilteringBoundLogger, openvpn: socket.socket, reason: object) -> None:
    log.warning("UDP_GRO stays off", port=openvpn.getsockname()[1], reason=str(reason))


def _asks_for_packet_info(openvpn: socket.socket) -> bool:
    if openvpn.getsockopt(socket.IPPROTO_IP, _IP_PKTINFO):
        return True
    is_ipv6 = openvpn.family == socket.AF_INET6
    return is_ipv6 and bool(openvpn.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO))


def _address(bound: socket.socket) -> IPv4Address | IPv6Address:
    address = ip_address(bound.getsockname()[0])
    return (address.version == 6 and address.ipv4_mapped) or address


def _versions(openvpn: socket.socket) -> list[int]:
    """The IP versions of the packets that it may get."""
    address = _address(openvpn)
    is_dual = openvpn.family == socket.AF_INET6 and address == IPv6Address("::")
    if is_dual and not openvpn.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return [4, 6]
    return [address.version]


def _try_out(openvpn: socket.socket, injector: Injector) -> None:
    """Hands a packet back on another port that is like OpenVPN's. Raises CannotGatherError, OSError."""
    with _alike(openvpn) as scratch, split(scratch) as ours:
        gather(scratch, ours)
        scratch.settimeout(TRIAL_SECONDS)
        address, scope_id = _address(openvpn), (*openvpn.getsockname(), 0, 0)[3]
        for version in _versions(openvpn):
            local = _LOOPBACK[version] if address.is_unspecified else address.packed
            source = _TRIAL_SOURCE[version]
            packet = ControlPacket(version, source, _TRIAL_PORT, scope_id, local, _TRIAL_PAYLOAD)
            injector.inject(packet, scratch.getsockname()[1])
            try:
                payload, sender = scratch.recvfrom(len(_TRIAL_PAYLOAD))
            except TimeoutError:
                raise CannotGatherError(f"an injected IPv{version} packet did not arrive") from None
            if (payload, _packed(sender[0]), sender[1]) != (_TRIAL_PAYLOAD, source, _TRIAL_PORT):
                raise CannotGatherError(f"an injected IPv{version} packet came from {sender[0]} port {sender[1]}")


def _alike(openvpn: socket.socket) -> socket.socket:
    """A socket with the address of OpenVPN's, on any other port."""
    scratch = socket.socket(openvpn.family, socket.SOCK_DGRAM)
    try:
        if openvpn.family == socket.AF_INET6:
            only_v6 = openvpn.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            scratch.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        scratch.setsockopt(
            socket.SOL_SOCKET, socket.SO_BINDTODEVICE, openvpn.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        )
        host, _, *rest = openvpn.getsockname()
        scratch.bind((host, 0, *rest))
    except OSError:
        scratch.close()
        raise
    return scratch


def _packed(host: str) -> bytes:
    address = ip_address(host)
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).packed
