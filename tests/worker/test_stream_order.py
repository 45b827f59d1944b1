"""Over TCP a soft reset stays behind the data that came before it; other control packets overtake them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from dataplane.datachannel.wire import OPCODE_DATA_V2, OPCODE_SOFT_RESET
from dataplane.statistics_page import drops_of
from dataplane.transport.tcp_framing import QUEUE_BYTES, frame_of
from dataplane.vocabulary import Column
from tests.worker.conftest import Device
from tests.worker.test_streams import P_CONTROL_V1, PEER_ID, VPN_IPV4, Stream

pytestmark = pytest.mark.root

PAYLOAD: Final = bytes(1200)
CONTROL: Final = P_CONTROL_V1 * 20
WAITING: Final = QUEUE_BYTES // (2 + 24 + 28 + len(PAYLOAD)) - 2
"""Packets in a full queue, at least."""


def soft_reset(key_id: int) -> bytes:
    return bytes([OPCODE_SOFT_RESET << 3 | key_id]) + bytes(20)


class Far:
    """What the far end hears."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.data_packets = 0

    def control_packet(self) -> bytes:
        """The next one."""
        packet = self._stream.from_worker.packet()
        while packet[0] >> 3 == OPCODE_DATA_V2:
            self.data_packets += 1
            packet = self._stream.from_worker.packet()
        return packet


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    """With a peer that takes little before it reads."""
    with ExitStack() as stack:
        stream = Stream(device, stack, buffer_bytes=4096)
        stream.add_peer()
        yield stream


def fill(stream: Stream) -> int:
    """Sends data until the queue is full; how many packets were accepted since the stream began."""
    refused = total_drops(stream)
    while total_drops(stream) == refused:
        for _ in range(50):
            stream.device.say(PAYLOAD, to=VPN_IPV4)
        stream.device.worker.settle()
    return stream.row(Column.LINK_TX_PACKETS)


def total_drops(stream: Stream) -> int:
    return sum(drops_of(stream.device.page.snapshot(PEER_ID)).values())


def test_soft_reset_comes_behind_the_data_that_were_accepted_before_it(stream: Stream) -> None:
    accepted = fill(stream)
    stream.control.sendall(frame_of(soft_reset(1)))
    far = Far(stream)
    assert far.control_packet() == soft_reset(1)
    assert far.data_packets == accepted


def test_what_follows_a_soft_reset_stays_behind_it(stream: Stream) -> None:
    fill(stream)
    stream.control.sendall(frame_of(soft_reset(1)) + frame_of(CONTROL))
    stream.device.worker.settle()
    stream.control.sendall(frame_of(CONTROL + b"later"))
    far = Far(stream)
    assert [far.control_packet() for _ in range(3)] == [soft_reset(1), CONTROL, CONTROL + b"later"]


def test_what_comes_before_a_soft_reset_overtakes(stream: Stream) -> None:
    accepted = fill(stream)
    stream.control.sendall(frame_of(CONTROL) + frame_of(soft_reset(1)))
    far = Far(stream)
    assert far.control_packet() == CONTROL
    assert far.data_packets <= accepted - WAITING
    assert far.control_packet() == soft_reset(1)
    assert far.data_packets == accepted


@pytest.mark.parametrize(("key_id", "waits"), [(1, False), (2, True)])
def test_repetition_overtakes_and_the_next_soft_reset_does_not(stream: Stream, key_id: int, waits: bool) -> None:
    far = Far(stream)
    stream.control.sendall(frame_of(soft_reset(1)))
    assert far.control_packet() == soft_reset(1)
    accepted = fill(stream)
    stream.control.sendall(frame_of(soft_reset(key_id)))
    assert far.control_packet() == soft_reset(key_id)
    assert far.data_packets == accepted if waits else far.data_packets <= accepted - WAITING
