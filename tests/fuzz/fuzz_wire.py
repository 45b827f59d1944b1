"""Feeds the data channel arbitrary and half-genuine packets: python tests/fuzz/fuzz_wire.py -max_total_time=60.

Nothing may raise, and no packet may vanish: each one is dropped for one reason, or goes through, or is a keepalive.
A batch must do what its packets would have done one by one, and the compiled channel what the readable one does.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

import atheris
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

with atheris.instrument_imports(include=["dataplane"]):
    import dataplane.fastpath.aead as compiled_aead
    import dataplane.fastpath.channel as compiled
    from dataplane.datachannel import aead as readable_aead
    from dataplane.datachannel import channel as readable
    from dataplane.datachannel.datagram import Datagram, SockAddr
    from dataplane.datachannel.early_packets import HOLD_NS
    from dataplane.datachannel.key_direction import KeyDirection
    from dataplane.datachannel.wire import KEEPALIVE
    from dataplane.statistics_page import drops_of
    from dataplane.vocabulary import ROW_WORDS, Cipher, FloatPolicy, KeySlot, Mode

SECRET = bytes(range(16))
TAIL = bytes(range(8))
SOURCES: list[SockAddr] = [("198.51.100.1", 1194), ("203.0.113.9", 4242), ("2001:db8::1", 1194, 0, 0)]
ADDRESSES = [bytes([10, 8, 0, 2]), bytes([10, 8, 0, 3]), bytes(4)]
AEAD = AESGCM(SECRET)


class Device:
    """A channel with the peers 1 and 2 (in P2P mode only 1); peer 2 has keys in both slots."""

    def __init__(self, mode: Mode, *, is_compiled: bool) -> None:
        channel = compiled if is_compiled else readable
        data_key = compiled_aead.DataKey if is_compiled else readable_aead.DataKey
        self.rows = [array("Q", bytes(ROW_WORDS * 8)) for _ in range(3)]
        self.channel = channel.DataChannel(mode, self.rows[0])
        for peer_id in (1, 2) if mode is Mode.MP else (1,):
            peer = channel.Peer(
                peer_id=peer_id,
                uid=peer_id,
                socket_id=0,
                remote=SOURCES[0],
                row=self.rows[peer_id],
                vpn_ipv4=ADDRESSES[peer_id - 1],
            )
            self.channel.add_peer(peer, 0)
            for slot in list(KeySlot)[:peer_id]:
                material = KeyDirection(SECRET, TAIL)
                self.channel.install_key(peer_id, slot, data_key(int(slot), Cipher.AES_GCM, material, material), 0)

    def drops(self) -> int:
        """Packets dropped so far."""
        return sum(sum(drops_of(row).values()) for row in self.rows)

    def open(self, socket_id: int, datagrams: Sequence[Datagram]) -> list[tuple[int, bytes]]:
        """What comes out, by peer_id."""
        opened = self.channel.open_batch(socket_id, datagrams, 1)
        self.channel.run_timers(1 + HOLD_NS)  # so that nothing is kept for a key to come
        return [(peer.peer_id, packet) for peer, packet in opened]

    def events(self) -> list[tuple[type, int]]:
        """What happened, by peer_id."""
        return [(type(event), event.peer.peer_id) for event in self.channel.take_events()]


def inner_packet(data: atheris.FuzzedDataProvider) -> bytes:
    """A keepalive, an IPv4 packet between known addresses, or anything."""
    kind = data.ConsumeIntInRange(0, 2)
    if kind == 0:
        return KEEPALIVE
    if kind == 1:
        source, destination = data.PickValueInList(ADDRESSES), data.PickValueInList(ADDRESSES)
        return b"\x45" + bytes(11) + bytes(source) + bytes(destination) + bytes(data.ConsumeBytes(16))
    return bytes(data.ConsumeBytes(64))


def datagram_of(data: atheris.FuzzedDataProvider) -> tuple[bytes, bool]:
    """A packet for the receiving side, and whether it carries a keepalive if it is authentic."""
    if data.ConsumeBool():
        return bytes(data.ConsumeBytes(96)), False
    payload = inner_packet(data)
    first = 9 << 27 | data.ConsumeIntInRange(0, 2) << 24 | data.PickValueInList([1, 1, 2, 3, 0xFFFFFF])
    head = first.to_bytes(4, "big") + data.ConsumeIntInRange(0, 0xFFFFFFFF).to_bytes(4, "big")
    sealed = AEAD.encrypt(head[4:] + TAIL, payload, head)
    datagram = bytearray(head + sealed[-16:] + sealed[:-16])
    if data.ConsumeBool():
        datagram[data.ConsumeIntInRange(0, len(datagram) - 1)] ^= data.ConsumeIntInRange(0, 255)
    return bytes(datagram), payload == KEEPALIVE


def check_receiving(data: atheris.FuzzedDataProvider, mode: Mode) -> None:
    """Opens some datagrams as a batch on a compiled and a readable device, and one by one on another."""
    batched, twin = Device(mode, is_compiled=True), Device(mode, is_compiled=False)
    single = Device(mode, is_compiled=False)
    policy = data.PickValueInList(list(FloatPolicy))
    for device in (batched, twin, single):
        device.channel.set_float_policy(policy)
    socket_id = data.ConsumeIntInRange(0, 1)
    batch: list[Datagram] = []
    opened_singly = []
    for _ in range(data.ConsumeIntInRange(0, 12)):
        bytes_, may_be_keepalive = datagram_of(data)
        datagram = (bytes_, data.PickValueInList(SOURCES), None)
        batch.append(datagram)
        drops_before = single.drops()
        opened = single.open(socket_id, [datagram])
        consumed = 1 - len(opened) - (single.drops() - drops_before)
        assert consumed == 0 or (consumed == 1 and may_be_keepalive), "a packet vanished or was counted twice"
        opened_singly += opened
    assert batched.open(socket_id, batch) == twin.open(socket_id, batch) == opened_singly
    assert batched.rows == twin.rows == single.rows
    assert batched.events() == twin.events() == single.events()


def check_sending(data: atheris.FuzzedDataProvider, mode: Mode) -> None:
    """Seals some packets; what comes out opens again and is in order a part of what went in."""
    device, twin = Device(mode, is_compiled=True), Device(mode, is_compiled=False)
    packets = [inner_packet(data) for _ in range(data.ConsumeIntInRange(0, 12))]
    sealed = [datagram for _, datagram in device.channel.seal_batch(packets, 1)]
    assert sealed == [datagram for _, datagram in twin.channel.seal_batch(packets, 1)]
    assert device.rows == twin.rows
    assert len(sealed) + device.drops() == len(packets)
    remaining = iter(packets)
    for datagram in sealed:
        payload = AEAD.decrypt(datagram[4:8] + TAIL, datagram[24:] + datagram[8:24], datagram[:8])
        assert payload in remaining


def target(data: bytes) -> None:
    """One input of the fuzzer."""
    provider = atheris.FuzzedDataProvider(data)
    mode = Mode.MP if provider.ConsumeBool() else Mode.P2P
    check_receiving(provider, mode)
    check_sending(provider, mode)


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
