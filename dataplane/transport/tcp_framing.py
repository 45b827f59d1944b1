"""OpenVPN packets in a stream of bytes: each stands behind its length.

Knows how a frame looks and which may follow which; it is sans-IO. Must not know sockets, nor what a packet means.

    bytes 0-1    length of the packet, big endian
    bytes 2-     the packet

(OpenVPN's socket.c, `packet_size_type`; the kernel's drivers/net/ovpn/tcp.c.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from dataplane.vocabulary import MTU_MAX

PREFIX_SIZE: Final = 2
PACKET_MIN: Final = 4
"""No OpenVPN packet is shorter in bytes: a DATA_V2 packet has a first word, any other a session id."""
PACKET_MAX: Final = MTU_MAX + 28
"""The longest data packet, one of a key with epochs; those of the control channel are shorter."""
QUEUE_BYTES: Final = 1 << 20
"""How many bytes of data packets, with their prefixes, may wait for a stream to take them, control packets among them
included."""

_PIECES_MAX: Final = 64


def frame_of(packet: bytes) -> bytes:
    """The packet behind its length."""
    return len(packet).to_bytes(PREFIX_SIZE, "big") + packet


class FrameCutter:
    """Cuts a stream into packets, in whatever pieces it comes. Holds less than one frame.

    is_broken: a length was not in PACKET_MIN..PACKET_MAX, so that nobody knows where the next frame begins.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.is_broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that end in these bytes, in order; none any more once the stream is broken."""
        if self.is_broken:
            return []
        self._rest += data
        packets = []
        at = 0
        while len(self._rest) - at >= PREFIX_SIZE:
            size = int.from_bytes(self._rest[at : at + PREFIX_SIZE], "big")
            if not PACKET_MIN <= size <= PACKET_MAX:
                self.is_broken = True
                break
            end = at + PREFIX_SIZE + size
            if end > len(self._rest):
                break
            packets.append(bytes(self._rest[at + PREFIX_SIZE : end]))
            at = end
        del self._rest[: len(self._rest) if self.is_broken else at]
        return packets


class FrameQueue:
    """Packets of two sources on their way into a stream. A frame is never torn; each source keeps its order.

    Packets of the control channel go first, so that they pass however many data packets wait; but one that is in order
    stays behind the data that were added before it, and those that follow stay behind it. Of data packets no more are
    to be added than admits() says; the control channel bounds itself: no more is read of it while has_control.
    """

    def __init__(self) -> None:
        self._begun = memoryview(b"")  # what is left of the frame of which the stream has a part
        self._control: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self._data_bytes = 0
        self._in_order = 0  # of the frames in _data, up to the last one of the control channel

    @property
    def is_empty(self) -> bool:
        """Whether the stream has taken all."""
        return not (self._begun or self._control or self._data)

    @property
    def has_control(self) -> bool:
        """Whether packets of the control channel wait."""
        return bool(self._control) or self._in_order > 0

    def admits(self, size: int) -> bool:
        """Whether data packets of `size` bytes together, with their prefixes, may be added."""
        return self._data_bytes + size <= QUEUE_BYTES

    def add_data(self, packet: bytes) -> None:
        """Adds a data packet, PACKET_MIN..PACKET_MAX bytes."""
        self._data.append(frame_of(packet))
        self._data_bytes += PREFIX_SIZE + len(packet)

    def add_control(self, packet: bytes, *, in_order: bool = False) -> None:
        """Adds a packet of the control channel, PACKET_MIN..PACKET_MAX bytes. in_order: it overtakes no data."""
        if in_order or self._in_order:
            self.add_data(packet)
            self._in_order = len(self._data)
        else:
            self._control.append(frame_of(packet))

    def pieces(self) -> list[bytes | memoryview]:
        """What the stream is to take next, in order; empty only if nothing waits."""
        waiting: Iterator[bytes] = chain(self._control, self._data)
        return [*([self._begun] if self._begun else []), *islice(waiting, _PIECES_MAX)]

    def took(self, count: int) -> None:
        """The stream took so many bytes of pieces()."""
        while count > 0:
            if not self._begun:
                self._begun = memoryview(self._next_frame())
            taken = min(count, len(self._begun))
            self._begun = self._begun[taken:]
            count -= taken

    def _next_frame(self) -> bytes:
        if self._control:
            return self._control.popleft()
        frame = self._data.popleft()
        self._data_bytes -= len(frame)
        self._in_order = max(0, self._in_order - 1)
        return frame
