"""Peers, keys and their far ends, built by hand: each test runs on both implementations of the data channel."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from dataplane.datachannel.aead import DataKey
from dataplane.datachannel.datagram import SockAddr
from dataplane.datachannel.early_packets import HOLD_NS
from dataplane.datachannel.keepalive import Keepalive
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.datachannel.peer import Peer
from dataplane.statistics_page import drops_of
from dataplane.vocabulary import ROW_WORDS, Cipher, DropReason, KeySlot, Mode
from tests.datachannel.epoch_far_end import EpochFarEnd
from tests.datachannel.implementations import Implementation, compiled, readable

HOME: SockAddr = ("198.51.100.1", 1194)
SOCKET_ID = 7


def make_row() -> array[int]:
    """A statistics row, all zero."""
    return array("Q", bytes(ROW_WORDS * 8))


class FarEnd:
    """The other end of one data key: the wire format written a second time, on bare AEADs."""

    def __init__(
        self,
        data_key: type[DataKey],
        key_id: int,
        aead_type: type[AESGCM | ChaCha20Poly1305] = AESGCM,
        length: int = 32,
        seed: int = 0,
    ) -> None:
        secret = hashlib.shake_256(seed.to_bytes(4, "big")).digest(2 * length + 16)
        self.key_id = key_id
        self._to_us, self._from_us = secret[:length], secret[length : 2 * length]
        self._tail_to_us, self._tail_from_us = secret[-16:-8], secret[-8:]
        self._aead_type = aead_type
        self._data_key = data_key
        self.packet_id = 0

    def data_key(self) -> DataKey:
        """Our end of the same key, fresh."""
        cipher = Cipher.AES_GCM if self._aead_type is AESGCM else Cipher.CHACHA20_POLY1305
        return self._data_key(
            self.key_id,
            cipher,
            KeyDirection(self._from_us, self._tail_from_us),
            KeyDirection(self._to_us, self._tail_to_us),
        )

    def seal(self, payload: bytes, *, peer_id: int = 1, packet_id: int | None = None) -> bytes:
        """A packet to us; with the next packet-id unless one is given."""
        if packet_id is None:
            self.packet_id += 1
            packet_id = self.packet_id
        head = bytes([9 << 3 | self.key_id]) + peer_id.to_bytes(3, "big") + packet_id.to_bytes(4, "big")
        sealed = self._aead_type(self._to_us).encrypt(head[4:] + self._tail_to_us, payload, head)
        return head + sealed[len(payload) :] + sealed[: len(payload)]

    def open(self, datagram: bytes) -> tuple[int, int, bytes]:
        """peer_id, packet_id and payload of a packet from us."""
        word, packet_id = struct.unpack(">LL", datagram[:8])
        assert word >> 24 == 9 << 3 | self.key_id
        nonce = datagram[4:8] + self._tail_from_us
        payload = self._aead_type(self._from_us).decrypt(nonce, datagram[24:] + datagram[8:24], datagram[:8])
        return word & 0xFFFFFF, packet_id, payload


class Tunnel:
    """A device's channel with one peer (peer_id 1, 10.8.0.2, fd00::2), its primary key and the far end of that."""

    def __init__(self, implementation: Implementation, mode: Mode) -> None:
        self._implementation = implementation
        self.device_row = make_row()
        self.channel = implementation.data_channel(mode, self.device_row)
        self.peer = self.add_peer(1, "10.8.0.2", "fd00::2")
        self.far = self.install(1, KeySlot.PRIMARY, key_id=0)

    def add_peer(
        self,
        peer_id: int,
        vpn_ipv4: str | None = None,
        vpn_ipv6: str | None = None,
        remote: SockAddr = HOME,
        keepalive: Keepalive | None = None,
    ) -> Peer:
        """Adds one more peer at time 0."""
        peer = make_peer(self._implementation.peer, peer_id, vpn_ipv4, vpn_ipv6, remote, keepalive)
        self.channel.add_peer(peer, 0)
        return peer

    def install(self, peer_id: int, slot: KeySlot, key_id: int) -> FarEnd:
        """Installs a new key; its far end."""
        far = FarEnd(self._implementation.data_key, key_id, seed=1000 * peer_id + 10 * key_id + slot)
        self.channel.install_key(peer_id, slot, far.data_key(), 0)
        return far

    def install_epochs(self, slot: KeySlot, key_id: int) -> EpochFarEnd:
        """Installs a new key of the format EPOCH for the first peer; its far end."""
        far = EpochFarEnd(self._implementation.epoch_key, key_id=key_id)
        self.channel.install_key(1, slot, far.data_key(), 0)
        return far

    def wait_for_keys(self) -> None:
        """Lets so much time pass that no key comes any more for what came before."""
        self.channel.run_timers(1 + HOLD_NS)

    def receive(
        self,
        *datagrams: bytes,
        source: SockAddr = HOME,
        local: bytes | None = None,
        socket_id: int = SOCKET_ID,
        now_ns: int = 1,
    ) -> list[bytes]:
        """The IP packets that come out of these datagrams."""
        batch = [(datagram, source, local) for datagram in datagrams]
        return [packet for _, packet in self.channel.open_batch(socket_id, batch, now_ns)]

    def send(self, *packets: bytes, now_ns: int = 1) -> list[bytes]:
        """The datagrams made of these IP packets."""
        return [datagram for _, datagram in self.channel.seal_batch(packets, now_ns)]

    @property
    def drops(self) -> dict[DropReason, int]:
        """What the first peer is charged with."""
        return drops_of(self.peer.row)

    @property
    def device_drops(self) -> dict[DropReason, int]:
        """What the device is charged with."""
        return drops_of(self.device_row)


def make_peer(
    peer_type: type[Peer],
    peer_id: int,
    vpn_ipv4: str | None = None,
    vpn_ipv6: str | None = None,
    remote: SockAddr = HOME,
    keepalive: Keepalive | None = None,
) -> Peer:
    """A peer that stands in no table yet."""
    return peer_type(
        peer_id=peer_id,
        uid=100 + peer_id,
        socket_id=SOCKET_ID,
        remote=remote,
        row=make_row(),
        vpn_ipv4=None if vpn_ipv4 is None else ip_address(vpn_ipv4).packed,
        vpn_ipv6=None if vpn_ipv6 is None else ip_address(vpn_ipv6).packed,
        keepalive=keepalive or Keepalive(),
    )


def ip_packet(source: str, destination: str, payload: bytes = b"") -> bytes:
    """An IPv4 or IPv6 packet; fields that nobody reads are zero."""
    if ":" in source:
        return b"\x60" + bytes(7) + ip_address(source).packed + ip_address(destination).packed + payload
    return b"\x45" + bytes(11) + ip_address(source).packed + ip_address(destination).packed + payload


class Maker:
    """What the tests of this folder are built from, of one implementation."""

    row = staticmethod(make_row)
    ip_packet = staticmethod(ip_packet)

    inbound = ip_packet("10.8.0.2", "10.8.0.1", b"to us")
    outbound = ip_packet("10.8.0.1", "10.8.0.2", b"from us")
    suites: Sequence[tuple[type[AESGCM | ChaCha20Poly1305], int]] = (
        (AESGCM, 16),
        (AESGCM, 24),
        (AESGCM, 32),
        (ChaCha20Poly1305, 32),
    )

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation

    def peer(
        self,
        peer_id: int,
        vpn_ipv4: str | None = None,
        vpn_ipv6: str | None = None,
        remote: SockAddr = HOME,
        keepalive: Keepalive | None = None,
    ) -> Peer:
        """A peer that stands in no table yet."""
        return make_peer(self.implementation.peer, peer_id, vpn_ipv4, vpn_ipv6, remote, keepalive)

    def tunnel(self, mode: Mode = Mode.MP) -> Tunnel:
        """A device with one peer."""
        return Tunnel(self.implementation, mode)

    def far_end(self, suite: int = 2, key_id: int = 0, seed: int = 0) -> FarEnd:
        """The far end of a key of one of the suites."""
        aead_type, length = self.suites[suite]
        return FarEnd(self.implementation.data_key, key_id, aead_type, length, seed)


@pytest.fixture(scope="session", params=[readable, compiled], ids=["readable", "compiled"])
def make(request: pytest.FixtureRequest) -> Maker:
    """Makes rows, peers, keys and packets; keeps nothing."""
    return Maker(request.param())


@pytest.fixture
def tunnel(make: Maker) -> Tunnel:
    """A multi-peer device with one peer."""
    return make.tunnel()
