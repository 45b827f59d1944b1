"""The key slots of the peers of one device.

Knows which key-id and cipher is in which slot. Must not keep key bytes: they go through to the worker.
"""

from __future__ import annotations

from dataplane import messages
from dataplane.engine import errors
from dataplane.engine.key_history import KeyHistory
from dataplane.engine.peer_table import InstalledKey, PeerTable
from dataplane.engine.supervisor import Supervisor
from dataplane.engine.types import KeyLimitNear, KeySpec, KeySwapNeeded, KeyView
from dataplane.engine.watch import EventLog
from dataplane.messages import DeleteKey, InstallKey, SwapKeys
from dataplane.vocabulary import KeyLimit, KeySlot


class Keys:
    """The keys of a device's peers."""

    def __init__(
        self, device: str, table: PeerTable, supervisor: Supervisor, events: EventLog, history: KeyHistory
    ) -> None:
        self._device = device
        self._table = table
        self._supervisor = supervisor
        self._events = events
        self._history = history

    async def install(self, spec: KeySpec) -> KeyView:
        """Fills a slot. Raises EngineError KEY_REUSE if a direction of the key was installed before."""
        async with self._supervisor.exclusive():
            peer = self._table.get(spec.peer_id)
            # Before the worker has it: if it dies before it answers, nobody knows what it sealed.
            self._history.record(spec)
            await self._supervisor.request(
                InstallKey(
                    peer_id=spec.peer_id,
                    slot=spec.slot,
                    key_id=spec.key_id,
                    cipher=spec.cipher,
                    encrypt_key=spec.encrypt_key,
                    encrypt_nonce_tail=spec.encrypt_nonce_tail,
                    decrypt_key=spec.decrypt_key,
                    decrypt_nonce_tail=spec.decrypt_nonce_tail,
                    data_format=spec.data_format,
                    cipher_key_length=spec.key_length,
                )
            )
            peer.keys[spec.slot] = InstalledKey(spec.key_id, spec.cipher, spec.key_length * 8, spec.data_format)
            return self.view(spec.peer_id, spec.slot)

    def view(self, peer_id: int, slot: KeySlot) -> KeyView:
        """What is in a slot. Raises EngineError PEER_NOT_FOUND, KEY_SLOT_EMPTY."""
        view = self._table.get(peer_id).key_view(slot)
        if view is None:
            raise errors.key_slot_empty(self._device, peer_id, slot)
        return view

    async def swap(self, peer_id: int) -> None:
        """Exchanges the slots."""
        async with self._supervisor.exclusive():
            peer = self._table.get(peer_id)
            await self._supervisor.request(SwapKeys(peer_id))
            peer.keys = {KeySlot(1 - slot): key for slot, key in peer.keys.items()}

    async def delete(self, peer_id: int, slot: KeySlot, linger_ns: int) -> None:
        """Empties a slot; a key of the secondary one may linger in the worker, of which nothing else is to be seen."""
        async with self._supervisor.exclusive():
            peer = self._table.get(peer_id)
            await self._supervisor.request(DeleteKey(peer_id, slot, linger_ns))
            peer.keys.pop(slot, None)

    def exhausted(self, event: messages.KeyExhausted) -> None:
        """The worker removed a primary key that is used up."""
        peer = self._table.meant_by(event.peer_id, event.uid)
        if peer is None:
            return
        # Commands that the worker carried out before it told of this may have moved or replaced what was primary.
        for slot, key in sorted(peer.keys.items()):
            if key.key_id == event.key_id:
                del peer.keys[slot]
                break
        self._events.publish(
            self._device, lambda revision: KeySwapNeeded(revision, self._device, event.peer_id, event.key_id)
        )

    def limit_near(self, event: messages.KeyLimitNear) -> None:
        """A key will be used up soon. Raises ValueError for a limit that is none."""
        limit = KeyLimit(event.limit)
        if self._table.meant_by(event.peer_id, event.uid) is not None:
            self._events.publish(
                self._device,
                lambda revision: KeyLimitNear(revision, self._device, event.peer_id, event.key_id, limit),
            )
